"""Record requests and indexing runs for assertions."""

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
    """A request to the server; `status` is 0 if it got no response because of a fault.

    Times are in seconds since the epoch, by the server's clock.
    """

    endpoint: str
    status: int
    document: str | None = None
    """Name of the document in a create request."""

    started: float = 0.0
    """Time of arrival."""

    ended: float = 0.0
    """Time when the request was answered, dropped, or processed late."""

    dataset_id: str | None = None
    """The dataset in the path."""

    document_id: str | None = None
    """The document that was created, replaced or updated."""

    file_id: str | None = None
    """The `upload_file` of this document after the request."""

    committed: bool = False
    """Whether the request was processed, with or without a response."""

    replaced: str | None = None
    """Previous `indexing_status` of a replaced document; None for a new document."""

    connection: str | None = None
    """Address and port of the client."""


class RunEvent(NamedTuple):
    """The start or the end of an indexing run; `kind` is `started` or `ended`."""

    kind: str
    run: int
    """Number of the run, from 1; the same in both events."""

    at: float
    """Time in seconds since the epoch, by the server's clock."""

    dataset_id: str
    document_id: str
    document: str
    """Name of the document."""

    file_id: str
    """The `upload_file` of the document when the run started."""

    overlapping: int
    """Number of other runs of the document: active at the start, or (at the end) at any time."""

    status: str | None = None
    """Status of the document when the run ended; `gone` for a deleted document."""

    chunks: int = 0
    """Number of chunks that the run created."""


class History:
    """The latest requests and runs. All methods are thread-safe."""

    def __init__(self, size: int) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=size)
        self._runs: deque[RunEvent] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add_exchange(self, exchange: Exchange) -> None:
        """Record a request and its response."""
        with self._lock:
            self._exchanges.append(exchange)

    def add_run(self, event: RunEvent) -> None:
        """Record the start or the end of a run."""
        with self._lock:
            self._runs.append(event)

    def list_exchanges(self) -> list[Exchange]:
        """Return the requests, ordered by the time they ended."""
        with self._lock:
            return list(self._exchanges)

    def list_runs(self) -> list[RunEvent]:
        """Return the starts and ends of runs, in order."""
        with self._lock:
            return list(self._runs)


def to_jsonl(exchanges: Iterable[Exchange], runs: Iterable[RunEvent]) -> Iterator[str]:
    """Yield requests, then runs as JSON lines, distinguished by `type` (`call` or `run`)."""
    for exchange in exchanges:
        yield json.dumps({"type": "call"} | exchange._asdict())
    for event in runs:
        yield json.dumps({"type": "run"} | event._asdict())


def parse_jsonl(text: str) -> tuple[list[Exchange], list[RunEvent]]:
    """Parse the response of `GET /_emulator/history`."""
    entries = [json.loads(line) for line in text.splitlines()]
    calls = [entry for entry in entries if entry.pop("type") == "call"]
    runs = [entry for entry in entries if "run" in entry]
    return [Exchange(**entry) for entry in calls], [RunEvent(**entry) for entry in runs]


@define(eq=False)
class ActiveRun:
    """An indexing run in progress."""

    run: int
    row: DocumentRow
    overlapping: int
    chunks: int = 0


class ActiveRuns:
    """The indexing runs in progress; records their starts and ends in the history."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._numbers = itertools.count(1)
        self._by_document: defaultdict[str, list[ActiveRun]] = defaultdict(list)

    def start(self, row: DocumentRow) -> ActiveRun:
        """Start a run; it overlaps with the active runs of the same document."""
        same_document = self._by_document[row.id]
        active_run = ActiveRun(next(self._numbers), row, len(same_document))
        for other in same_document:
            other.overlapping += 1
        same_document.append(active_run)
        self._record("started", active_run, None)
        return active_run

    def end(self, active_run: ActiveRun, status: str) -> None:
        """End a run with the status of its document."""
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
