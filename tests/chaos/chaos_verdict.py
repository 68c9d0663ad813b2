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
from chaos_scene import CREATE, KEY, Loaded, Scene, files_below

from dify_kb import ItemResult, Outcome
from dify_kb.emulator import DocumentState, Exchange, judge
from dify_kb.ingest.report import GOOD

DONE = GOOD - {Outcome.SKIPPED}


@define
class Count:
    """What is counted over all cells and seeds, for the table."""

    lost: int = 0
    twins: int = 0
    doubled: int = 0
    reposted: int = 0
    false: int = 0
    extra: int = 0
    wrong: list[str] = field(factory=list)

    def note(self, what: str, found: object) -> None:
        """Note what is wrong, if anything was found."""
        if found:
            self.wrong.append(f"{what}: {found}")


def count(scene: Scene, loaded: Loaded) -> Count:
    """Judge one load by what the server holds now."""
    emulator = scene.emulator
    documents = emulator.documents(scene.dataset.id)
    done = [one for one in loaded.results.values() if one.outcome in DONE]
    verdict = judge([str(one.name) for one in done], documents, emulator.history, emulator.runs)
    reposted = [name for name in verdict.reposted if name not in scene.stuck]
    false = list(false_reports(scene, loaded))
    counted = Count(
        lost=len(verdict.lost),
        twins=len(verdict.twins),
        doubled=len({*verdict.doubled, *verdict.overlapped}),
        reposted=len(reposted),
        false=len(false),
        extra=sum(needless(emulator.history, scene.changed).values()),
    )
    counted.note("lost", verdict.lost)
    counted.note("twins", dict(verdict.twins))
    counted.note("doubled", [*verdict.doubled, *verdict.overlapped])
    counted.note("posted while it was indexed", reposted)
    counted.note("falsely reported", false)
    counted.note("sums", list(_sums(loaded)))
    return counted


def false_reports(scene: Scene, loaded: Loaded) -> Iterator[str]:
    """Name the results that the server's documents contradict."""
    there = {one.name: one for one in scene.emulator.documents(scene.dataset.id)}
    for result in loaded.results.values():
        document = there.get(str(result.name))
        found = document is not None and _found(document, result)
        if result.outcome in DONE and not found:
            yield f"{result.key} is {result.outcome}, but the server has {document}"
        if result.outcome is Outcome.FAILED and found:
            yield f"{result.key} failed ({result.reason}), but the server has {document}"


def _found(document: DocumentState, result: ItemResult) -> bool:
    """Tell whether all of a file can be found in a document."""
    indexed = document.status == "completed" and 0 < document.chunks == document.completed
    ours = result.document_id in {None, document.id} and document.size == result.size
    return indexed and document.enabled and ours


def _sums(loaded: Loaded) -> Iterator[str]:
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
    bad = {one.key for one in results.values() if one.outcome not in GOOD}
    kept = [one.key for one in report.failures()]
    if sorted(kept) != sorted(bad):
        yield f"failures() tells {kept}, not {sorted(bad)}"


def secrets(scene: Scene, root: Path, logged: str) -> list[str]:
    """Name the places where the key is found (I10)."""
    places = [str(path) for path in files_below(root) if KEY.encode() in path.read_bytes()]
    told = [repr((one.report, dict(one.results), one.report.to_json())) for one in scene.loads]
    texts = {"the log": [logged], "a report": told, "an error": scene.texts}
    return places + [place for place, said in texts.items() if any(KEY in one for one in said)]


def needless(history: Iterable[Exchange], changed: Iterable[str] = ()) -> Mapping[str, int]:
    """Count the creates that replaced a document which was well, or about to be.

    To create one again whose indexing failed, or once for each time that its file was `changed`,
    is what is wanted.
    """
    needless = Counter(
        str(exchange.document)
        for exchange in history
        if exchange.endpoint == CREATE
        and exchange.committed
        and exchange.replaced not in {None, "error"}
    )
    needless.subtract(Counter(changed) & needless)
    return +needless


def resent(first: Loaded, second: Loaded) -> list[ItemResult]:
    """Name what was good before and was created again (I7)."""
    return [
        result
        for result in first.results.values()
        if result.outcome in DONE and result.name in second.created
    ]
