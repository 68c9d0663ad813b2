"""Simulate a server that indexes documents, in virtual time, to measure how they are followed.

The server is a model; the code that follows the documents is that of a load. Results are the same
in every run, and an hour takes a second.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import anyio
from attrs import define, field
from virtual_time import run

from dify_kb import ItemResult, LoadTiming, NotFoundError, Page, Polling
from dify_kb.ingest.engine.file_lifecycle import FileLifecycle
from dify_kb.ingest.engine.file_states import FileEvent, FileState
from dify_kb.ingest.engine.followed_documents import FollowedDocuments
from dify_kb.ingest.engine.indexing_observer import IndexingObserver
from dify_kb.ingest.engine.ledger import AttemptCounter, Ledger, RunStop
from dify_kb.ingest.engine.pending_uploads import PendingUploads
from dify_kb.ingest.engine.stall_detector import StallDetector
from dify_kb.ingest.engine.tracked_file import TrackedFile, UploadedDocument
from dify_kb.ingest.engine.watch_indexing import IndexingWatcher
from dify_kb.ingest.journal import Journal, JournalRow, JournalState
from dify_kb.ingest.load_options import LoadOptions
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.pacing.indexing_backlog import IndexingBacklog
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.models import Dataset, Document, DocumentStatuses, Event, IndexingStatus, ListDocuments
from dify_kb.resources import Datasets, Documents
from dify_kb.wire import catalog, codec

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Call

DATASET = "00000000-0000-4000-8000-000000000000"

SERVER_START = 1_795_000_000
"""The server's time at the start."""

Rows = Sequence[Document]
Snapshots = Callable[[float], Rows]
"""Returns the list at a time, the newest document first."""

SegmentCounts = Callable[[float], tuple[int, int]]
"""Returns the completed and the total segments of every document at a time."""


def make_document(number: int, status: str, *, created: float = 0.0, **fields: object) -> Document:
    """Return a document of the list, created `created` seconds after the start."""
    if fields:
        return _build_document(number, status, created, **fields)
    return _cached_document(number, status, int(created))


@functools.cache
def _cached_document(number: int, status: str, created: int) -> Document:
    return _build_document(number, status, created)


def _build_document(number: int, status: str, created: float, **fields: object) -> Document:
    return codec.decode(
        Document,
        {
            "id": str(number),
            "name": f"{number}.txt",
            "position": number,
            "data_source_type": "upload_file",
            "data_source_info": {"upload_file_id": f"file {number}"},
            "data_source_detail_dict": {"upload_file": {"id": f"file {number}", "size": 5}},
            "dataset_process_rule_id": None,
            "created_from": "api",
            "created_by": "somebody",
            "created_at": SERVER_START + int(created),
            "tokens": 0,
            "indexing_status": status,
            "error": None,
            "enabled": True,
            "disabled_at": None,
            "disabled_by": None,
            "archived": False,
            "display_status": "indexing",
            "word_count": 7,
            "hit_count": 0,
            "doc_form": "text_model",
            "doc_metadata": None,
            **fields,
        },
    )


def _build_dataset(dataset_id: str, rows: Rows) -> Dataset:
    indexed = [document for document in rows if document.indexing_status == "completed"]
    empty = dict.fromkeys((
        "description", "data_source_type", "indexing_technique", "updated_by", "embedding_model",
        "embedding_model_provider", "embedding_available", "retrieval_model_dict", "doc_form",
        "external_knowledge_info", "external_retrieval_model", "doc_metadata",
    ))  # fmt: skip
    return codec.decode(
        Dataset,
        {
            **empty,
            "id": dataset_id,
            "name": dataset_id,
            "provider": "vendor",
            "permission": "only_me",
            "app_count": 0,
            "document_count": len(rows),
            "word_count": sum(document.word_count or 0 for document in indexed),
            "total_available_documents": len(indexed),
            "created_by": "somebody",
            "created_at": SERVER_START,
            "updated_at": SERVER_START,
            "tags": [],
            "built_in_field_enabled": False,
        },
    )


def make_accepted_file(
    number: int, *, batch: bool = True, new: bool = True, at: float = 0.0, **fields: Any
) -> TrackedFile:
    """Return a file whose upload was accepted; without a batch, it was found by its name."""
    found = FoundFile(key=f"{number}.txt", path=Path("/nowhere"), size=5)
    place = None if new else number
    old = RemoteDocument(
        document_id=str(number),
        enabled=True,
        status=IndexingStatus.COMPLETED,
        upload_file_id="old",
        place=place,
    )
    planned = PlannedFile(
        found=found, name=found.name, action=PlannedAction.SEND, replaces=None if new else old
    )
    file = TrackedFile(planned, state=FileState.SENDING, attempts=1, updates=not new, **fields)
    queued = datetime.fromtimestamp(SERVER_START + int(at), UTC)
    file.document = UploadedDocument(
        id=str(number),
        batch=f"batch {number}" if batch else None,
        upload_file_id=f"file {number}",
        seconds=0.1,
        accepted_at=at,
        queued_at=queued if new and batch else queued + timedelta(minutes=2),
        reconciled=not batch,
    )
    return file


def make_remembered_file(
    number: int, state: JournalState = JournalState.ACCEPTED, *, batch: bool = True
) -> TrackedFile:
    """Return a file that an earlier run sent."""
    found = FoundFile(key=f"{number}.txt", path=Path("/nowhere"), size=5)
    sent = JournalRow(
        key=found.key,
        name=found.name,
        size=5,
        token=None,
        content=b"",
        rule="",
        labels="",
        state=state,
        attempts=1,
        sent_at=SERVER_START - 3600.0,
        previous=None,
        document_id=str(number),
        batch=f"batch {number}" if batch else None,
        upload_file_id=f"file {number}",
        reason=None,
    )
    return TrackedFile.from_plan(
        PlannedFile(
            found=found, name=found.name, action=PlannedAction.FOLLOW, row=sent, is_unchanged=True
        )
    )


@define
class SimulatedServer:
    """A server that responds by its snapshot of the current time."""

    snapshots: Snapshots
    counts: SegmentCounts = lambda _: (0, 99)
    others: Mapping[str, Snapshots] = field(factory=dict)
    """Other datasets."""

    stale_snapshots: Snapshots | None = None
    """The list returned instead of `snapshots`, as by a cache."""

    server_version: str | None = None
    error_for: Callable[[float, str, str], Exception | None] = lambda *_: None
    """Returns the error of a call, by time, endpoint and path."""

    requests: list[tuple[float, str]] = field(factory=list)

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Raise an error: no endpoint here sends events."""
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        """Return the response of a call."""
        now, name = anyio.current_time(), call.endpoint.name
        self.requests.append((now, name))
        if (error := self.error_for(now, name, call.path)) is not None:
            raise error
        if call.endpoint is catalog.GET_DATASET:
            return _build_dataset(DATASET, self.snapshots(now))
        if call.endpoint is catalog.LIST_DATASETS:
            there = {DATASET: self.snapshots, **self.others}
            datasets = [_build_dataset(name, rows(now)) for name, rows in there.items()]
            return _build_page(datasets, 1, 100)
        if call.endpoint is catalog.GET_INDEXING_STATUS:
            return self._status(call, self.snapshots(now), now)
        return self._list(call, now)

    def _list(self, call: Call[Any], now: float) -> Page[Document]:
        dataset_id = unquote(call.path).split("/")[-2]
        pictures = self.others.get(dataset_id, self.stale_snapshots or self.snapshots)
        rows, body = pictures(now), cast("ListDocuments", call.body)
        keyword = str(body.keyword or "").replace("\\", "")
        if keyword:
            rows = [document for document in rows if keyword in document.name]
        if body.status == "queuing":
            rows = [document for document in rows if document.indexing_status == "waiting"]
        return _build_page(rows, int(body.page or 1), int(body.limit or 20))

    def _status(self, call: Call[Any], rows: Rows, now: float) -> DocumentStatuses:
        number = unquote(call.path).split("/")[-2].removeprefix("batch ")
        found = [
            document for document in rows if document.id == number and not _is_replaced(document)
        ]
        if not found:
            raise NotFoundError("no such batch", endpoint="documents.indexing_status", status=404)
        completed, total = self.counts(now)
        entry = {"id": number, "indexing_status": found[0].indexing_status, "error": found[0].error}
        counts = {"completed_segments": completed, "total_segments": total}
        return codec.decode(DocumentStatuses, {"data": [{**entry, **counts}]})


def _build_page(rows: Sequence[Any], page: int, size: int) -> Page[Any]:
    start = (page - 1) * size
    return Page(data=rows[start : start + size], limit=size, total=len(rows), page=page)


def _is_replaced(document: Document) -> bool:
    file = document.upload_file
    return file is not None and file.id != f"file {document.id}"


@define
class DiscardedResults:
    """A result buffer that discards everything."""

    def store(self, result: ItemResult, *, held: bool = False) -> None:
        """Discard a result."""


@define
class MemoryJournal:
    """A journal in memory, limited to the states of files."""

    states: dict[str, JournalState] = field(factory=dict)
    results: DiscardedResults = field(factory=DiscardedResults)
    path: Path | None = None

    def record_accepted(
        self, key: str, document_id: str, batch: str | None, upload_file_id: str | None
    ) -> None:
        """Record that the server has a document."""
        del document_id, batch, upload_file_id
        self.states[key] = JournalState.ACCEPTED

    def record_state(
        self, key: str, state: JournalState, *, reason: str | None = None, labels: str = ""
    ) -> None:
        """Record the state of a file."""
        del reason, labels
        self.states[key] = state


class SimulatedFollowing:
    """The parts of a load that follow documents, connected as in a run."""

    def __init__(
        self, server: SimulatedServer, *, stall_after: float = 900.0, swaps: bool = False
    ) -> None:
        self.server = server
        self.results: list[tuple[float, ItemResult]] = []
        self.journal = MemoryJournal()
        documents, datasets = Documents(server), Datasets(server)
        times, followed = LoadTiming(), FollowedDocuments()
        self.breaker = CircuitBreaker(datasets, DATASET, times)
        options = LoadOptions(on_event=self._note)
        ledger = Ledger(
            cast("Journal", self.journal), options, self.breaker, RunStop(), AttemptCounter()
        )
        self.files = FileLifecycle(
            ledger=ledger,
            stopping=ledger.stop,
            times=times,
            follows=True,
            swaps=swaps,
            backlog=IndexingBacklog(5000, follows=True),
            followed=followed,
            pending=PendingUploads(times, followed.activity),
        )
        self.stalls = StallDetector(
            documents, datasets, DATASET, followed, stall_after, 2 * times.revisit_interval
        )
        self.watcher = IndexingWatcher(
            documents,
            DATASET,
            Polling(),
            times,
            DocumentLookup(documents, DATASET),
            self.breaker,
            self.stalls,
            IndexingObserver(times, self.files),
            self.files,
        )

    def _note(self, event: object) -> None:
        if isinstance(event, ItemResult):
            self.results.append((anyio.current_time(), event))

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcomes by key."""
        return {result.key: str(result.outcome) for _, result in self.results}

    def add(self, file: TrackedFile) -> None:
        """Follow the document of a file."""
        self.files.ledger.record_planned(file, sends=True)
        first = file.state is FileState.PLANNED
        self.files.apply(file, FileEvent.FOLLOW if first else FileEvent.ACCEPTED)

    async def run_until_finished(self, longest: float = 200_000.0) -> None:
        """Run until no document is followed any more."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.breaker.run)
            group.start_soon(self.watcher.run)
            while len(self.files.followed):
                if anyio.current_time() > longest:
                    raise TimeoutError(f"{len(self.files.followed)} documents are still followed")
                await _sleep_relative_to_age(1.0)
            group.cancel_scope.cancel()


async def _sleep_relative_to_age(shortest: float) -> None:
    """Sleep for a thousandth of the time passed: a day takes thousands of looks, not 100,000."""
    await anyio.sleep(max(shortest, anyio.current_time() / 1000))


ParallelTask = Callable[[SimulatedFollowing], Coroutine[Any, Any, object]]
"""A task that runs while documents are followed."""


def follow_files(
    server: SimulatedServer,
    files: Iterable[TrackedFile],
    *,
    stall_after: float = 900.0,
    swaps: bool = False,
    longest: float = 200_000.0,
    in_parallel: ParallelTask | None = None,
) -> SimulatedFollowing:
    """Follow the documents of files until all have ended, in virtual time.

    `files` may be a generator, which then runs inside the event loop, as files of an earlier run
    require.
    """

    async def main() -> SimulatedFollowing:
        following = SimulatedFollowing(server, stall_after=stall_after, swaps=swaps)
        for file in files:
            following.add(file)
        async with anyio.create_task_group() as group:
            if in_parallel is not None:
                group.start_soon(in_parallel, following)
            await following.run_until_finished(longest)
            group.cancel_scope.cancel()
        return following

    return run(main)


class IndexingSimulation:
    """Documents that are sent one after the other, and indexed by workers in this order."""

    def __init__(self, number: int, workers: int, seconds: float, seed: int = 1) -> None:
        draw = random.Random(seed)
        self.number = number
        self.sent_at = [index / 25 for index in range(number)]
        self.begins: list[float] = []
        self.ends: list[float] = []
        free = [0.0] * workers
        for when in self.sent_at:
            begin = max(when, heapq.heappop(free))
            end = begin + seconds * draw.lognormvariate(-0.32, 0.8)
            heapq.heappush(free, end)
            self.begins.append(begin)
            self.ends.append(end)
        self._rows = [
            {
                status: make_document(index, status, created=self.sent_at[index])
                for status in ("waiting", "indexing", "completed")
            }
            for index in range(number)
        ]

    def snapshot(self, now: float) -> Rows:
        """Return the list at a time."""
        sent = min(self.number, int(now * 25) + 1)
        return [
            rows["completed" if now >= end else "indexing" if now >= begin else "waiting"]
            for rows, begin, end in zip(
                self._rows[:sent], self.begins[:sent], self.ends[:sent], strict=True
            )
        ][::-1]

    def follow_all(self, stall_after: float = 1e9) -> SimulatedFollowing:
        """Send and follow all documents."""

        async def main() -> SimulatedFollowing:
            following = SimulatedFollowing(SimulatedServer(self.snapshot), stall_after=stall_after)
            async with anyio.create_task_group() as group:
                group.start_soon(following.watcher.run)
                for index, when in enumerate(self.sent_at):
                    await anyio.sleep_until(when)
                    following.add(make_accepted_file(index, at=when))
                while len(following.files.followed):
                    await _sleep_relative_to_age(0.5)
                group.cancel_scope.cancel()
            return following

        return run(main)
