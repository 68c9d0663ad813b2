"""Pending files: decisions after lookups, times of lookups, and resulting events."""

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
from dify_kb.ingest.engine.reconcile import ReconcileDecision, Reconciler, decide_next_step
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
OLD_FILE_ID: Final = "f1"
TAKE_OVER, SEND, WAIT = ReconcileDecision.TAKE_OVER, ReconcileDecision.SEND, ReconcileDecision.WAIT
DISABLED, ARCHIVED = ReconcileDecision.KEEP_DISABLED, ReconcileDecision.KEEP_ARCHIVED
EXISTING: Final = ReconcileDecision.KEEP_EXISTING


def document_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def make_document(
    file: str | None = OLD_FILE_ID,
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


def make_journal_row(state: JournalState, name: str = "a.md", **values: Any) -> JournalRow:
    defaults: dict[str, Any] = {
        "size": 4, "token": "1", "content": b"text", "rule": "", "labels": "", "attempts": 1,
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
    """Create a file that an earlier run was sending when it was killed."""
    row = make_journal_row(JournalState.SENDING, size=size, **values)
    return make_file(action=PlannedAction.LOOK_UP, row=row, sends=0, is_unchanged=size == 4)


def make_stalled_file(reason: str = "", *, same: bool = True) -> TrackedFile:
    """Create a file to be retried, whose document stalled in an earlier run."""
    row = make_journal_row(
        JournalState.STALLED,
        document_id=document_id("a.md"),
        upload_file_id=OLD_FILE_ID,
        reason=reason,
        previous="f0",
    )
    before = make_document(status="indexing")
    return make_file(
        before=before,
        sends=0,
        action=PlannedAction.LOOK_UP,
        row=row,
        is_unchanged=same,
        has_stalled=True,
    )


def make_lost_error(cause: KnowledgeError | None = None) -> OutcomeUnknownError:
    error = OutcomeUnknownError("the response was lost", endpoint=CREATE)
    error.__cause__ = cause
    return error


TIMED_OUT = RequestTimeoutError("no response in time", endpoint=CREATE)


# Decisions


def make_entry(file: TrackedFile, *, lost: bool, until: float = 100.0) -> PendingUpload:
    return PendingUpload(file=file, since=0.0, due=0.0, lost=lost, until=until)


def decide_in_each_case(
    found: Document | None, file: TrackedFile, **options: bool
) -> tuple[ReconcileDecision, ReconcileDecision, ReconcileDecision]:
    """Return the decisions while a lost send may arrive, after that, and without a lost send."""
    entry = make_entry(file, lost=False, until=0.0)
    return (
        decide_next_step(make_entry(file, lost=True), found, 99.0, **options),
        decide_next_step(make_entry(file, lost=True), found, 100.0, **options),
        decide_next_step(entry, found, 99.0, **options),
    )


@pytest.mark.parametrize(
    ("found", "decisions"),
    [
        (None, (WAIT, SEND, SEND)),
        (make_document(), (WAIT, SEND, SEND)),
        (make_document(status="error"), (WAIT, SEND, SEND)),
        (make_document(status="indexing"), (WAIT, WAIT, WAIT)),
        (make_document(status="paused"), (WAIT, WAIT, WAIT)),
        (make_document("f2"), (TAKE_OVER, TAKE_OVER, SEND)),
        (make_document("f2", status="indexing"), (TAKE_OVER, TAKE_OVER, WAIT)),
        (make_document("f2", status="error"), (TAKE_OVER, TAKE_OVER, SEND)),
        (make_document("f2", size=None), (TAKE_OVER, TAKE_OVER, SEND)),
        (make_document("f2", size=5), (WAIT, SEND, SEND)),
        (make_document("f2", created_from="web"), (WAIT, SEND, SEND)),
        (make_document("f2", size=5, status="indexing"), (WAIT, WAIT, WAIT)),
        (make_document(None), (WAIT, SEND, SEND)),
        # A create next to a disabled document creates another one, which is ours.
        (make_document(enabled=False), (WAIT, DISABLED, DISABLED)),
        (make_document(enabled=False, status="indexing"), (WAIT, DISABLED, DISABLED)),
        (make_document("f2", size=5, enabled=False), (WAIT, DISABLED, DISABLED)),
        (make_document(archived=True), (WAIT, ARCHIVED, ARCHIVED)),
        (make_document("f2", size=5, archived=True), (WAIT, ARCHIVED, ARCHIVED)),
        # A stored document is ours even if it was disabled or archived since.
        (make_document("f2", enabled=False), (TAKE_OVER, TAKE_OVER, DISABLED)),
        (make_document("f2", archived=True), (TAKE_OVER, TAKE_OVER, ARCHIVED)),
    ],
)
def test_decision_follows_the_document_with_the_name(
    found: Document | None, decisions: tuple[ReconcileDecision, ...]
) -> None:
    assert decide_in_each_case(found, make_file(before=make_document())) == decisions


@pytest.mark.parametrize(
    ("found", "decisions"),
    [
        (None, (WAIT, SEND, SEND)),
        (make_document(), (WAIT, SEND, SEND)),
        (make_document(status="indexing"), (WAIT, WAIT, WAIT)),
        (make_document("f2"), (TAKE_OVER, TAKE_OVER, EXISTING)),
        (make_document("f2", size=5), (WAIT, EXISTING, EXISTING)),
        (make_document("f2", size=5, status="indexing"), (WAIT, EXISTING, EXISTING)),
        (make_document("f2", size=5, enabled=False), (WAIT, EXISTING, EXISTING)),
        (make_document("f2", created_from="web"), (WAIT, EXISTING, EXISTING)),
        (make_document(None), (WAIT, EXISTING, EXISTING)),
    ],
)
def test_foreign_document_is_kept_if_not_to_be_replaced(
    found: Document | None, decisions: tuple[ReconcileDecision, ...]
) -> None:
    """It was created after the file was planned."""
    assert (
        decide_in_each_case(found, make_file(before=make_document()), replaces=False) == decisions
    )


def test_archived_document_is_replaced_on_request() -> None:
    found = make_document(archived=True)

    decisions = decide_in_each_case(
        found, make_file(before=make_document()), overwrites_archived=True
    )

    assert decisions == (WAIT, SEND, SEND)


@pytest.mark.parametrize("found", [None, make_document(), make_document(status="error")])
def test_decision_waits_until_a_create_cannot_arrive_anymore(found: Document | None) -> None:
    entry = make_entry(make_file(before=make_document()), lost=False)

    assert decide_next_step(entry, found, 99.0) is WAIT
    assert decide_next_step(entry, found, 100.0) is SEND


def test_any_uploaded_file_is_new_if_there_was_none_before() -> None:
    assert decide_next_step(make_entry(make_file(), lost=True), make_document(), 0.0) is TAKE_OVER


def test_lost_send_of_an_earlier_run_is_distinguished_from_the_replaced_document() -> None:
    """Compared with the journal, because the listed document may be the lost send."""
    entry = make_entry(make_killed_file(previous="f0"), lost=True)

    assert decide_next_step(entry, make_document("f1"), 0.0) is TAKE_OVER
    assert decide_next_step(entry, make_document("f0"), 0.0) is WAIT


@pytest.mark.parametrize("replaces", [True, False])
def test_lost_send_of_an_earlier_run_is_recognized_by_its_size(*, replaces: bool) -> None:
    """The file may have a different size now."""
    entry = make_entry(make_killed_file(size=3), lost=True)

    assert decide_next_step(entry, make_document("f1", size=3), 0.0, replaces=replaces) is TAKE_OVER
    assert decide_next_step(entry, make_document("f1", size=4), 0.0, replaces=replaces) is WAIT


@pytest.mark.parametrize("status", ["waiting", "indexing", "error"])
@pytest.mark.parametrize("same", [True, False])
def test_stalled_document_is_created_again(status: str, *, same: bool) -> None:
    entry = make_entry(make_stalled_file(same=same), lost=False, until=0.0)

    assert decide_next_step(entry, make_document(status=status), 0.0) is SEND


def test_stalled_document_indexed_since_is_taken_over_unless_the_file_changed() -> None:
    """Otherwise the old text would be reported as the new text."""
    entries = [
        make_entry(make_stalled_file(same=same), lost=False, until=0.0) for same in (True, False)
    ]

    assert [decide_next_step(entry, make_document(), 0.0) for entry in entries] == [TAKE_OVER, SEND]


def test_stalled_document_is_not_created_twice_while_the_first_create_may_be_stored() -> None:
    file = make_stalled_file(LOST_BY_WORKER)
    file.planned = evolve(file.planned, row=None)  # it was sent in this run
    entry = make_entry(file, lost=True)

    assert decide_next_step(entry, make_document(status="indexing"), 99.0) is WAIT
    assert decide_next_step(entry, make_document(status="completed"), 99.0) is WAIT
    assert decide_next_step(entry, make_document(status="indexing"), 100.0) is SEND


@pytest.mark.parametrize(
    ("cause", "part"),
    [
        (ServerError("500", endpoint=CREATE, status=500), "lookups"),
        (ProtocolError("no JSON", endpoint=CREATE, status=200), "disconnect"),
        (ServerError("502", endpoint=CREATE, status=502), "timeout"),
        (ServerError("504", endpoint=CREATE, status=504), "timeout"),
        (RequestTimeoutError("no response", endpoint=CREATE), "timeout"),
        (TransportError("reset", endpoint=CREATE), "disconnect"),
        (ConnectError("reset", endpoint=CREATE), "disconnect"),
        (None, "disconnect"),
    ],
)
def test_seconds_in_which_a_create_may_still_be_stored(
    cause: KnowledgeError | None, part: str
) -> None:
    lookups = sum(TIMES.lookup_intervals[:LOOKUPS_AFTER_CRASH])
    expected = {
        "lookups": lookups,
        "timeout": TIMES.late_create_after_timeout,
        "disconnect": TIMES.late_create_after_disconnect,
    }

    assert max_seconds_until_stored(make_lost_error(cause), TIMES) == expected[part]


# Reconciler in virtual time


@define
class RecordedFiles:
    """The part of `FileLifecycle` that a reconciler uses, with the real transition table."""

    pending: PendingUploads
    followed: FollowedDocuments
    log: list[tuple[float, str, str]] = field(factory=list)
    reasons: list[str | None] = field(factory=list)

    def apply(self, file: TrackedFile, event: FileEvent, reason: str | None = None) -> None:
        file.state = find_transition(file.state, event).state
        self.log.append((anyio.current_time(), str(event), file.key))
        self.reasons.append(reason)

    def stop(self, *files: TrackedFile) -> None:
        for file in files:
            self.apply(file, FileEvent.HALTED)
            self.pending.remove(file)

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.log]


@define
class SimulatedReconciler:
    """A reconciler with a list of documents that changes over time, in virtual time."""

    server: Callable[[float], list[Document]] = lambda _: []
    on_existing: OnExisting = "overwrite"
    overwrites_archived: bool = False
    retries_stalled: bool = False
    patience: float = 900.0
    requests: list[tuple[float, str]] = field(factory=list)
    deleted: list[str] = field(factory=list)
    failures: list[KnowledgeError] = field(factory=list)
    latency: float = 0.02
    server_version: str | None = None
    error: KnowledgeError | None = None
    """The error that ended the reconciler."""

    files: RecordedFiles = field(init=False)
    breaker: CircuitBreaker = field(init=False)
    reconciler: Reconciler = field(init=False)

    def set_up(self) -> None:
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

    def add_lost(self, *files: TrackedFile, cause: KnowledgeError | None = None) -> None:
        for file in files:
            file.state, file.error = FileState.UNKNOWN, make_lost_error(cause)
            self.files.pending.put_lost(file)

    def add_busy(self, *files: TrackedFile) -> None:
        for file in files:
            row = file.planned.row
            sent = row is not None and row.state is JournalState.SENDING
            file.state = FileState.UNKNOWN if sent else FileState.BUSY
            self.files.pending.put_busy(file, lost=sent)

    def add_delayed(self, file: TrackedFile, seconds: float) -> None:
        file.state = FileState.BUSY
        self.files.pending.put_later(file, seconds)

    async def get(self, dataset_id: str, /) -> object:
        """Respond to a probe."""
        return dataset_id

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        raise NotImplementedError(call.endpoint.name)

    async def __call__(self, call: Call[Any], /) -> Any:
        if call.endpoint is catalog.DELETE_DOCUMENT:
            return await self._delete(call.path)
        body = cast("ListDocuments", call.body)
        self.requests.append((anyio.current_time(), str(body.keyword or f"page {body.page or 1}")))
        keyword = str(body.keyword or "").replace("\\", "")
        rows = [row for row in self.server(anyio.current_time()) if keyword in row.name]
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

    def simulate(
        self, scenario: Callable[[], Awaitable[None] | None], until: float = 1000.0
    ) -> None:
        """Run the reconciler and `scenario` in virtual time."""

        async def execute() -> None:
            self.set_up()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                tasks.start_soon(self._reconcile)
                done = scenario()
                if done is not None:
                    await done
                await anyio.sleep(until)
                tasks.cancel_scope.cancel()

        run(execute)

    async def _reconcile(self) -> None:
        try:
            await self.reconciler.run()
        except KnowledgeError as error:
            self.error = error

    @property
    def timeline(self) -> list[tuple[int, str]]:
        return [(round(at), event) for at, event, _ in self.files.log]


RESET = ConnectError("reset", endpoint=CREATE)


def test_lost_upload_is_looked_up_at_growing_intervals() -> None:
    simulation = SimulatedReconciler()

    simulation.simulate(lambda: simulation.add_lost(make_file(), cause=RESET))

    assert [round(at) for at, _ in simulation.requests] == [1, 4, 14, 30]
    assert simulation.timeline == [(30, "not found")]


def test_stored_document_is_taken_over_when_it_appears() -> None:
    stored = make_document("f1", status="waiting")
    simulation, file = SimulatedReconciler(lambda now: [stored] if now > 10 else []), make_file()

    simulation.simulate(lambda: simulation.add_lost(file))

    assert simulation.timeline == [(14, "found")]
    assert len(simulation.files.pending) == 0
    assert file.document is not None
    assert (file.document.id, file.document.reconciled, file.updates) == (stored.id, True, False)


def test_document_stored_during_the_last_lookup_is_not_resent() -> None:
    """The response reflects the time at which the server created it."""
    stored = make_document("f1", status="waiting")
    simulation = SimulatedReconciler(lambda now: [stored] if now >= 29.9 else [], latency=0.5)
    file = make_file()

    async def scenario() -> None:
        simulation.add_lost(file)
        await anyio.sleep(20)
        simulation.files.pending.put(
            evolve(simulation.files.pending._by_key["a.md"], due=29.8)
        )  # its response arrives when the send can no longer be stored

    simulation.simulate(scenario)

    assert simulation.files.events == ["found"]


def test_previous_document_is_not_mistaken_for_the_lost_send() -> None:
    """It has the same name, and possibly the same size."""
    before = make_document("f1")
    simulation = SimulatedReconciler(lambda _: [before])

    simulation.simulate(lambda: simulation.add_lost(make_file(before=before)))

    assert simulation.files.events == ["not found"]
    assert simulation.timeline[0][0] >= TIMES.late_create_after_disconnect


def test_slow_server_gets_more_time_before_a_resend() -> None:
    simulation = SimulatedReconciler()

    simulation.simulate(
        lambda: simulation.add_lost(
            make_file(), cause=ServerError("504", endpoint=CREATE, status=504)
        )
    )

    assert simulation.files.events == ["not found"]
    assert simulation.timeline[0][0] >= TIMES.late_create_after_timeout


def test_file_that_is_never_stored_fails_after_all_sends() -> None:
    simulation = SimulatedReconciler()

    file = make_file(sends=TIMES.max_sends)

    simulation.simulate(lambda: simulation.add_lost(file))

    assert simulation.files.events == ["refused"]
    failure = f"not found on the server after {TIMES.max_sends} uploads: the response was lost"
    assert file.failure == failure


def test_nothing_is_sent_while_its_document_is_indexed() -> None:
    """Two concurrent runs would leave the chunks of both (measured on 1.4.3 and 1.12.1)."""
    busy, ended = (make_document("f1", status=status) for status in ("indexing", "completed"))
    simulation = SimulatedReconciler(lambda now: [busy] if now < 300 else [ended])

    simulation.simulate(lambda: simulation.add_busy(make_file(before=busy)))

    ((at, event),) = simulation.timeline
    assert event == "not found"
    assert 300 < at < 400


@pytest.mark.parametrize("is_lost", [True, False])
def test_endless_indexing_stalls_only_without_other_progress(*, is_lost: bool) -> None:
    """Also after a lost response: otherwise the load would never end."""
    busy = make_document("f1", status="indexing")
    simulation = SimulatedReconciler(lambda _: [busy], patience=100)

    async def scenario() -> None:
        (simulation.add_lost if is_lost else simulation.add_busy)(make_file(before=busy))
        for _ in range(10):
            await anyio.sleep(50)
            simulation.files.followed.activity.last_progress_at = anyio.current_time()

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "stalled"
    assert simulation.files.reasons == [
        "no progress (status 'indexing'), and no other document made progress"
    ]
    assert 600 < at < 700
    assert len(simulation.files.pending) == 0


@pytest.mark.parametrize("is_lost", [True, False])
def test_retry_failed_replaces_a_document_that_is_never_indexed(*, is_lost: bool) -> None:
    """The document is deleted first: a queued task would duplicate its chunks."""
    busy = make_document("f1", status="indexing")
    simulation = SimulatedReconciler(lambda _: [busy], patience=100, retries_stalled=True)

    async def scenario() -> None:
        (simulation.add_lost if is_lost else simulation.add_busy)(make_file(before=busy))
        for _ in range(10):
            await anyio.sleep(50)
            simulation.files.followed.activity.last_progress_at = anyio.current_time()

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "not found"
    assert simulation.deleted == [busy.id]
    assert 600 < at < 700


def test_documents_that_stalled_together_are_recreated_together() -> None:
    """Progress of a recreated document must not delay the others."""
    names = ("a.md", "b.md", "c.md")
    stalled = [make_document("f1", name=name, status="indexing") for name in names]
    simulation = SimulatedReconciler(lambda _: stalled, patience=100, retries_stalled=True)

    async def scenario() -> None:
        simulation.add_busy(*(make_file(row.name, before=row) for row in stalled))
        while len(simulation.timeline) < len(names):
            await anyio.sleep(1)
            if simulation.timeline:
                simulation.files.followed.activity.last_progress_at = anyio.current_time()

    simulation.simulate(scenario, until=1000)

    assert simulation.files.events == ["not found"] * 3
    assert max(at for at, _ in simulation.timeline) < 100 + 2 * TIMES.lookup_intervals[-1]


def test_stalled_document_indexed_since_is_not_progress_of_this_run() -> None:
    simulation, file = SimulatedReconciler(lambda _: [make_document()]), make_stalled_file()

    simulation.simulate(lambda: simulation.add_busy(file))

    assert file.document is not None
    assert file.document.remembered
    assert file.document.response_at < 0


def test_stalled_document_that_was_created_again_is_stored_as_the_new_one() -> None:
    """Otherwise the journal would keep the id of the deleted document after a lost response."""
    documents = [make_document(status="waiting"), make_document("f1", status="indexing")]
    simulation, file = SimulatedReconciler(lambda now: [documents[now > 5]]), make_stalled_file()

    async def scenario() -> None:
        simulation.add_busy(file)
        await anyio.sleep(6)
        file.lost += 1
        simulation.add_lost(file)

    simulation.simulate(scenario)

    assert simulation.files.events == ["not found", "found"]
    assert file.document is not None
    assert not file.document.remembered


@pytest.mark.parametrize(
    ("age", "min_seconds"), [(10.0, 110.0), (60.0, 60.0), (1e6, 30.0), (-1e6, 120.0)]
)
def test_lost_send_of_an_earlier_run_waits_as_long_as_in_this_run(
    age: float, min_seconds: float
) -> None:
    """Also if the system clock was changed: neither forever nor immediately."""
    simulation = SimulatedReconciler(lambda _: [])
    file = make_killed_file(sent_at=1e9)

    def scenario() -> None:
        simulation.files.pending.clock = lambda: 1e9 + age
        simulation.add_busy(file)

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "not found"
    assert min_seconds <= at <= min_seconds + TIMES.lookup_intervals[-1]


@pytest.mark.parametrize(
    ("found", "overwrites", "event", "reason"),
    [
        (make_document(enabled=False), False, "kept", DISABLED_BY_HAND),
        (make_document(enabled=False), True, "kept", DISABLED_BY_HAND),
        (make_document(archived=True), False, "kept", ARCHIVED_BY_HAND),
        (make_document(archived=True), True, "not found", None),
    ],
)
def test_disabled_or_archived_documents_are_kept(
    found: Document, event: str, reason: str | None, *, overwrites: bool
) -> None:
    simulation = SimulatedReconciler(lambda _: [found], overwrites_archived=overwrites)

    simulation.simulate(lambda: simulation.add_busy(make_file(before=found)))

    assert simulation.files.events == [event]
    assert simulation.files.reasons == [reason]


@pytest.mark.parametrize(("on_existing", "event"), [("skip", "kept"), ("fail", "rejected")])
@pytest.mark.parametrize("is_lost", [True, False])
def test_foreign_document_is_kept_on_request(
    on_existing: OnExisting, event: str, *, is_lost: bool
) -> None:
    theirs = make_document("f9", size=7)
    simulation = SimulatedReconciler(lambda _: [theirs], on_existing=on_existing)

    simulation.simulate(
        lambda: (simulation.add_lost if is_lost else simulation.add_busy)(
            make_file(before=make_document())
        )
    )

    assert simulation.files.events == [event]
    assert simulation.files.reasons == [NAME_EXISTS]
    assert (simulation.timeline[0][0] >= TIMES.late_create_after_disconnect) is is_lost


def test_changed_file_replaces_its_own_document_regardless_of_on_existing() -> None:
    """The server may have a mixture of old and new content, uploaded by this run."""
    file = make_file(sends=0)
    file.changed = 1
    simulation = SimulatedReconciler(lambda _: [make_document("f9", size=7)], on_existing="skip")

    simulation.simulate(lambda: simulation.add_busy(file))

    assert simulation.files.events == ["not found"]
    assert not file.updates


def test_delayed_file_waits_until_it_is_due() -> None:
    failed = make_document("f1", status="error")
    simulation = SimulatedReconciler(lambda _: [failed])

    simulation.simulate(lambda: simulation.add_delayed(make_file(before=failed), 60.0))

    assert simulation.timeline == [(60, "not found")]
    assert len(simulation.requests) == 1


def test_failed_lookup_is_repeated_without_side_effects() -> None:
    """If the second of three lookups fails, the first decision is not applied again."""
    names = ("a.md", "b.md", "c.md")
    simulation = SimulatedReconciler(
        lambda _: [make_document(f"f of {name}", name=name) for name in names]
    )
    unavailable = ServerError("503", endpoint=CREATE, status=503)

    async def scenario() -> None:
        simulation.add_lost(*map(make_file, names))
        await anyio.sleep(TIMES.lookup_intervals[0] + 0.03)
        assert simulation.files.events == ["found"]
        simulation.failures = [unavailable] * 3

    simulation.simulate(scenario)

    assert sorted(name for _, _, name in simulation.files.log) == list(names)
    assert simulation.files.events == ["found"] * 3
    assert not simulation.failures


def test_batch_that_takes_longer_than_an_outage_survives_one_failure() -> None:
    """The time limit applies to each lookup, not to the whole batch."""
    names = [f"{number}.md" for number in range(100)]
    simulation = SimulatedReconciler(latency=10.0)

    async def scenario() -> None:
        simulation.add_busy(*(make_file(name, before=make_document(name=name)) for name in names))
        await anyio.sleep(TIMES.max_outage + 100)
        simulation.failures = [ForbiddenError("odd", endpoint=CREATE, status=403)]

    simulation.simulate(scenario, until=2000.0)

    assert simulation.error is None
    assert len(simulation.files.log) == 100


def test_refused_lookup_ends_the_reconciler_with_its_error() -> None:
    """The run then stops."""
    simulation = SimulatedReconciler()
    simulation.failures = [NotFoundError("no dataset", endpoint=CREATE, status=404)] * 10

    simulation.simulate(lambda: simulation.add_lost(make_file()))

    assert isinstance(simulation.error, NotFoundError)
    assert simulation.files.log == []


def test_file_that_ends_during_a_lookup_gets_no_event() -> None:
    simulation, file = SimulatedReconciler(lambda _: [make_document("f1")]), make_file()

    async def scenario() -> None:
        simulation.add_lost(file)
        await anyio.sleep(TIMES.lookup_intervals[0] + 0.01)
        simulation.files.stop(file)

    simulation.simulate(scenario)

    assert simulation.requests
    assert simulation.files.events == ["halted"]
    assert len(simulation.files.pending) == 0


@pytest.mark.parametrize(("number", "requests"), [(5, 5), (60, 1)])
def test_many_files_are_looked_up_by_page_and_few_by_name(number: int, requests: int) -> None:
    names = [f"{number}.md" for number in range(number)]
    rows = [make_document(f"file of {name}", name=name) for name in names]
    simulation = SimulatedReconciler(lambda _: rows)

    simulation.simulate(lambda: simulation.add_lost(*map(make_file, names)))

    assert simulation.files.events == ["found"] * number
    assert len(simulation.requests) == requests


def test_later_pending_file_is_looked_up_when_due() -> None:
    simulation = SimulatedReconciler(lambda _: [make_document("f1", name="b.md")])

    async def scenario() -> None:
        simulation.add_delayed(make_file("a.md"), 500.0)
        await anyio.sleep(100)
        simulation.add_lost(make_file("b.md"))

    simulation.simulate(scenario)

    timeline = [(round(at), event, name) for at, event, name in simulation.files.log]
    assert timeline == [(101, "found", "b.md"), (500, "not found", "a.md")]


def test_no_requests_while_nothing_is_pending() -> None:
    simulation = SimulatedReconciler()

    simulation.simulate(lambda: None)

    assert simulation.requests == []


def test_two_files_with_the_same_name_are_pending_independently() -> None:
    """Only one of them may be sent; that is decided when its journal row is written."""
    simulation = SimulatedReconciler()
    first, second = make_file("a.md"), make_file("a.md")
    second.planned = evolve(second.planned, found=FoundFile(key="b/a.md", size=4))

    simulation.simulate(lambda: simulation.add_busy(first, second))

    assert simulation.files.events == ["not found"] * 2
    assert {name for _, _, name in simulation.files.log} == {"a.md", "b/a.md"}


def test_resent_file_knows_the_document_it_replaces() -> None:
    """The next lookup has to distinguish its upload from that document."""
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document("f2")]),
        make_file(before=make_document("f1")),
    )

    simulation.simulate(lambda: simulation.add_busy(file))

    assert file.planned.previous_upload_id == "f2"
    assert file.planned.action is PlannedAction.SEND
    assert file.planned.row is None
    assert file.updates


# Files of earlier runs


def test_unchanged_file_that_an_earlier_run_sent_is_taken_over() -> None:
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document("f1", status="indexing")]),
        make_killed_file(previous="f0"),
    )

    simulation.simulate(lambda: simulation.add_busy(file))

    assert simulation.timeline == [(0, "found")]
    assert file.updates


@pytest.mark.parametrize("on_existing", ["overwrite", "skip", "fail"])
def test_file_changed_after_an_interrupted_send_is_sent_once_its_document_is_indexed(
    on_existing: OnExisting,
) -> None:
    stored = [make_document("f1", size=3, status=status) for status in ("indexing", "completed")]
    simulation = SimulatedReconciler(lambda now: [stored[now > 50]], on_existing=on_existing)
    file = make_killed_file(size=3)

    async def scenario() -> None:
        simulation.add_busy(file)
        await anyio.sleep(1)
        assert simulation.files.events == ["found old version"]
        simulation.add_busy(file)

    simulation.simulate(scenario)

    assert simulation.files.events == ["found old version", "not found"]
    assert simulation.timeline[1][0] > 50
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
    """Otherwise its chunks would be duplicated; the task of a deleted document has no effect."""
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document(status="waiting")]),
        make_stalled_file(reason, same=same),
    )

    simulation.simulate(lambda: simulation.add_busy(file))

    assert simulation.files.events == ["not found"]
    assert simulation.deleted == deleted
    assert (file.planned.replaces is None) is bool(deleted)


@pytest.mark.parametrize("status", ["error", "completed"])
def test_stalled_document_that_ended_since_is_not_deleted(status: str) -> None:
    simulation = SimulatedReconciler(lambda _: [make_document(status=status)])

    simulation.simulate(lambda: simulation.add_busy(make_stalled_file(same=False)))

    assert simulation.deleted == []
    assert simulation.files.events == ["not found"]


def test_stalled_document_that_was_indexed_since_is_not_sent() -> None:
    simulation, file = SimulatedReconciler(lambda _: [make_document()]), make_stalled_file()

    simulation.simulate(lambda: simulation.add_busy(file))

    assert simulation.files.events == ["found"]
    assert file.document is not None


def test_failed_delete_is_repeated_before_a_resend() -> None:
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document(status="waiting")]),
        make_stalled_file(),
    )

    async def scenario() -> None:
        simulation.add_busy(file)
        await anyio.sleep(0.03)
        simulation.failures = [ServerError("503", endpoint=CREATE, status=503)] * 2

    simulation.simulate(scenario)

    assert simulation.deleted == [document_id("a.md")]
    assert simulation.files.events == ["not found"]


def test_missing_document_counts_as_deleted() -> None:
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document(status="waiting")]),
        make_stalled_file(),
    )

    async def scenario() -> None:
        simulation.add_busy(file)
        await anyio.sleep(0.03)
        simulation.failures = [NotFoundError("gone", endpoint=CREATE, status=404)]

    simulation.simulate(scenario)

    assert simulation.files.events == ["not found"]


def test_file_that_ends_while_its_document_is_deleted_gets_no_event() -> None:
    simulation, file = (
        SimulatedReconciler(lambda _: [make_document(status="waiting")]),
        make_stalled_file(),
    )

    async def scenario() -> None:
        simulation.add_busy(file)
        await anyio.sleep(0.03)
        simulation.files.stop(file)

    simulation.simulate(scenario)

    assert simulation.files.events == ["halted"]
    assert file.planned.action is PlannedAction.LOOK_UP


# Dataset locks


def make_upload_attempt(failure_kind: str | None = None, *, seconds: float = 120.0) -> AttemptEvent:
    return AttemptEvent(
        endpoint=CREATE,
        attempt=1,
        status=None if failure_kind else 200,
        seconds=seconds,
        retry_in=None,
        error=failure_kind,
        failure_kind=cast("Any", failure_kind),
    )


def make_list_attempt() -> AttemptEvent:
    return evolve(make_upload_attempt(), endpoint=catalog.LIST_DOCUMENTS.name)


def record_timeouts(simulation: SimulatedReconciler, *, block: bool) -> None:
    for _ in range(2 if block else 1):
        simulation.breaker.record(make_upload_attempt("timeout"))
    if block:
        simulation.breaker.record(make_list_attempt())
    assert simulation.breaker.has_blocked_uploads is block


def test_timed_out_create_is_not_repeated_while_no_upload_succeeds() -> None:
    """It entry for the dataset's lock, and lands when that is released."""
    simulation = SimulatedReconciler()

    def scenario() -> None:
        record_timeouts(simulation, block=False)
        simulation.add_lost(make_file(), cause=TIMED_OUT)

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "not found"
    assert TIMES.dataset_lock_time <= at <= TIMES.dataset_lock_time + TIMES.lookup_intervals[-1]


def test_timed_out_create_is_repeated_after_a_later_upload_succeeded() -> None:
    simulation = SimulatedReconciler()

    async def scenario() -> None:
        simulation.add_lost(make_file(), cause=TIMED_OUT)
        await anyio.sleep(10)
        simulation.breaker.record(make_upload_attempt(seconds=0.1))

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "not found"
    assert (
        TIMES.late_create_after_timeout
        <= at
        <= TIMES.late_create_after_timeout + TIMES.lookup_intervals[-1]
    )


def test_lookup_older_than_the_upload_response_does_not_count() -> None:
    """The lock was released in between, and waiting creates were stored."""
    simulation = SimulatedReconciler(
        lambda now: [make_document("f1")] if now > 215 else [], latency=30.0
    )

    async def scenario() -> None:
        simulation.add_lost(make_file(), cause=TIMED_OUT)
        await anyio.sleep(225)
        began = max(at for at, _ in simulation.requests)
        assert began + 30.0 > 225.0, "no lookup is in flight"
        simulation.breaker.record(make_upload_attempt(seconds=0.1))

    simulation.simulate(scenario)

    assert simulation.files.events == ["found"]


@pytest.mark.parametrize("responds", [True, False])
def test_blocked_creates_are_stored_before_a_resend(*, responds: bool) -> None:
    """A successful upload shows that the lock is free; waiting creates are stored soon after."""
    simulation = SimulatedReconciler()
    resumed_at = 300.0 if responds else TIMES.dataset_lock_time - 120.0

    async def scenario() -> None:
        record_timeouts(simulation, block=True)
        simulation.add_lost(make_file(), cause=TIMED_OUT)
        await anyio.sleep(300)
        assert simulation.files.events == []
        if responds:
            simulation.breaker.record(make_upload_attempt(seconds=0.1))

    simulation.simulate(scenario)

    ((at, event),) = simulation.timeline
    assert event == "not found"
    earliest = resumed_at + TIMES.late_create_after_disconnect
    assert earliest <= at <= earliest + TIMES.lookup_intervals[-1]


@pytest.mark.parametrize(("sends", "closed"), [(1, True), (0, False)])
def test_only_uploads_of_this_run_unblock_uploads(sends: int, *, closed: bool) -> None:
    """The send of an earlier run was stored before this run began."""
    simulation = SimulatedReconciler(lambda _: [make_document("f1")])

    def scenario() -> None:
        record_timeouts(simulation, block=True)
        if sends:
            simulation.add_lost(make_file(), cause=TIMED_OUT)
        else:
            simulation.add_busy(make_killed_file())

    simulation.simulate(scenario, until=10.0)

    assert simulation.files.events == ["found"]
    assert simulation.breaker.is_closed is closed


@pytest.mark.parametrize("on_existing", ["skip", "fail"])
def test_file_is_not_given_up_for_a_foreign_document_while_its_create_may_be_stored(
    on_existing: OnExisting,
) -> None:
    simulation = SimulatedReconciler(
        lambda _: [make_document("f9", size=7)], on_existing=on_existing
    )

    simulation.simulate(lambda: simulation.add_lost(make_file(), cause=TIMED_OUT))

    ((at, _),) = simulation.timeline
    assert at >= TIMES.dataset_lock_time


# Many files


def test_lost_files_are_looked_up_before_thousands_that_wait_for_their_documents() -> None:
    busy = [make_document(name=f"{number}.md", status="indexing") for number in range(3000)]
    simulation = SimulatedReconciler(lambda _: [make_document("new", name="lost.md"), *busy[:50]])

    async def scenario() -> None:
        simulation.add_busy(*(make_file(row.name, before=row, sends=0) for row in busy))
        simulation.add_lost(make_file("lost.md"))

    simulation.simulate(scenario, until=30.0)

    assert ("found", "lost.md") in [(event, name) for _, event, name in simulation.files.log]


def test_twenty_thousand_pending_files_cost_no_time_until_they_are_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adding a file must not compare it with all others: that took minutes for 100,000 files."""
    file_count = 20_000
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
        for number in range(file_count):
            found = FoundFile(key=f"{number}", size=4)
            tracked = TrackedFile.from_plan(evolve(file.planned, found=found))
            waiting.put_later(tracked, 1000.0 + number)
            if number % 1000 == 0:
                assert waiting.pop_due() == []
                with anyio.move_on_after(0):
                    await waiting.wait()
        assert not compared
        await anyio.sleep(2000.0)
        assert len(waiting.pop_due()) == MAX_DUE

    run(fill)

    assert len(compared) == MAX_DUE
