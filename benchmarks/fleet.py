"""A fleet of documents that are indexed by workers, and a server that shows it, in virtual time.

What following them costs, and when it notices their ends, is the same in every run; an hour of it
takes a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import anyio
from attrs import evolve
from virtual_time import run

from dify_kb import ItemResult, Loading, NotFoundError, Page, Watch
from dify_kb.ingest.engine.upload import UploadedDocument
from dify_kb.ingest.engine.watch_indexing import IndexingWatcher
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.plan import Do, Planned
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.models import Document, DocumentStatuses, Event, ListDocuments
from dify_kb.resources import Documents
from dify_kb.wire import catalog, codec

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Call

DATASET = "00000000-0000-4000-8000-000000000000"

Rows = Sequence[Document]
Pictures = Callable[[float], Rows]
"""What the list holds at a time, the newest first."""


def row(number: int, status: str, **fields: object) -> Document:
    """A document of recording 1060, with another id and status."""
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
            "created_at": 1_795_000_000,
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


def sent(number: int, *, batch: bool = True) -> UploadedDocument:
    """Make an accepted document; without a batch it was found by its name."""
    found = FoundFile(key=f"{number}.txt", path=Path("/nowhere"), size=5)
    return UploadedDocument(
        planned=Planned(found=found, name=found.name, do=Do.SEND),
        attempts=1,
        document_id=str(number),
        batch=f"batch {number}" if batch else None,
        upload_file_id=f"file {number}",
        seconds=0.1,
        accepted_at=0.0,
        updated=False,
    )


class Server:
    """Answers every look from what the list holds at that time."""

    def __init__(self, pictures: Pictures, segments: Callable[[float], int]) -> None:
        self.pictures = pictures
        self.segments = segments
        self.asked: list[tuple[float, str]] = []

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Refuse: nothing here has events."""
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        """Answer a list or a status call."""
        now = anyio.current_time()
        self.asked.append((now, call.endpoint.name))
        rows = self.pictures(now)
        if call.endpoint is catalog.GET_INDEXING_STATUS:
            return self._status(call, rows, now)
        body = cast("ListDocuments", call.body)
        keyword = str(body.keyword or "").replace("\\", "")
        rows = [one for one in rows if keyword in one.name]
        if body.status == "queuing":
            rows = [one for one in rows if one.indexing_status == "waiting"]
        size, page = int(body.limit or 20), int(body.page or 1)
        start = (page - 1) * size
        return Page(data=rows[start : start + size], limit=size, total=len(rows), page=page)

    def _status(self, call: Call[Any], rows: Rows, now: float) -> DocumentStatuses:
        number = unquote(call.path).split("/")[-2].removeprefix("batch ")
        found = [one for one in rows if one.id == number and not _replaced(one)]
        if not found:
            raise NotFoundError("no such batch", endpoint="documents.indexing_status", status=404)
        entry = {"id": number, "indexing_status": found[0].indexing_status, "error": found[0].error}
        counts = {"completed_segments": self.segments(now), "total_segments": 99}
        return codec.decode(DocumentStatuses, {"data": [{**entry, **counts}]})


def _replaced(document: Document) -> bool:
    file = document.upload_file
    return file is not None and file.id != f"file {document.id}"


def a_watcher(
    server: Server, results: list[tuple[float, ItemResult]], stall_after: float
) -> IndexingWatcher:
    """Make a watcher that notes each result with its time."""

    async def failing(error: Exception) -> None:
        raise error

    documents = Documents(server)
    return IndexingWatcher(
        documents,
        DATASET,
        Watch(),
        Loading(),
        stall_after,
        DocumentLookup(documents, DATASET),
        lambda _, result: results.append((anyio.current_time(), result)),
        failing,
    )


class Fleet:
    """Documents that are sent one after the other and indexed by workers in their order."""

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
            {status: row(index, status) for status in ("waiting", "indexing", "completed")}
            for index in range(number)
        ]

    def picture(self, now: float) -> Rows:
        """Give the list as it is at a time."""
        there = range(min(self.number, int(now * 25) + 1) - 1, -1, -1)
        return [self._rows[index][self._status(index, now)] for index in there]

    def _status(self, index: int, now: float) -> str:
        if now >= self.ends[index]:
            return "completed"
        return "indexing" if now >= self.begins[index] else "waiting"

    def follow(self) -> tuple[list[tuple[float, ItemResult]], Server]:
        """Send and follow all; give the results with their times, and the server with its calls."""
        server = Server(self.picture, int)
        results: list[tuple[float, ItemResult]] = []

        async def main() -> None:
            watcher = a_watcher(server, results, 1e9)
            async with anyio.create_task_group() as group:
                group.start_soon(watcher.run)
                for index, when in enumerate(self.sent_at):
                    await anyio.sleep_until(when)
                    watcher.add(evolve(sent(index), accepted_at=when), new=True)
                while len(watcher):  # noqa: ASYNC110 -- no time passes
                    await anyio.sleep(0.5)
                group.cancel_scope.cancel()

        run(main)
        return results, server
