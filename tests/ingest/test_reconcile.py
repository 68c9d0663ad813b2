"""Pending files: what a lookup decides, when it takes place, and what becomes of the file."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

import anyio
import pytest
from attrs import define, evolve, field
from virtual_time import run

from dify_kb import Document, LoadTiming, Page
from dify_kb.errors import (
    ConnectError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from dify_kb.ingest.engine.file_lifecycle import FileLifecycle
from dify_kb.ingest.engine.file_states import FileEvent, FileState, find_transition
from dify_kb.ingest.engine.followed_documents import FollowedDocuments
from dify_kb.ingest.engine.pending_uploads import (
    LOOKUPS_AFTER_CRASH,
    MAX_DUE,
    PendingUpload,
    PendingUploads,
    max_seconds_until_stored,
)
from dify_kb.ingest.engine.reconcile import ReconcileDecision, Reconciler, decide
from dify_kb.ingest.engine.stall_detector import LOST_BY_WORKER
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.journal import JournalRow, JournalState
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.file_plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    NAME_EXISTS,
    OnExisting,
    PlannedAction,
    PlannedFile,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.models import Event, ListDocuments
from dify_kb.resources import Datasets, Documents
from dify_kb.transport import AttemptEvent
from dify_kb.wire import catalog, codec
from dify_kb.wire.endpoint import Call

DATASET: Final = "00000000-0000-4000-8000-000000000000"
TIMES: Final = LoadTiming()
CREATE: Final = "documents.create_by_file"
BEFORE: Final = "f1"
TAKE_OVER, SEND, WAIT = ReconcileDecision.TAKE_OVER, ReconcileDecision.SEND, ReconcileDecision.WAIT
DISABLED, ARCHIVED = ReconcileDecision.KEEP_DISABLED, ReconcileDecision.KEEP_ARCHIVED
EXISTING: Final = ReconcileDecision.KEEP_EXISTING


def document_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def document(
    file: str | None = BEFORE,
    *,
    name: str = "a.md",
    size: int | None = 4,
    status: str = "completed",
    enabled: bool = True,
    archived: bool = False,
    created_from: str = "api",
) -> Document:
    stored = {"upload_file": {"id": file, "size": size}} if file else None
    return codec.decode(
        Document,
        {
            "id": document_id(name),
            "name": name,
            "position": 1,
            "data_source_type": "upload_file",
            "data_source_info": None,
            "data_source_detail_dict": stored,
            "dataset_process_rule_id": None,
            "created_from": created_from,
            "created_by": "somebody",
            "created_at": 1_795_000_000,
            "tokens": 0,
            "indexing_status": status,
            "error": None,
            "enabled": enabled,
            "disabled_at": None,
            "disabled_by": None,
            "archived": archived,
            "display_status": "available",
            "word_count": 7,
            "hit_count": 0,
            "doc_form": "text_model",
            "doc_metadata": None,
        },
    )


def journal_row(state: JournalState, name: str = "a.md", **values: Any) -> JournalRow:
    defaults: dict[str, Any] = {
        "size": 4, "mtime_ns": 1, "content": b"text", "rule": "", "labels": "", "attempts": 1,
        "sent_at": time.time(), "previous": None, "document_id": None, "batch": None,
        "upload_file_id": None, "reason": None,
    }  # fmt: skip
    return JournalRow(key=name, name=name, state=state, **{**defaults, **values})


def make_file(
    name: str = "a.md", *, before: Document | None = None, sends: int = 1, **values: Any
) -> TrackedFile:
    planned = PlannedFile(
        found=FoundFile(key=name, size=4),
        name=name,
        action=PlannedAction.SEND,
        replaces=RemoteDocument.from_document(before) if before else None,
    )
    file = TrackedFile.from_plan(evolve(planned, **values))
    file.lost = file.attempts = sends
    return file


def make_killed_file(*, size: int = 4, **values: Any) -> TrackedFile:
    """Return a file that an earlier run was sending when it was killed."""
    row = journal_row(JournalState.SENDING, size=size, **values)
    return make_file(action=PlannedAction.LOOK_UP, row=row, sends=0, is_unchanged=size == 4)


def make_stalled_file(reason: str = "", *, same: bool = True) -> TrackedFile:
    """Return a file whose document stalled in an earlier run, and that is to be retried."""
    row = journal_row(
        JournalState.STALLED,
        document_id=document_id("a.md"),
        upload_file_id=BEFORE,
        reason=reason,
        previous="f0",
    )
    before = document(status="indexing")
    return make_file(
        before=before,
        sends=0,
        action=PlannedAction.LOOK_UP,
        row=row,
        is_unchanged=same,
        has_stalled=True,
    )


def lost(cause: KnowledgeError | None = None) -> OutcomeUnknownError:
    error = OutcomeUnknownError("the answer was lost", endpoint=CREATE)
    error.__cause__ = cause
    return error


LATE = RequestTimeoutError("no answer in time", endpoint=CREATE)


# What a lookup decides.


def pending(file: TrackedFile, *, lost: bool, until: float = 100.0) -> PendingUpload:
    return PendingUpload(file=file, since=0.0, due=0.0, lost=lost, until=until)


def outcomes(
    found: Document | None, file: TrackedFile, **options: bool
) -> tuple[ReconcileDecision, ReconcileDecision, ReconcileDecision]:
    """Return what is decided after a lost send while it may land, later, and without a lost one."""
    waits = pending(file, lost=False, until=0.0)
    return (
        decide(pending(file, lost=True), found, 99.0, **options),
        decide(pending(file, lost=True), found, 100.0, **options),
        decide(waits, found, 99.0, **options),
    )


@pytest.mark.parametrize(
    ("found", "decisions"),
    [
        (None, (WAIT, SEND, SEND)),
        (document(), (WAIT, SEND, SEND)),
        (document(status="error"), (WAIT, SEND, SEND)),
        (document(status="indexing"), (WAIT, WAIT, WAIT)),
        (document(status="paused"), (WAIT, WAIT, WAIT)),
        (document("f2"), (TAKE_OVER, TAKE_OVER, SEND)),
        (document("f2", status="indexing"), (TAKE_OVER, TAKE_OVER, WAIT)),
        (document("f2", status="error"), (TAKE_OVER, TAKE_OVER, SEND)),
        (document("f2", size=None), (TAKE_OVER, TAKE_OVER, SEND)),
        (document("f2", size=5), (WAIT, SEND, SEND)),
        (document("f2", created_from="web"), (WAIT, SEND, SEND)),
        (document("f2", size=5, status="indexing"), (WAIT, WAIT, WAIT)),
        (document(None), (WAIT, SEND, SEND)),
        # A create that lands beside a disabled document makes another, which is then ours.
        (document(enabled=False), (WAIT, DISABLED, DISABLED)),
        (document(enabled=False, status="indexing"), (WAIT, DISABLED, DISABLED)),
        (document("f2", size=5, enabled=False), (WAIT, DISABLED, DISABLED)),
        (document(archived=True), (WAIT, ARCHIVED, ARCHIVED)),
        (document("f2", size=5, archived=True), (WAIT, ARCHIVED, ARCHIVED)),
        # What landed and was switched off since is ours all the same.
        (document("f2", enabled=False), (TAKE_OVER, TAKE_OVER, DISABLED)),
        (document("f2", archived=True), (TAKE_OVER, TAKE_OVER, ARCHIVED)),
    ],
)
def test_decision_follows_the_document_with_the_name(
    found: Document | None, decisions: tuple[ReconcileDecision, ...]
) -> None:
    assert outcomes(found, make_file(before=document())) == decisions


@pytest.mark.parametrize(
    ("found", "decisions"),
    [
        (None, (WAIT, SEND, SEND)),
        (document(), (WAIT, SEND, SEND)),
        (document(status="indexing"), (WAIT, WAIT, WAIT)),
        (document("f2"), (TAKE_OVER, TAKE_OVER, EXISTING)),
        (document("f2", size=5), (WAIT, EXISTING, EXISTING)),
        (document("f2", size=5, status="indexing"), (WAIT, EXISTING, EXISTING)),
        (document("f2", size=5, enabled=False), (WAIT, EXISTING, EXISTING)),
        (document("f2", created_from="web"), (WAIT, EXISTING, EXISTING)),
        (document(None), (WAIT, EXISTING, EXISTING)),
    ],
)
def test_foreign_document_is_kept_if_not_to_be_replaced(
    found: Document | None, decisions: tuple[ReconcileDecision, ...]
) -> None:
    """It came after the file was planned, when there was none or one of ours."""
    assert outcomes(found, make_file(before=document()), replaces=False) == decisions


def test_archived_document_is_replaced_on_request() -> None:
    found = document(archived=True)

    decisions = outcomes(found, make_file(before=document()), overwrites_archived=True)

    assert decisions == (WAIT, SEND, SEND)


@pytest.mark.parametrize("found", [None, document(), document(status="error")])
def test_decision_waits_until_a_create_cannot_arrive_anymore(found: Document | None) -> None:
    waits = pending(make_file(before=document()), lost=False)

    assert decide(waits, found, 99.0) is WAIT
    assert decide(waits, found, 100.0) is SEND


def test_any_uploaded_file_is_new_if_there_was_none_before() -> None:
    assert decide(pending(make_file(), lost=True), document(), 0.0) is TAKE_OVER


def test_lost_send_of_an_earlier_run_is_distinguished_from_the_replaced_document() -> None:
    """Not from what the list holds now: that may be what landed."""
    waits = pending(make_killed_file(previous="f0"), lost=True)

    assert decide(waits, document("f1"), 0.0) is TAKE_OVER
    assert decide(waits, document("f0"), 0.0) is WAIT


@pytest.mark.parametrize("replaces", [True, False])
def test_lost_send_of_an_earlier_run_is_recognized_by_its_size(*, replaces: bool) -> None:
    """The file may have another size by now; its document was taken for somebody else's."""
    waits = pending(make_killed_file(size=3), lost=True)

    assert decide(waits, document("f1", size=3), 0.0, replaces=replaces) is TAKE_OVER
    assert decide(waits, document("f1", size=4), 0.0, replaces=replaces) is WAIT


@pytest.mark.parametrize("status", ["waiting", "indexing", "error"])
@pytest.mark.parametrize("same", [True, False])
def test_stalled_document_is_created_again(status: str, *, same: bool) -> None:
    waits = pending(make_stalled_file(same=same), lost=False, until=0.0)

    assert decide(waits, document(status=status), 0.0) is SEND


def test_stalled_document_that_was_indexed_after_all_is_taken_over_unless_the_file_changed() -> (
    None
):
    """Taken over, the old text would be reported as the new one."""
    waits = [pending(make_stalled_file(same=same), lost=False, until=0.0) for same in (True, False)]

    assert [decide(one, document(), 0.0) for one in waits] == [TAKE_OVER, SEND]


def test_stalled_document_is_not_created_twice_while_the_first_create_may_land() -> None:
    file = make_stalled_file(LOST_BY_WORKER)
    file.planned = evolve(file.planned, row=None)  # it was sent in this run
    waits = pending(file, lost=True)

    assert decide(waits, document(status="indexing"), 99.0) is WAIT
    assert decide(waits, document(status="completed"), 99.0) is WAIT
    assert decide(waits, document(status="indexing"), 100.0) is SEND


@pytest.mark.parametrize(
    ("cause", "part"),
    [
        (ServerError("500", endpoint=CREATE, status=500), "looks"),
        (ProtocolError("no JSON", endpoint=CREATE, status=200), "quarantine"),
        (ServerError("502", endpoint=CREATE, status=502), "patience"),
        (ServerError("504", endpoint=CREATE, status=504), "patience"),
        (RequestTimeoutError("no answer", endpoint=CREATE), "patience"),
        (TransportError("reset", endpoint=CREATE), "quarantine"),
        (ConnectError("reset", endpoint=CREATE), "quarantine"),
        (None, "quarantine"),
    ],
)
def test_seconds_in_which_a_create_may_still_be_stored(
    cause: KnowledgeError | None, part: str
) -> None:
    looks = sum(TIMES.lookup_intervals[:LOOKUPS_AFTER_CRASH])
    expected = {
        "looks": looks,
        "patience": TIMES.late_create_after_timeout,
        "quarantine": TIMES.late_create_after_disconnect,
    }

    assert max_seconds_until_stored(lost(cause), TIMES) == expected[part]


# What becomes of pending files, in virtual time.


@define
class RecordedFiles:
    """The part of `FileLifecycle` that a reconciler uses; the table says what may happen."""

    pending: PendingUploads
    followed: FollowedDocuments
    defaults: list[tuple[float, str, str]] = field(factory=list)
    reasons: list[str | None] = field(factory=list)

    def apply(self, file: TrackedFile, event: FileEvent, reason: str | None = None) -> None:
        file.state = find_transition(file.state, event).state
        self.defaults.append((anyio.current_time(), str(event), file.key))
        self.reasons.append(reason)

    def stop(self, *files: TrackedFile) -> None:
        for file in files:
            self.apply(file, FileEvent.HALTED)
            self.pending.remove(file)

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.defaults]


@define
class Scene:
    """A reconciler, a list of documents that changes with time, and what comes of files."""

    server: Callable[[float], list[Document]] = lambda _: []
    on_existing: OnExisting = "overwrite"
    overwrites_archived: bool = False
    retries_stalled: bool = False
    patience: float = 900.0
    asked: list[tuple[float, str]] = field(factory=list)
    deleted: list[str] = field(factory=list)
    failures: list[KnowledgeError] = field(factory=list)
    latency: float = 0.02
    error: KnowledgeError | None = None
    """What ended the reconciler."""

    files: RecordedFiles = field(init=False)
    breaker: CircuitBreaker = field(init=False)
    reconciler: Reconciler = field(init=False)

    def begin(self) -> None:
        documents, followed = Documents(self), FollowedDocuments()
        self.files = RecordedFiles(PendingUploads(TIMES, followed.activity), followed)
        self.breaker = CircuitBreaker(cast("Datasets", self), DATASET, TIMES)
        self.reconciler = Reconciler(
            DocumentLookup(documents, DATASET),
            documents,
            DATASET,
            TIMES,
            self.breaker,
            cast("FileLifecycle", self.files),
            self.on_existing,
            self.overwrites_archived,
            self.retries_stalled,
            self.patience,
        )

    def lose(self, *files: TrackedFile, cause: KnowledgeError | None = None) -> None:
        for file in files:
            file.state, file.error = FileState.UNKNOWN, lost(cause)
            self.files.pending.put_lost(file)

    def look(self, *files: TrackedFile) -> None:
        for file in files:
            row = file.planned.row
            sent = row is not None and row.state is JournalState.SENDING
            file.state = FileState.UNKNOWN if sent else FileState.BUSY
            self.files.pending.put_busy(file, lost=sent)

    def later(self, file: TrackedFile, seconds: float) -> None:
        file.state = FileState.BUSY
        self.files.pending.put_later(file, seconds)

    async def get(self, dataset_id: str, /) -> object:
        """Answer a probe."""
        return dataset_id

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        if call.endpoint is catalog.DELETE_DOCUMENT:
            return await self._delete(call.path)
        body = cast("ListDocuments", call.body)
        self.asked.append((anyio.current_time(), str(body.keyword or f"page {body.page or 1}")))
        keyword = str(body.keyword or "").replace("\\", "")
        rows = [one for one in self.server(anyio.current_time()) if keyword in one.name]
        await anyio.sleep(self.latency)
        if self.failures:
            raise self.failures.pop()
        size, page = int(body.limit or 20), int(body.page or 1)
        start = (page - 1) * size
        return Page(data=rows[start : start + size], limit=size, total=len(rows), page=page)

    async def _delete(self, path: str) -> None:
        await anyio.sleep(self.latency)
        if self.failures:
            raise self.failures.pop()
        self.deleted.append(path.rsplit("/", 1)[-1])

    def play(self, act: Callable[[], Awaitable[None] | None], until: float = 1000.0) -> None:
        """Go through a scene in virtual time."""

        async def scene() -> None:
            self.begin()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                tasks.start_soon(self._reconcile)
                done = act()
                if done is not None:
                    await done
                await anyio.sleep(until)
                tasks.cancel_scope.cancel()

        run(scene)

    async def _reconcile(self) -> None:
        try:
            await self.reconciler.run()
        except KnowledgeError as error:
            self.error = error

    @property
    def defaults(self) -> list[tuple[int, str]]:
        return [(round(at), event) for at, event, _ in self.files.defaults]


RESET = ConnectError("reset", endpoint=CREATE)


def test_lost_upload_is_looked_up_at_growing_intervals() -> None:
    scene = Scene()

    scene.play(lambda: scene.lose(make_file(), cause=RESET))

    assert [round(at) for at, _ in scene.asked] == [1, 4, 14, 30]
    assert scene.defaults == [(30, "not found")]


def test_stored_document_is_taken_over_when_it_appears() -> None:
    landed = document("f1", status="waiting")
    scene, file = Scene(lambda now: [landed] if now > 10 else []), make_file()

    scene.play(lambda: scene.lose(file))

    assert scene.defaults == [(14, "found")]
    assert len(scene.files.pending) == 0
    assert file.document is not None
    assert (file.document.id, file.document.reconciled, file.updates) == (landed.id, True, False)


def test_document_stored_during_the_last_lookup_is_not_resent() -> None:
    """The answer tells of the time when the server wrote it, not of that when it came."""
    landed = document("f1", status="waiting")
    scene = Scene(lambda now: [landed] if now >= 29.9 else [], latency=0.5)
    file = make_file()

    async def act() -> None:
        scene.lose(file)
        await anyio.sleep(20)
        scene.files.pending.put(
            evolve(scene.files.pending._by_key["a.md"], due=29.8)
        )  # answered when the send could no longer land

    scene.play(act)

    assert scene.files.events == ["found"]


def test_previous_document_is_not_mistaken_for_the_lost_send() -> None:
    """It has the same name and, when the file changed little, the same size."""
    before = document("f1")
    scene = Scene(lambda _: [before])

    scene.play(lambda: scene.lose(make_file(before=before)))

    assert scene.files.events == ["not found"]
    assert scene.defaults[0][0] >= TIMES.late_create_after_disconnect


def test_slow_server_gets_more_time_before_a_resend() -> None:
    scene = Scene()

    scene.play(
        lambda: scene.lose(make_file(), cause=ServerError("504", endpoint=CREATE, status=504))
    )

    assert scene.files.events == ["not found"]
    assert scene.defaults[0][0] >= TIMES.late_create_after_timeout


def test_file_that_is_never_stored_fails_after_all_sends() -> None:
    scene = Scene()

    file = make_file(sends=TIMES.max_sends)

    scene.play(lambda: scene.lose(file))

    assert scene.files.events == ["refused"]
    defaults = f"not found on the server after {TIMES.max_sends} uploads: the answer was lost"
    assert file.failure == defaults


def test_nothing_is_sent_while_its_document_is_indexed() -> None:
    """Two runs at once would leave the chunks of both (measured on 1.4.3 and 1.12.1)."""
    busy, ended = (document("f1", status=status) for status in ("indexing", "completed"))
    scene = Scene(lambda now: [busy] if now < 300 else [ended])

    scene.play(lambda: scene.look(make_file(before=busy)))

    ((at, what),) = scene.defaults
    assert what == "not found"
    assert 300 < at < 400


@pytest.mark.parametrize("lose", [True, False])
def test_endless_indexing_stalls_only_without_other_progress(*, lose: bool) -> None:
    """Also after a lost answer: nothing else ended such a file, and the load never did."""
    busy = document("f1", status="indexing")
    scene = Scene(lambda _: [busy], patience=100)

    async def act() -> None:
        (scene.lose if lose else scene.look)(make_file(before=busy))
        for _ in range(10):
            await anyio.sleep(50)
            scene.files.followed.activity.moved_at = anyio.current_time()

    scene.play(act)

    ((at, what),) = scene.defaults
    assert what == "stalled"
    assert scene.files.reasons == [
        "no progress (status 'indexing'), and no other document made progress"
    ]
    assert 600 < at < 700
    assert len(scene.files.pending) == 0


@pytest.mark.parametrize("lose", [True, False])
def test_retry_failed_replaces_a_document_that_is_never_indexed(*, lose: bool) -> None:
    """Deleted first: a task for it may still be queued, and would double the chunks."""
    busy = document("f1", status="indexing")
    scene = Scene(lambda _: [busy], patience=100, retries_stalled=True)

    async def act() -> None:
        (scene.lose if lose else scene.look)(make_file(before=busy))
        for _ in range(10):
            await anyio.sleep(50)
            scene.files.followed.activity.moved_at = anyio.current_time()

    scene.play(act)

    ((at, what),) = scene.defaults
    assert what == "not found"
    assert scene.deleted == [busy.id]
    assert 600 < at < 700


def test_documents_that_stalled_together_are_recreated_together() -> None:
    """Each that is created again moves; the others would wait once more for each of them."""
    names = ("a.md", "b.md", "c.md")
    still = [document("f1", name=name, status="indexing") for name in names]
    scene = Scene(lambda _: still, patience=100, retries_stalled=True)

    async def act() -> None:
        scene.look(*(make_file(name, before=one) for name, one in zip(names, still, strict=True)))
        while len(scene.defaults) < len(names):
            await anyio.sleep(1)
            if scene.defaults:
                scene.files.followed.activity.moved_at = anyio.current_time()

    scene.play(act, until=1000)

    assert scene.files.events == ["not found"] * 3
    assert max(at for at, _ in scene.defaults) < 100 + 2 * TIMES.lookup_intervals[-1]


def test_stalled_document_indexed_since_is_no_progress_of_this_run() -> None:
    scene, file = Scene(lambda _: [document()]), make_stalled_file()

    scene.play(lambda: scene.look(file))

    assert file.document is not None
    assert file.document.remembered
    assert file.document.response_at < 0


def test_stalled_document_that_was_created_again_is_stored_as_the_new_one() -> None:
    """Its answer was lost, and the journal went on to name the deleted document."""
    documents = [document(status="waiting"), document("f1", status="indexing")]
    scene, file = Scene(lambda now: [documents[now > 5]]), make_stalled_file()

    async def act() -> None:
        scene.look(file)
        await anyio.sleep(6)
        file.lost += 1
        scene.lose(file)

    scene.play(act)

    assert scene.files.events == ["not found", "found"]
    assert file.document is not None
    assert not file.document.remembered


@pytest.mark.parametrize(
    ("ago", "least"), [(10.0, 110.0), (60.0, 60.0), (1e6, 30.0), (-1e6, 120.0)]
)
def test_unanswered_send_of_an_earlier_run_waits_as_long_as_one_of_this_run(
    ago: float, least: float
) -> None:
    """Also if the clock was set meanwhile: never for ever, and never at once."""
    scene = Scene(lambda _: [])
    file = make_killed_file(sent_at=1e9)

    def act() -> None:
        scene.files.pending.clock = lambda: 1e9 + ago
        scene.look(file)

    scene.play(act)

    ((at, event),) = scene.defaults
    assert event == "not found"
    assert least <= at <= least + TIMES.lookup_intervals[-1]


@pytest.mark.parametrize(
    ("found", "overwrites", "event", "reason"),
    [
        (document(enabled=False), False, "kept", DISABLED_BY_HAND),
        (document(enabled=False), True, "kept", DISABLED_BY_HAND),
        (document(archived=True), False, "kept", ARCHIVED_BY_HAND),
        (document(archived=True), True, "not found", None),
    ],
)
def test_disabled_or_archived_documents_are_kept(
    found: Document, event: str, reason: str | None, *, overwrites: bool
) -> None:
    scene = Scene(lambda _: [found], overwrites_archived=overwrites)

    scene.play(lambda: scene.look(make_file(before=found)))

    assert scene.files.events == [event]
    assert scene.files.reasons == [reason]


@pytest.mark.parametrize(("on_existing", "event"), [("skip", "kept"), ("fail", "rejected")])
@pytest.mark.parametrize("lose", [True, False])
def test_foreign_document_is_kept_on_request(
    on_existing: OnExisting, event: str, *, lose: bool
) -> None:
    theirs = document("f9", size=7)
    scene = Scene(lambda _: [theirs], on_existing=on_existing)

    scene.play(lambda: (scene.lose if lose else scene.look)(make_file(before=document())))

    assert scene.files.events == [event]
    assert scene.files.reasons == [NAME_EXISTS]
    assert (scene.defaults[0][0] >= TIMES.late_create_after_disconnect) is lose


def test_file_that_changed_replaces_its_own_document_whatever_exists() -> None:
    """The content that the server has is torn, and it is ours."""
    file = make_file(sends=0)
    file.changed = 1
    scene = Scene(lambda _: [document("f9", size=7)], on_existing="skip")

    scene.play(lambda: scene.look(file))

    assert scene.files.events == ["not found"]
    assert not file.updates


def test_delayed_file_waits_until_it_is_due() -> None:
    failed = document("f1", status="error")
    scene = Scene(lambda _: [failed])

    scene.play(lambda: scene.later(make_file(before=failed), 60.0))

    assert scene.defaults == [(60, "not found")]
    assert len(scene.asked) == 1


def test_failed_lookup_is_repeated_without_side_effects() -> None:
    """The second of three fails: the first is not acted upon again."""
    names = ("a.md", "b.md", "c.md")
    scene = Scene(lambda _: [document(f"f of {name}", name=name) for name in names])
    unavailable = ServerError("503", endpoint=CREATE, status=503)

    async def act() -> None:
        scene.lose(*map(make_file, names))
        await anyio.sleep(TIMES.lookup_intervals[0] + 0.03)
        assert scene.files.events == ["found"]
        scene.failures = [unavailable] * 3

    scene.play(act)

    assert sorted(name for _, _, name in scene.files.defaults) == list(names)
    assert scene.files.events == ["found"] * 3
    assert not scene.failures


def test_batch_that_takes_longer_than_an_outage_survives_one_failure() -> None:
    """Each lookup has a time of its own; that of the whole batch was over before it was through."""
    names = [f"{number}.md" for number in range(100)]
    scene = Scene(latency=10.0)

    async def act() -> None:
        scene.look(*(make_file(name, before=document(name=name)) for name in names))
        await anyio.sleep(TIMES.max_outage + 100)
        scene.failures = [ForbiddenError("odd", endpoint=CREATE, status=403)]

    scene.play(act, until=2000.0)

    assert scene.error is None
    assert len(scene.files.defaults) == 100


def test_lookup_that_is_refused_ends_the_reconciler_with_its_error() -> None:
    """The run then stops, and the pending files with it."""
    scene = Scene()
    scene.failures = [NotFoundError("no dataset", endpoint=CREATE, status=404)] * 10

    scene.play(lambda: scene.lose(make_file()))

    assert isinstance(scene.error, NotFoundError)
    assert scene.files.defaults == []


def test_file_that_ends_while_it_is_looked_up_is_left_alone() -> None:
    scene, file = Scene(lambda _: [document("f1")]), make_file()

    async def act() -> None:
        scene.lose(file)
        await anyio.sleep(TIMES.lookup_intervals[0] + 0.01)
        scene.files.stop(file)

    scene.play(act)

    assert scene.asked
    assert scene.files.events == ["halted"]
    assert len(scene.files.pending) == 0


@pytest.mark.parametrize(("number", "requests"), [(5, 5), (60, 1)])
def test_many_files_are_looked_up_by_page_and_few_by_name(number: int, requests: int) -> None:
    names = [f"{number}.md" for number in range(number)]
    rows = [document(f"file of {name}", name=name) for name in names]
    scene = Scene(lambda _: rows)

    scene.play(lambda: scene.lose(*map(make_file, names)))

    assert scene.files.events == ["found"] * number
    assert len(scene.asked) == requests


def test_later_pending_file_is_looked_up_when_due() -> None:
    scene = Scene(lambda _: [document("f1", name="b.md")])

    async def act() -> None:
        scene.later(make_file("a.md"), 500.0)
        await anyio.sleep(100)
        scene.lose(make_file("b.md"))

    scene.play(act)

    defaults = [(round(at), event, name) for at, event, name in scene.files.defaults]
    assert defaults == [(101, "found", "b.md"), (500, "not found", "a.md")]


def test_no_requests_while_nothing_is_pending() -> None:
    scene = Scene()

    scene.play(lambda: None)

    assert scene.asked == []


def test_two_files_of_one_name_are_pending_side_by_side() -> None:
    """Which of them may be sent is decided when its row is written."""
    scene = Scene()
    first, second = make_file("a.md"), make_file("a.md")
    second.planned = evolve(second.planned, found=FoundFile(key="b/a.md", size=4))

    scene.play(lambda: scene.look(first, second))

    assert scene.files.events == ["not found"] * 2
    assert {name for _, _, name in scene.files.defaults} == {"a.md", "b/a.md"}


def test_resent_file_knows_the_document_it_replaces() -> None:
    """The next lookup has to tell it from the document that is there, not from an older one."""
    scene, file = Scene(lambda _: [document("f2")]), make_file(before=document("f1"))

    scene.play(lambda: scene.look(file))

    assert file.planned.previous_upload_id == "f2"
    assert file.planned.action is PlannedAction.SEND
    assert file.planned.row is None
    assert file.updates


# What earlier runs left.


def test_unchanged_file_that_an_earlier_run_sent_is_taken_over() -> None:
    scene, file = (
        Scene(lambda _: [document("f1", status="indexing")]),
        make_killed_file(previous="f0"),
    )

    scene.play(lambda: scene.look(file))

    assert scene.defaults == [(0, "found")]
    assert file.updates


@pytest.mark.parametrize("on_existing", ["overwrite", "skip", "fail"])
def test_file_that_changed_since_an_earlier_run_sent_it_is_sent_once_that_is_indexed(
    on_existing: OnExisting,
) -> None:
    landed = [document("f1", size=3, status=status) for status in ("indexing", "completed")]
    scene = Scene(lambda now: [landed[now > 50]], on_existing=on_existing)
    file = make_killed_file(size=3)

    async def act() -> None:
        scene.look(file)
        await anyio.sleep(1)
        assert scene.files.events == ["found old version"]
        scene.look(file)

    scene.play(act)

    assert scene.files.events == ["found old version", "not found"]
    assert scene.defaults[1][0] > 50
    assert file.planned.previous_upload_id == "f1"
    assert file.attempts == 0


@pytest.mark.parametrize(
    ("reason", "deleted"),
    [
        (
            f"{LOST_BY_WORKER}: no progress for 15 min while 3 others were indexed",
            [],
        ),
        (
            "no progress for 15 min, and no document of any dataset made progress",
            [document_id("a.md")],
        ),
        ("", [document_id("a.md")]),
    ],
)
@pytest.mark.parametrize("same", [True, False])
def test_stalled_document_whose_task_may_run_is_deleted_before_it_is_created_again(
    reason: str, deleted: list[str], *, same: bool
) -> None:
    """A create by its name would double its chunks; the task of a deleted document does nothing."""
    scene, file = (
        Scene(lambda _: [document(status="waiting")]),
        make_stalled_file(reason, same=same),
    )

    scene.play(lambda: scene.look(file))

    assert scene.files.events == ["not found"]
    assert scene.deleted == deleted
    assert (file.planned.replaces is None) is bool(deleted)


@pytest.mark.parametrize("status", ["error", "completed"])
def test_stalled_document_that_ended_since_is_not_deleted(status: str) -> None:
    scene = Scene(lambda _: [document(status=status)])

    scene.play(lambda: scene.look(make_stalled_file(same=False)))

    assert scene.deleted == []
    assert scene.files.events == ["not found"]


def test_stalled_document_that_was_indexed_since_is_not_sent() -> None:
    scene, file = Scene(lambda _: [document()]), make_stalled_file()

    scene.play(lambda: scene.look(file))

    assert scene.files.events == ["found"]
    assert file.document is not None


def test_delete_that_fails_is_repeated_before_anything_is_sent() -> None:
    scene, file = Scene(lambda _: [document(status="waiting")]), make_stalled_file()

    async def act() -> None:
        scene.look(file)
        await anyio.sleep(0.03)
        scene.failures = [ServerError("503", endpoint=CREATE, status=503)] * 2

    scene.play(act)

    assert scene.deleted == [document_id("a.md")]
    assert scene.files.events == ["not found"]


def test_document_that_is_gone_already_counts_as_deleted() -> None:
    scene, file = Scene(lambda _: [document(status="waiting")]), make_stalled_file()

    async def act() -> None:
        scene.look(file)
        await anyio.sleep(0.03)
        scene.failures = [NotFoundError("gone", endpoint=CREATE, status=404)]

    scene.play(act)

    assert scene.files.events == ["not found"]


def test_file_that_ends_while_its_document_is_deleted_is_left_alone() -> None:
    scene, file = Scene(lambda _: [document(status="waiting")]), make_stalled_file()

    async def act() -> None:
        scene.look(file)
        await anyio.sleep(0.03)
        scene.files.stop(file)

    scene.play(act)

    assert scene.files.events == ["halted"]
    assert file.planned.action is PlannedAction.LOOK_UP


# While Dify may hold the dataset's lock.


def upload(trouble: str | None = None, *, seconds: float = 120.0) -> AttemptEvent:
    return AttemptEvent(
        endpoint=CREATE,
        attempt=1,
        status=None if trouble else 200,
        seconds=seconds,
        retry_in=None,
        error=trouble,
        failure_kind=cast("Any", trouble),
    )


def listed() -> AttemptEvent:
    return evolve(upload(), endpoint=catalog.LIST_DOCUMENTS.name)


def time_out(scene: Scene, *, block: bool) -> None:
    for _ in range(2 if block else 1):
        scene.breaker.record(upload("timeout"))
    if block:
        scene.breaker.record(listed())
    assert scene.breaker.has_blocked_uploads is block


def test_timed_out_create_is_not_repeated_while_no_upload_is_answered() -> None:
    """It waits for the dataset's lock, and lands when that is released."""
    scene = Scene()

    def act() -> None:
        time_out(scene, block=False)
        scene.lose(make_file(), cause=LATE)

    scene.play(act)

    ((at, event),) = scene.defaults
    assert event == "not found"
    assert TIMES.dataset_lock_time <= at <= TIMES.dataset_lock_time + TIMES.lookup_intervals[-1]


def test_timed_out_create_is_repeated_once_a_later_upload_was_answered() -> None:
    scene = Scene()

    async def act() -> None:
        scene.lose(make_file(), cause=LATE)
        await anyio.sleep(10)
        scene.breaker.record(upload(seconds=0.1))

    scene.play(act)

    ((at, event),) = scene.defaults
    assert event == "not found"
    assert (
        TIMES.late_create_after_timeout
        <= at
        <= TIMES.late_create_after_timeout + TIMES.lookup_intervals[-1]
    )


def test_lookup_older_than_the_upload_response_does_not_count() -> None:
    """The lock was released in between, and what waited for it has landed."""
    scene = Scene(lambda now: [document("f1")] if now > 215 else [], latency=30.0)

    async def act() -> None:
        scene.lose(make_file(), cause=LATE)
        await anyio.sleep(225)
        began = max(at for at, _ in scene.asked)
        assert began + 30.0 > 225.0, "no lookup is under way"
        scene.breaker.record(upload(seconds=0.1))

    scene.play(act)

    assert scene.files.events == ["found"]


@pytest.mark.parametrize("answered", [True, False])
def test_blocked_creates_are_stored_before_a_resend(*, answered: bool) -> None:
    """An answered upload shows that the lock is free; others that waited for it land beside."""
    scene = Scene()
    resumed_at = 300.0 if answered else TIMES.dataset_lock_time - 120.0

    async def act() -> None:
        time_out(scene, block=True)
        scene.lose(make_file(), cause=LATE)
        await anyio.sleep(300)
        assert scene.files.events == []
        if answered:
            scene.breaker.record(upload(seconds=0.1))

    scene.play(act)

    ((at, event),) = scene.defaults
    assert event == "not found"
    earliest = resumed_at + TIMES.late_create_after_disconnect
    assert earliest <= at <= earliest + TIMES.lookup_intervals[-1]


@pytest.mark.parametrize(("sends", "closed"), [(1, True), (0, False)])
def test_only_uploads_of_this_run_unblock_uploads(sends: int, *, closed: bool) -> None:
    """What an earlier run sent landed before this one found the server as it is."""
    scene = Scene(lambda _: [document("f1")])

    def act() -> None:
        time_out(scene, block=True)
        if sends:
            scene.lose(make_file(), cause=LATE)
        else:
            scene.look(make_killed_file())

    scene.play(act, until=10.0)

    assert scene.files.events == ["found"]
    assert scene.breaker.is_closed is closed


@pytest.mark.parametrize("on_existing", ["skip", "fail"])
def test_file_is_not_given_up_for_anothers_document_while_its_create_may_land(
    on_existing: OnExisting,
) -> None:
    scene = Scene(lambda _: [document("f9", size=7)], on_existing=on_existing)

    scene.play(lambda: scene.lose(make_file(), cause=LATE))

    ((at, _),) = scene.defaults
    assert at >= TIMES.dataset_lock_time


# Many.


def test_lost_files_are_looked_up_before_thousands_that_wait_for_their_documents() -> None:
    busy = [document(name=f"{number}.md", status="indexing") for number in range(3000)]
    scene = Scene(lambda _: [document("new", name="lost.md"), *busy[:50]])

    async def act() -> None:
        scene.look(*(make_file(one.name, before=one, sends=0) for one in busy))
        scene.lose(make_file("lost.md"))

    scene.play(act, until=30.0)

    assert ("found", "lost.md") in [(event, name) for _, event, name in scene.files.defaults]


def test_hundred_thousand_pending_files_cost_no_time_until_they_are_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each file that came in went through all of them: minutes, for 100,000."""
    many = 100_000
    compared: list[PendingUpload] = []
    has = PendingUploads.has

    def count(self: PendingUploads, entry: PendingUpload) -> bool:
        compared.append(entry)
        return has(self, entry)

    monkeypatch.setattr(PendingUploads, "has", count)

    async def fill() -> None:
        followed = FollowedDocuments()
        waiting = PendingUploads(TIMES, followed.activity)
        file = make_file()
        for number in range(many):
            found = FoundFile(key=f"{number}", size=4)
            one = TrackedFile.from_plan(evolve(file.planned, found=found))
            waiting.put_later(one, 1000.0 + number)
            if number % 1000 == 0:
                assert waiting.pop_due() == []
                with anyio.move_on_after(0):
                    await waiting.wait()
        assert not compared
        await anyio.sleep(2000.0)
        assert len(waiting.pop_due()) == MAX_DUE

    run(fill)

    assert len(compared) == MAX_DUE
