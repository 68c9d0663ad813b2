from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import anyio
import pytest
from attrs import define, field
from virtual_time import run

from dify_kb import Document, Loading, Page, Watch
from dify_kb.errors import (
    ConnectError,
    JournalError,
    KnowledgeError,
    OutcomeUnknownError,
    ServerError,
)
from dify_kb.ingest.engine.reconcile import Reconciler
from dify_kb.ingest.engine.watch_indexing import IndexingWatcher
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.plan import DISABLED, Do, Planned
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.models import Event, ListDocuments
from dify_kb.resources import Documents
from dify_kb.wire import codec
from dify_kb.wire.endpoint import Call

DATASET = "00000000-0000-4000-8000-000000000000"
TIMES = Loading()
CREATE = "documents.create_by_file"


def document(name: str, file: str, *, status: str = "completed", enabled: bool = True) -> Document:
    return codec.decode(
        Document,
        {
            "id": f"id of {name}",
            "name": name,
            "position": 1,
            "data_source_type": "upload_file",
            "data_source_info": None,
            "data_source_detail_dict": {"upload_file": {"id": file, "size": 4}},
            "dataset_process_rule_id": None,
            "created_from": "api",
            "created_by": "somebody",
            "created_at": 1_795_000_000,
            "tokens": 0,
            "indexing_status": status,
            "error": None,
            "enabled": enabled,
            "disabled_at": None,
            "disabled_by": None,
            "archived": False,
            "display_status": "available",
            "word_count": 7,
            "hit_count": 0,
            "doc_form": "text_model",
            "doc_metadata": None,
        },
    )


def planned(name: str = "a.md", *, before: Document | None = None, broken: int = 1) -> Planned:
    return Planned(
        found=FoundFile(key=name, size=4),
        name=name,
        do=Do.SEND,
        replaces=RemoteDocument.of(before) if before else None,
        attempts=broken,
        broken=broken,
    )


def lost(cause: KnowledgeError | None = None) -> OutcomeUnknownError:
    error = OutcomeUnknownError("the answer was lost", endpoint=CREATE)
    error.__cause__ = cause
    return error


@define
class Scene:
    """A room, a list that changes with time, and what the room tells."""

    server: Callable[[float], list[Document]] = lambda _: []
    told: list[tuple[float, str, str]] = field(factory=list)
    asked: list[tuple[float, str]] = field(factory=list)
    failures: list[KnowledgeError] = field(factory=list)
    refuses: KnowledgeError | None = None
    """What noting an adoption meets."""

    patience: float = 900.0
    room: Reconciler = field(init=False)
    watcher: IndexingWatcher = field(init=False)

    def __attrs_post_init__(self) -> None:
        documents = Documents(self)
        lookup = DocumentLookup(documents, DATASET)
        self.watcher = IndexingWatcher(
            documents, DATASET, Watch(), TIMES, 900.0, lookup, lambda *_: None, self.failing
        )
        self.room = Reconciler(
            lookup,
            TIMES,
            lambda one: self.tell("send", one),
            self.adopt,
            lambda one, reason: self.tell(f"refuse: {reason}", one),
            self.failing,
            self.patience,
            self.watcher,
        )

    def tell(self, what: str, one: Planned) -> None:
        self.told.append((anyio.current_time(), what, one.name))

    async def adopt(self, one: Planned, _: Document) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.tell("adopt", one)

    async def failing(self, error: KnowledgeError) -> None:
        self.told.append((anyio.current_time(), "failing", type(error).__name__))

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        body = cast("ListDocuments", call.body)
        self.asked.append((anyio.current_time(), str(body.keyword or f"page {body.page or 1}")))
        await anyio.sleep(0.02)
        if self.failures:
            raise self.failures.pop()
        keyword = str(body.keyword or "").replace("\\", "")
        rows = [one for one in self.server(anyio.current_time()) if keyword in one.name]
        size, page = int(body.limit or 20), int(body.page or 1)
        start = (page - 1) * size
        return Page(data=rows[start : start + size], limit=size, total=len(rows), page=page)

    def play(self, act: Callable[[], Awaitable[None]], until: float = 1000.0) -> None:
        """Go through a scene in virtual time."""

        async def scene() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.room.run)
                await act()
                await anyio.sleep(until)
                tasks.cancel_scope.cancel()

        run(scene)


def holding(
    scene: Scene, *files: Planned, cause: KnowledgeError | None = None
) -> Callable[..., Any]:
    async def act() -> None:
        for one in files:
            scene.room.lost(one, lost(cause))

    return act


def test_a_lost_answer_is_looked_for_soon_and_then_less_often() -> None:
    scene = Scene()

    scene.play(holding(scene, planned(), cause=ConnectError("reset", endpoint=CREATE)))

    assert [round(at) for at, _ in scene.asked] == [1, 4, 14, 30]
    assert [(round(at), what) for at, what, _ in scene.told] == [(30, "send")]


def test_what_landed_is_adopted_whenever_it_shows() -> None:
    landed = document("a.md", "f1", status="waiting")
    scene = Scene(lambda now: [landed] if now > 10 else [])

    scene.play(holding(scene, planned()))

    assert [(round(at), what) for at, what, _ in scene.told] == [(14, "adopt")]
    assert len(scene.room) == 0


def test_a_document_from_before_is_not_taken_for_what_was_sent() -> None:
    """It has the same name and, when the file changed little, the same size."""
    before = document("a.md", "f1")
    scene = Scene(lambda _: [before])

    scene.play(holding(scene, planned(before=before)))

    assert [what for _, what, _ in scene.told] == ["send"]
    assert scene.told[0][0] >= TIMES.quarantine


def test_a_server_that_may_still_be_working_is_given_more_time() -> None:
    scene = Scene()

    scene.play(holding(scene, planned(), cause=ServerError("504", endpoint=CREATE, status=504)))

    assert [what for _, what, _ in scene.told] == ["send"]
    assert scene.told[0][0] >= TIMES.patience


def test_what_is_sent_again_and_again_and_never_there_is_given_up() -> None:
    scene = Scene()

    scene.play(holding(scene, planned(broken=TIMES.sends)))

    ((_, what, _),) = scene.told
    assert what == f"refuse: sent {TIMES.sends} times, and it is not there: the answer was lost"


def test_nothing_is_sent_while_its_document_is_indexed() -> None:
    """Two runs at once would leave the chunks of both (measured on 1.4.3 and 1.12.1)."""
    busy, ended = (document("a.md", "f1", status=status) for status in ("indexing", "completed"))
    scene = Scene(lambda now: [busy] if now < 300 else [ended])

    async def act() -> None:
        scene.room.look(planned(before=busy))

    scene.play(act)

    ((at, what, _),) = scene.told
    assert what == "send"
    assert 300 < at < 400


def test_a_document_that_never_ends_is_given_up_only_when_nothing_else_moves() -> None:
    busy = document("a.md", "f1", status="indexing")
    scene = Scene(lambda _: [busy], patience=100)

    async def act() -> None:
        scene.room.look(planned(before=busy))
        for _ in range(10):
            await anyio.sleep(50)
            scene.watcher.moved_at = anyio.current_time()

    scene.play(act)

    ((at, what, _),) = scene.told
    assert what.startswith("refuse: its document stays indexing")
    assert 600 < at < 700


def test_a_disabled_document_is_not_doubled() -> None:
    off = document("a.md", "f1", enabled=False)
    scene = Scene(lambda _: [off])

    async def act() -> None:
        scene.room.look(planned(before=off))

    scene.play(act)

    assert [what for _, what, _ in scene.told] == [f"refuse: {DISABLED}"]


def test_what_is_held_for_a_time_waits_so_long() -> None:
    failed = document("a.md", "f1", status="error")
    scene = Scene(lambda _: [failed])

    async def act() -> None:
        scene.room.later(planned(before=failed), 60.0)

    scene.play(act)

    assert [(round(at), what) for at, what, _ in scene.told] == [(60, "send")]
    assert len(scene.asked) == 1


def test_a_look_that_fails_is_repeated_and_nobody_is_lost() -> None:
    scene = Scene(lambda _: [document("a.md", "f1"), document("b.md", "f2")])
    scene.failures = [ServerError("503", endpoint=CREATE, status=503)] * 3

    scene.play(holding(scene, planned("a.md"), planned("b.md")))

    assert [what for _, what, _ in scene.told].count("failing") == 3
    adopted = sorted(name for _, what, name in scene.told if what == "adopt")
    assert adopted == ["a.md", "b.md"]


def test_an_adoption_that_cannot_be_noted_is_not_lost() -> None:
    """Forgotten here, it would never end, and the run with it."""
    scene = Scene(lambda _: [document("a.md", "f1")])
    scene.refuses = JournalError("the disk is full")

    scene.play(holding(scene, planned()), until=10.0)

    assert ("failing", "JournalError") in [(what, name) for _, what, name in scene.told]
    assert [held.planned.name for held in scene.room.leave()] == ["a.md"]


def test_those_that_leave_while_they_are_looked_for_are_not_settled_twice() -> None:
    scene = Scene(lambda _: [document("a.md", "f1")])

    async def act() -> None:
        scene.room.lost(planned(), lost())
        await anyio.sleep(TIMES.settle[0] + 0.01)
        assert [held.planned.name for held in scene.room.leave()] == ["a.md"]

    scene.play(act)

    assert scene.asked
    assert scene.told == []


@pytest.mark.parametrize(("number", "requests"), [(5, 5), (60, 1)])
def test_many_are_looked_for_by_pages_and_few_by_name(number: int, requests: int) -> None:
    names = [f"{number}.md" for number in range(number)]
    rows = [document(name, f"file of {name}") for name in names]
    scene = Scene(lambda _: rows)

    scene.play(holding(scene, *(planned(name) for name in names)))

    assert [what for _, what, _ in scene.told] == ["adopt"] * number
    assert len(scene.asked) == requests


def test_one_that_comes_later_is_looked_for_when_it_is_due() -> None:
    scene = Scene(lambda _: [document("b.md", "f1")])

    async def act() -> None:
        scene.room.later(planned("a.md"), 500.0)
        await anyio.sleep(100)
        scene.room.lost(planned("b.md"), lost())

    scene.play(act)

    assert [(round(at), what, name) for at, what, name in scene.told] == [
        (101, "adopt", "b.md"),
        (500, "send", "a.md"),
    ]


def test_an_empty_room_asks_nothing() -> None:
    scene = Scene()

    scene.play(holding(scene))

    assert scene.asked == []


def test_a_file_that_is_sent_again_knows_what_it_replaces_now() -> None:
    """The next look has to tell it from the document that is there, not from an older one."""
    now_there = document("a.md", "f2")
    again: list[Planned] = []
    scene = Scene(lambda _: [now_there])
    scene.room._send = again.append

    async def act() -> None:
        scene.room.look(planned(before=document("a.md", "f1")))

    scene.play(act)

    (one,) = again
    assert one.before == "f2"
    assert one.do is Do.SEND
    assert one.row is None
