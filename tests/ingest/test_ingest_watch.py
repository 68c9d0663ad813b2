from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from dify_kb import ItemResult, Outcome, Page, Watch
from dify_kb.ingest.plan import Planned
from dify_kb.ingest.scan import Found
from dify_kb.ingest.upload import Sent
from dify_kb.ingest.watch import Watcher
from dify_kb.models import Document, DocumentStatuses, Event, ListDocuments
from dify_kb.resources import Documents
from dify_kb.wire import catalog, codec
from dify_kb.wire.endpoint import Call

DATASET = "00000000-0000-4000-8000-000000000000"
TIMES = Watch(first=0.001, longest=0.002)


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


def sent(number: int, *, file: str | None = None) -> Sent:
    found = Found(key=f"{number}.txt", path=Path("/nowhere"), size=5)
    return Sent(
        planned=Planned(found=found, name=found.name, replaces=None),
        document_id=str(number),
        batch=f"batch {number}",
        upload_file_id=file or f"file {number}",
        seconds=0.1,
        accepted_at=0.0,
    )


class Server:
    """Answers looks at the list one picture after the other; the last one stays."""

    def __init__(
        self,
        *pictures: list[Document],
        segments: list[int] | None = None,
        status: str = "indexing",
    ) -> None:
        self.pictures = list(pictures)
        self.status = status
        self.segments = segments or [0]
        self.asked: list[str] = []

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        self.asked.append(call.endpoint.name)
        if call.endpoint is catalog.GET_INDEXING_STATUS:
            done = self.segments.pop(0) if len(self.segments) > 1 else self.segments[0]
            entry = {"id": "1", "indexing_status": self.status, "completed_segments": done}
            return codec.decode(DocumentStatuses, {"data": [{**entry, "total_segments": 99}]})
        rows = self.pictures.pop(0) if len(self.pictures) > 1 else self.pictures[0]
        number = cast("ListDocuments", call.body).page
        start = (number - 1) * 100
        return Page(data=rows[start : start + 100], limit=100, total=len(rows), page=number)


async def watched(server: Server, *documents: Sent, stall_after: float = 0.05) -> list[ItemResult]:
    results: list[ItemResult] = []
    watcher = Watcher(Documents(server), DATASET, TIMES, stall_after, results.append)
    for document in documents:
        watcher.add(document)
    watcher.close()
    await watcher.run()
    return results


async def test_a_document_that_stands_still_is_stalled_while_others_move() -> None:
    """A killed worker leaves its document in `indexing` for ever; the rest must not wait."""
    stuck, last = row(1, "indexing"), row(2, "completed")
    moving = [[stuck, row(2, "waiting"), row(number, "completed")] for number in range(3, 400)]

    results = await watched(Server(*moving, [stuck, last]), sent(1), sent(2))

    assert {result.key: result.outcome for result in results} == {
        "1.txt": Outcome.STALLED,
        "2.txt": Outcome.ADDED,
    }
    assert "no progress" in str(results[0].reason)


async def test_a_long_document_is_not_stalled_while_its_segments_grow() -> None:
    pictures = [[row(1, "indexing"), row(number, "completed")] for number in range(2, 600)]
    server = Server(*pictures, [row(1, "completed")], segments=list(range(1000)))

    results = await watched(server, sent(1), stall_after=0.3)

    assert [result.outcome for result in results] == [Outcome.ADDED]
    assert "documents.indexing_status" in server.asked


async def test_a_page_from_before_the_replacement_does_not_count_as_done() -> None:
    """While a document is replaced, its old state is what an earlier page shows."""
    stale = row(1, "completed", data_source_detail_dict={"upload_file": {"id": "old", "size": 5}})

    results = await watched(Server([stale], [stale], [row(1, "error", error="no luck")]), sent(1))

    assert [(result.outcome, result.error) for result in results] == [(Outcome.FAILED, "no luck")]


async def test_a_document_missed_once_is_looked_for_again() -> None:
    """Rows shift while others are deleted, so one page without it proves nothing."""
    results = await watched(Server([row(2, "waiting")], [row(1, "completed")]), sent(1))

    assert [result.outcome for result in results] == [Outcome.ADDED]


async def test_a_document_that_was_deleted_is_told() -> None:
    results = await watched(Server([row(2, "waiting")]), sent(1))

    assert results[0].outcome is Outcome.FAILED
    assert "deleted" in str(results[0].reason)


async def test_a_document_that_ended_by_the_way_ends_once() -> None:
    """One whose answer was lost has no batch and is looked for in the list, where others end."""
    lost = evolve(sent(2), batch=None)
    many = [row(number, "waiting") for number in range(3, 153)]
    done = [row(1, "completed"), row(2, "completed"), *many]
    waiting = [row(1, "waiting"), *many]
    server = Server(waiting, waiting, done, status="completed")

    results = await watched(server, lost, sent(1))

    assert sorted(result.key for result in results) == ["1.txt", "2.txt"]


async def test_nothing_is_looked_for_when_all_ended_by_the_way() -> None:
    first, second = evolve(sent(1), batch=None), evolve(sent(2), batch=None)
    many = [row(number, "waiting") for number in range(3, 153)]
    waiting = [row(1, "waiting"), *many]
    done = [row(1, "completed"), row(2, "completed"), *many]
    server = Server(waiting, waiting, done)

    results = await watched(server, first, second)

    assert sorted(result.key for result in results) == ["1.txt", "2.txt"]
    assert server.asked == ["documents.list"] * 3


@pytest.mark.parametrize("status", ["parsing", "a status of the future"])
async def test_unknown_words_are_waited_through(status: str) -> None:
    results = await watched(Server([row(1, status)], [row(1, "completed")]), sent(1))

    assert [result.outcome for result in results] == [Outcome.ADDED]
