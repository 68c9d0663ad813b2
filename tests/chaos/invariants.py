"""The invariants, judged by the server's own history after every cell.

| | invariant | judged by |
|---|---|---|
| I1 | none lost | what is reported good is there; each file has one outcome |
| I2 | no twins | names that two documents have |
| I4 | no success that was not observed | each outcome against the document that is there |
| I5 | bounded calls | creates and looks by the number of files |
| I6 | progress or a typed stop | the cell ends within the test's limit |
| I7 | the next run converges | nothing that was good is sent again, and all of it gets good |
| I10 | no secret anywhere | the key in journals, logs, reports and errors |
| I11 | nothing posted while it is indexed | `reposted`, and chunks beyond those of a run |

I3, I8 and I9 have cells of their own, or (deletes) no code that could break them.
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
    """What is counted over all cells and seeds, for the table."""

    lost: int = 0
    twins: int = 0
    doubled: int = 0
    reposted: int = 0
    false: int = 0
    extra: int = 0
    violations: list[str] = field(factory=list)

    def add_violation(self, what: str, found: object) -> None:
        """Note what is wrong, if anything was found."""
        if found:
            self.violations.append(f"{what}: {found}")


def count_violations(environment: LoadEnvironment, loaded: LoadResult) -> InvariantCounts:
    """Judge one load by what the server holds now."""
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
    counted.add_violation("posted while it was indexed", reposted)
    counted.add_violation("falsely reported", false)
    counted.add_violation("sums", list(_check_sums(loaded)))
    return counted


def find_false_reports(environment: LoadEnvironment, loaded: LoadResult) -> Iterator[str]:
    """Name the results that the server's documents contradict."""
    there = {one.name: one for one in environment.emulator.documents(environment.dataset.id)}
    for result in loaded.results.values():
        document = there.get(str(result.name))
        found = document is not None and _is_indexed(document, result)
        if result.outcome in LOADED and not found:
            yield f"{result.key} is {result.outcome}, but the server has {document}"
        if result.outcome is Outcome.FAILED and found:
            yield f"{result.key} failed ({result.reason}), but the server has {document}"


def _is_indexed(document: DocumentState, result: ItemResult) -> bool:
    """Tell whether all of a file can be found in a document."""
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
        told = sum(one.outcome is outcome for one in results.values())
        if told != number:
            yield f"{number} {outcome}, but {told} results"
    bad = {one.key for one in results.values() if one.outcome not in GOOD_OUTCOMES}
    kept = [one.key for one in report.failures()]
    if sorted(kept) != sorted(bad):
        yield f"failures() tells {kept}, not {sorted(bad)}"


def find_secrets(environment: LoadEnvironment, root: Path, logged: str) -> list[str]:
    """Name the places where the key is found (I10)."""
    places = [str(path) for path in list_written_files(root) if KEY.encode() in path.read_bytes()]
    told = [
        repr((one.report, dict(one.results), one.report.to_json())) for one in environment.loads
    ]
    texts = {"the log": [logged], "a report": told, "an error": environment.error_texts}
    return places + [place for place, said in texts.items() if any(KEY in one for one in said)]


def count_needless_creates(
    history: Iterable[Exchange], changed: Iterable[str] = ()
) -> Mapping[str, int]:
    """Count the creates that replaced a document which was well, or about to be.

    To create one again whose indexing failed, or once for each time that its file was `changed`,
    is what is wanted.
    """
    count_needless_creates = Counter(
        str(exchange.document)
        for exchange in history
        if exchange.endpoint == CREATE
        and exchange.committed
        and exchange.replaced not in {None, "error"}
    )
    count_needless_creates.subtract(Counter(changed) & count_needless_creates)
    return +count_needless_creates


def find_resent_files(first: LoadResult, second: LoadResult) -> list[ItemResult]:
    """Name what was good before and was created again (I7)."""
    return [
        result
        for result in first.results.values()
        if result.outcome in LOADED and result.name in second.created
    ]
