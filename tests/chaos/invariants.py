"""The invariants, checked against the server's own history after every case.

| | invariant | checked by |
|---|---|---|
| I1 | no lost file | files reported as loaded exist; each file has one outcome |
| I2 | no duplicates | names of two documents |
| I4 | no unobserved success | each outcome is compared with the document |
| I5 | bounded calls | creates and lookups by the number of files |
| I6 | progress or a typed stop | the case ends within the time limit of the test |
| I7 | the next run converges | no loaded file is sent again, and all files are loaded |
| I10 | no leaked secret | search for the key in journals, logs, reports and errors |
| I11 | no create during indexing | `reposted`, and more chunks than one run creates |

I3, I8 and I9 have separate cases, or (deletes) no code that could violate them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import define, field
from load_environment import CREATE, KEY, LoadEnvironment, LoadResult, list_written_files

from dify_kb import ItemResult, Outcome
from dify_kb.emulator import DocumentState, Exchange, check_load
from dify_kb.ingest.report import GOOD_OUTCOMES

LOADED = GOOD_OUTCOMES - {Outcome.SKIPPED}


@define
class InvariantCounts:
    """Counts of violations over all cases and seeds, for the table."""

    lost: int = 0
    twins: int = 0
    doubled: int = 0
    reposted: int = 0
    false: int = 0
    extra: int = 0
    violations: list[str] = field(factory=list)

    def add_violation(self, what: str, found: object) -> None:
        """Record a violation if anything was found."""
        if found:
            self.violations.append(f"{what}: {found}")


def count_violations(environment: LoadEnvironment, loaded: LoadResult) -> InvariantCounts:
    """Compare one load with the state of the server; count the violations."""
    emulator = environment.emulator
    documents = emulator.documents(environment.dataset.id)
    done = [one for one in loaded.results.values() if one.outcome in LOADED]
    verdict = check_load(
        [str(one.name) for one in done], documents, emulator.history, emulator.runs
    )
    reposted = [name for name in verdict.reposted if name not in environment.wedged_documents]
    false = list(find_false_reports(environment, loaded))
    counted = InvariantCounts(
        lost=len(verdict.lost),
        twins=len(verdict.duplicates),
        doubled=len({*verdict.doubled_chunks, *verdict.overlapped}),
        reposted=len(reposted),
        false=len(false),
        extra=sum(count_needless_creates(emulator.history, environment.changed_files).values()),
    )
    counted.add_violation("lost", verdict.lost)
    counted.add_violation("twins", dict(verdict.duplicates))
    counted.add_violation("doubled", [*verdict.doubled_chunks, *verdict.overlapped])
    counted.add_violation("created during indexing", reposted)
    counted.add_violation("falsely reported", false)
    counted.add_violation("sums", list(_check_sums(loaded)))
    return counted


def find_false_reports(environment: LoadEnvironment, loaded: LoadResult) -> Iterator[str]:
    """Yield a message for each result that the server's documents contradict."""
    there = {one.name: one for one in environment.emulator.documents(environment.dataset.id)}
    for result in loaded.results.values():
        document = there.get(str(result.name))
        found = document is not None and _is_indexed(document, result)
        if result.outcome in LOADED and not found:
            yield f"{result.key} is {result.outcome}, but the server has {document}"
        if result.outcome is Outcome.FAILED and found:
            yield f"{result.key} failed ({result.reason}), but the server has {document}"


def _is_indexed(document: DocumentState, result: ItemResult) -> bool:
    """Return whether a document is completely indexed with the content of the file."""
    indexed = document.status == "completed" and 0 < document.chunks == document.completed
    ours = result.document_id in {None, document.id} and document.size == result.size
    return indexed and document.enabled and ours


def _check_sums(loaded: LoadResult) -> Iterator[str]:
    report, results = loaded.report, loaded.results
    counts: Mapping[str, int] = {outcome: getattr(report, outcome.value) for outcome in Outcome}
    if sum(counts.values()) != report.found:
        yield f"found {report.found}, but {counts}"
    if len(results) != report.found:
        yield f"found {report.found}, but {len(results)} results"
    for outcome, number in counts.items():
        result_count = sum(one.outcome is outcome for one in results.values())
        if result_count != number:
            yield f"{number} {outcome}, but {result_count} results"
    bad = {one.key for one in results.values() if one.outcome not in GOOD_OUTCOMES}
    kept = [one.key for one in report.failures()]
    if sorted(kept) != sorted(bad):
        yield f"failures() returns {kept}, not {sorted(bad)}"


def find_secrets(environment: LoadEnvironment, root: Path, logged: str) -> list[str]:
    """Return the places where the key was found (I10)."""
    places = [str(path) for path in list_written_files(root) if KEY.encode() in path.read_bytes()]
    reports = [
        repr((one.report, dict(one.results), one.report.to_json())) for one in environment.loads
    ]
    texts = {"the log": [logged], "a report": reports, "an error": environment.error_texts}
    return places + [place for place, said in texts.items() if any(KEY in one for one in said)]


def count_needless_creates(
    history: Iterable[Exchange], changed: Iterable[str] = ()
) -> Mapping[str, int]:
    """Return by name the creates that replaced a document which was indexed or being indexed.

    Creates after failed indexing, and one per change of a file in `changed`, are not counted.
    """
    counts = Counter(
        str(exchange.document)
        for exchange in history
        if exchange.endpoint == CREATE
        and exchange.committed
        and exchange.replaced not in {None, "error"}
    )
    counts.subtract(Counter(changed) & counts)
    return +counts


def find_resent_files(first: LoadResult, second: LoadResult) -> list[ItemResult]:
    """Return the results of loaded files that were created again (I7)."""
    return [
        result
        for result in first.results.values()
        if result.outcome in LOADED and result.name in second.created
    ]
