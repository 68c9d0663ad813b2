"""What happened, in order: the calls, and the runs of the indexer."""

from __future__ import annotations

import itertools
import json
import threading
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from attrs import define

from .store import DocumentRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .clocks import Clock


class Exchange(NamedTuple):
    """A call that came in. `status` is 0 where a fault left it without an answer.

    Times are the server's, in seconds since the epoch.
    """

    endpoint: str
    status: int
    document: str | None = None
    """The name of the document that was to be created."""

    started: float = 0.0
    """When it came."""

    ended: float = 0.0
    """When it was over: answered, given up, or carried out late."""

    dataset_id: str | None = None
    """The dataset that its path names."""

    document_id: str | None = None
    """The document that it created, replaced or updated."""

    file_id: str | None = None
    """The `upload_file` that this document has since."""

    committed: bool = False
    """Whether it was carried out, answered or not."""

    replaced: str | None = None
    """The `indexing_status`, just before, of the document that it replaced; None for a new one."""

    connection: str | None = None
    """Address and port of the client."""


class RunEvent(NamedTuple):
    """A run of the indexer that `started` or `ended`."""

    kind: str
    run: int
    """Its number, from 1, the same in both events."""

    at: float
    """When, in seconds since the epoch by the server's clock."""

    dataset_id: str
    document_id: str
    document: str
    """The document's name."""

    file_id: str
    """The `upload_file` that it started with."""

    overlapping: int
    """Other runs of the document that were going: now, or (when it ended) at any time since."""

    status: str | None = None
    """What it left the document with, when it ended; `gone` for one that was deleted."""

    chunks: int = 0
    """The chunks that it made."""


class History:
    """The latest calls and runs, for assertions from another thread."""

    def __init__(self, size: int) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=size)
        self._runs: deque[RunEvent] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add_exchange(self, exchange: Exchange) -> None:
        """Remember a call."""
        with self._lock:
            self._exchanges.append(exchange)

    def add_run(self, event: RunEvent) -> None:
        """Remember the start or the end of a run."""
        with self._lock:
            self._runs.append(event)

    def list_exchanges(self) -> list[Exchange]:
        """Tell the calls, the one that was over first at the beginning."""
        with self._lock:
            return list(self._exchanges)

    def list_runs(self) -> list[RunEvent]:
        """Tell the starts and ends of runs, in their order."""
        with self._lock:
            return list(self._runs)


def to_jsonl(exchanges: Iterable[Exchange], runs: Iterable[RunEvent]) -> Iterator[str]:
    """Write calls and then runs as JSON Lines, told apart by `type`."""
    for exchange in exchanges:
        yield json.dumps({"type": "call"} | exchange._asdict())
    for event in runs:
        yield json.dumps({"type": "run"} | event._asdict())


def parse_jsonl(text: str) -> tuple[list[Exchange], list[RunEvent]]:
    """Read what `GET /_emulator/history` answers."""
    entries = [json.loads(line) for line in text.splitlines()]
    calls = [entry for entry in entries if entry.pop("type") == "call"]
    runs = [entry for entry in entries if "run" in entry]
    return [Exchange(**entry) for entry in calls], [RunEvent(**entry) for entry in runs]


@define(eq=False)
class ActiveRun:
    """A run that is going."""

    run: int
    row: DocumentRow
    overlapping: int
    chunks: int = 0


class ActiveRuns:
    """The runs that are going, told to the history as they start and end."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._numbers = itertools.count(1)
        self._by_document: defaultdict[str, list[ActiveRun]] = defaultdict(list)

    def start(self, row: DocumentRow) -> ActiveRun:
        """Begin a run; it overlaps with those of its document that are going."""
        same_document = self._by_document[row.id]
        active_run = ActiveRun(next(self._numbers), row, len(same_document))
        for other in same_document:
            other.overlapping += 1
        same_document.append(active_run)
        self._record("started", active_run, None)
        return active_run

    def end(self, active_run: ActiveRun, status: str) -> None:
        """End a run with what it left."""
        same_document = self._by_document[active_run.row.id]
        same_document.remove(active_run)
        if not same_document:
            del self._by_document[active_run.row.id]
        self._record("ended", active_run, status)

    def _record(self, kind: str, active_run: ActiveRun, status: str | None) -> None:
        row = active_run.row
        self._history.add_run(
            RunEvent(
                kind=kind,
                run=active_run.run,
                at=self._clock.now(),
                dataset_id=row.dataset_id,
                document_id=row.id,
                document=row.name,
                file_id=row.file_id,
                overlapping=active_run.overlapping,
                status=status,
                chunks=active_run.chunks,
            )
        )
