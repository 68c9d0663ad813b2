"""Random histories of many files, with the real `FileLifecycle` and a real journal."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast

import hypothesis.strategies as st
import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from load_examples import LONG

from dify_kb import LoadTiming
from dify_kb.errors import BadRequestError, OutcomeUnknownError, ProtocolError, QuotaExceededError
from dify_kb.ingest import ItemResult, LoadOptions, Outcome
from dify_kb.ingest.engine.file_lifecycle import FileLifecycle
from dify_kb.ingest.engine.file_states import FileEvent, FileState
from dify_kb.ingest.engine.followed_documents import FollowedDocuments
from dify_kb.ingest.engine.ledger import AttemptCounter, Ledger, RunStop
from dify_kb.ingest.engine.pending_uploads import PendingUploads
from dify_kb.ingest.engine.tracked_file import TrackedFile, UploadedDocument
from dify_kb.ingest.journal import Journal, JournalRow, JournalState, open_journal
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.pacing.indexing_backlog import IndexingBacklog
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import StopReason
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets

T = TypeVar("T")

"""Whether to run 1,000 different histories each time."""

CREATE = "documents.create_by_file"
IDENTITY = {"server": "https://dify", "dataset": "d", "source": "/docs"}
WAITING, COMPLETED, ERROR = IndexingStatus.WAITING, IndexingStatus.COMPLETED, IndexingStatus.ERROR

SEND_RESULTS = (
    "accepted", "accepted", "accepted", "lost, stored", "lost, in flight", "lost", "not sent",
    "refused", "page", "document busy", "changed, stored", "changed", "unreadable", "name taken",
    "not recorded", "refused for all", "failed",
)  # fmt: skip
LOOKUP_RESULTS = ("as it is", "as it is", "as it is", "kept", "rejected", "stalled", "given up")
INDEXING_RESULTS = (
    "indexed", "indexed", "indexed", "failed for now", "failed", "stalled", "deleted",
)  # fmt: skip
PLANS = ("send", "send", "send", "busy", "lost", "lost, stored", "follow", "assign metadata")


@define
class StoredDocument:
    """A document of the server; `content` is the version of its file."""

    id: str
    file: str
    content: int
    status: IndexingStatus = WAITING

    @property
    def remote(self) -> RemoteDocument:
        return RemoteDocument(
            document_id=self.id, enabled=True, status=self.status, upload_file_id=self.file
        )


@define
class Server:
    """A server: documents by name, and creates in flight."""

    swaps: bool = False
    documents: dict[str, StoredDocument] = field(factory=dict)
    old: dict[str, StoredDocument] = field(factory=dict)
    """Old versions next to a new version."""

    in_flight: dict[str, int] = field(factory=dict)
    _numbers: itertools.count[int] = field(factory=itertools.count)

    def create(self, name: str, content: int) -> StoredDocument:
        """Create a document: replace the document with that name, or add a new version."""
        number, before = next(self._numbers), self.documents.get(name)
        document_id = before.id if before and not self.swaps else f"d{number}"
        if before and self.swaps:
            self.old[name] = before
        stored = self.documents[name] = StoredDocument(document_id, f"f{number}", content)
        return stored


def lost(message: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(message, endpoint=CREATE)


class NoServer:
    """A server that is never probed: the breaker stays closed."""

    async def get(self, dataset: object) -> Any:
        raise NotImplementedError(dataset)


@define(eq=False)
class RecordingLedger(Ledger):
    """A ledger that keeps all files, including ended files."""

    seen: list[TrackedFile] = field(factory=list)

    def record_planned(self, file: TrackedFile, *, sends: bool) -> None:
        self.seen.append(file)
        super().record_planned(file, sends=sends)


class FileHistories(RuleBasedStateMachine):
    """State machine that applies possible events in any order and checks invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.numbers = itertools.count()
        self.ends: Counter[str] = Counter()
        self.versions: dict[str, int] = {}
        self.received: list[TrackedFile] = []
        """Files that workers received from the queue and have not started to send."""

        self.journal: Journal

    @initialize(
        follows=st.booleans(), swaps=st.booleans(), max_failures=st.sampled_from([None, None, 2])
    )
    def begin(self, *, follows: bool, swaps: bool, max_failures: int | None) -> None:
        swaps = swaps and follows
        self.server = Server(swaps=swaps)
        self.run(self._begin(follows=follows, swaps=swaps, max_failures=max_failures))

    async def _begin(self, *, follows: bool, swaps: bool, max_failures: int | None) -> None:
        self.journal = await self.stack.enter_async_context(open_journal(None, IDENTITY))
        options = LoadOptions(
            wait="indexed" if follows else "accepted",
            on_event=self._listen,
            max_failures=max_failures,
            replace="swap" if swaps else "in_place",
        )
        times, followed = LoadTiming(), FollowedDocuments()
        breaker = CircuitBreaker(cast("Datasets", NoServer()), "d", times)
        stopping = RunStop()
        self.ledger = RecordingLedger(self.journal, options, breaker, stopping, AttemptCounter())
        self.life = FileLifecycle(
            ledger=self.ledger,
            stopping=stopping,
            times=times,
            follows=follows,
            swaps=swaps,
            backlog=IndexingBacklog(10**6, follows),
            followed=followed,
            pending=PendingUploads(times, followed.activity),
        )

    def _listen(self, event: object) -> None:
        if isinstance(event, ItemResult):
            self.ends[event.key] += 1

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def do(self, work: Callable[[], None]) -> None:
        """Call `work` in the event loop."""

        async def inside() -> None:
            work()

        self.run(inside())

    @property
    def files(self) -> list[TrackedFile]:
        return self.ledger.seen

    def files_in(self, *states: FileState) -> list[TrackedFile]:
        return [file for file in self.files if file.state in states]

    # New files

    @precondition(lambda self: not self.ledger.scanned)
    @rule(plans=st.lists(st.sampled_from(PLANS), min_size=1, max_size=6), in_memory=st.booleans())
    def plan_files(self, plans: list[str], *, in_memory: bool) -> None:
        for plan in plans:
            self.run(self._plan(plan, in_memory=in_memory))

    async def _plan(self, plan: str, *, in_memory: bool) -> None:
        name = f"{next(self.numbers)}.md"
        data = b"text" if in_memory else None
        found = FoundFile(key=name, size=4, data=data, path=None if data else f"/docs/{name}")
        self.versions[name] = 1
        planned = PlannedFile(found=found, name=name, action=PlannedAction.SEND)
        metadata = {"author": "somebody"} if in_memory else {}
        planned = evolve(planned, metadata=metadata)
        match plan:
            case "busy":
                remote = self.server.create(name, 0).remote
                planned = evolve(planned, action=PlannedAction.LOOK_UP, replaces=remote)
            case "lost" | "lost, stored":
                await self.journal.record_intent(self._row(planned, version=1))
                if plan == "lost, stored":
                    self.server.create(name, 1)
                row = self.journal.get_rows([name])[name]
                planned = evolve(
                    planned, action=PlannedAction.LOOK_UP, row=row, is_unchanged=not in_memory
                )
                self.versions[name] += in_memory
            case "follow" | "assign metadata":
                stored = self.server.create(name, 1)
                await self.journal.record_intent(self._row(planned, version=1))
                self.journal.record_accepted(name, stored.id, "batch", stored.file)
                action = PlannedAction.FOLLOW
                if plan == "assign metadata":
                    self.journal.record_state(name, JournalState.DONE)
                    stored.status, action = COMPLETED, PlannedAction.ASSIGN_METADATA
                await self.journal.flush()
                row = self.journal.get_rows([name])[name]
                planned = evolve(
                    planned, action=action, row=row, is_unchanged=True, replaces=stored.remote
                )
        self.ledger.found += 1
        await self.life.start(planned)

    def _row(self, planned: PlannedFile, *, version: int, attempts: int = 1) -> JournalRow:
        replaces = planned.replaces
        return JournalRow(
            key=planned.found.key,
            name=planned.name,
            size=4,
            token="1",
            content=bytes([version]),
            rule="",
            labels="",
            state=JournalState.SENDING,
            attempts=attempts,
            sent_at=0.0,
            previous=replaces.upload_file_id if replaces else None,
            document_id=None,
            batch=None,
            upload_file_id=None,
            reason=None,
        )

    @precondition(lambda self: not self.ledger.scanned)
    @rule()
    def finish_scan(self) -> None:
        self.do(self.life.finish_scan)

    # Workers

    @precondition(lambda self: self.life.queue._files)
    @rule(number=st.integers(1, 4))
    def receive(self, number: int) -> None:
        async def get() -> None:
            for _ in range(min(number, len(self.life.queue._files))):
                if not self.life.backlog._is_full():
                    self.received.append(await self.life.queue.get())
                    await self.life.backlog.acquire()

        self.run(get())

    @precondition(lambda self: self.received)
    @rule()
    def begin_sends(self) -> None:
        for file in self.received:
            if file.state is FileState.QUEUED:
                self.run(self._begin_send(file))
            else:
                self.do(lambda: self.life.backlog.release(sent=True))
        self.received.clear()

    async def _begin_send(self, file: TrackedFile) -> None:
        name = file.planned.name
        assert file.planned.action is PlannedAction.SEND
        assert name not in self.server.in_flight, "sent while an earlier send may be stored"
        document = self.server.documents.get(name)
        assert document is None or document.status.is_final, "sent while its document is indexed"
        self.life.apply(file, FileEvent.STARTED)
        attempts = file.attempts + 1
        await self.journal.record_intent(
            self._row(file.planned, version=self.versions[name], attempts=attempts)
        )

    @precondition(lambda self: self.files_in(FileState.SENDING))
    @rule(results=st.lists(st.sampled_from(SEND_RESULTS), min_size=1, max_size=6))
    def finish_sends(self, results: list[str]) -> None:
        for file, result in zip(self.files_in(FileState.SENDING), results, strict=False):
            if file.state is FileState.SENDING:
                self.do(lambda file=file, result=result: self._finish_send(file, result))  # type: ignore[misc]

    def _finish_send(self, file: TrackedFile, result: str) -> None:
        name, apply = file.planned.name, self.life.apply
        content = self.versions[name]
        file.attempts += 1
        if "stored" in result:
            self.server.create(name, content)
        match result:
            case "accepted":
                stored = self.server.create(name, content)
                file.document = UploadedDocument(
                    id=stored.id, batch="b", upload_file_id=stored.file
                )
                apply(file, FileEvent.ACCEPTED)
            case "lost, stored" | "lost, in flight" | "lost":
                if result == "lost, in flight":
                    self.server.in_flight[name] = content
                file.lost += 1
                file.error = lost("no response")
                apply(file, FileEvent.LOST)
            case "not sent":
                apply(file, FileEvent.NOT_SENT)
            case "refused":
                file.error = BadRequestError("bad", endpoint=CREATE, status=400, message="bad")
                apply(file, FileEvent.REFUSED)
            case "page":
                file.lost += 1
                file.error = ProtocolError("a page", endpoint=CREATE, status=200, page=True)
                apply(file, FileEvent.PAGE)
            case "changed, stored" | "changed":
                self.versions[name] += 1
                file.changed += 1
                apply(file, FileEvent.CHANGED if file.changed == 1 else FileEvent.UNREADABLE)
            case "not recorded" | "refused for all":
                apply(file, FileEvent(result), "no reason")
                error = QuotaExceededError("full", endpoint=CREATE, status=403, message="full")
                self.life.stop_for_error(error, abandon=False)
            case _:
                apply(file, FileEvent(result), result)

    # Reconciler

    @precondition(lambda self: len(self.life.pending) > 0)
    @rule(
        results=st.lists(st.sampled_from(LOOKUP_RESULTS), min_size=1, max_size=6),
        is_stored=st.booleans(),
    )
    def look_up(self, results: list[str], *, is_stored: bool) -> None:
        waiting = self.files_in(FileState.UNKNOWN, FileState.BUSY)
        for file, result in zip(waiting, results, strict=False):
            if file.state in {FileState.UNKNOWN, FileState.BUSY}:
                self.do(lambda file=file, result=result: self._look_up(file, result, is_stored))  # type: ignore[misc]

    def _look_up(self, file: TrackedFile, result: str, is_stored: bool) -> None:  # noqa: FBT001
        name, apply, planned = file.planned.name, self.life.apply, file.planned
        content = self.server.in_flight.pop(name, None)
        if content is not None and is_stored:
            self.server.create(name, content)
        document = self.server.documents.get(name)
        ours = document is not None and document.file != planned.previous_upload_id
        if file.state is FileState.UNKNOWN and document is not None and ours:
            self.life.pending.remove(file)
            if planned.row is not None and not planned.is_unchanged:
                file.planned = evolve(planned, row=None, replaces=document.remote)
                apply(file, FileEvent.FOUND_OLD_VERSION)
                return
            file.document = UploadedDocument(
                id=document.id, batch=None, upload_file_id=document.file, reconciled=True
            )
            apply(file, FileEvent.FOUND)
        elif result == "given up" and file.state is FileState.UNKNOWN:
            self.life.pending.remove(file)
            apply(file, FileEvent.FAILED, "sent too often")
        elif result in {"kept", "rejected", "stalled"}:
            self.life.pending.remove(file)
            apply(file, FileEvent(result), result)
        elif document is None or document.status.is_final:
            self.life.pending.remove(file)
            remote = document.remote if document else None
            file.updates = remote is not None
            file.planned = evolve(planned, action=PlannedAction.SEND, replaces=remote, row=None)
            apply(file, FileEvent.NOT_FOUND)
        else:
            document.status = COMPLETED

    # Watcher

    @precondition(lambda self: len(self.life.followed) > 0)
    @rule(results=st.lists(st.sampled_from(INDEXING_RESULTS), min_size=1, max_size=6))
    def index(self, results: list[str]) -> None:
        for followed, result in zip(self.life.followed, results, strict=False):
            if self.life.followed.get(followed.document.id) is followed:
                self.do(lambda file=followed.file, result=result: self._index(file, result))  # type: ignore[misc]

    def _index(self, file: TrackedFile, result: str) -> None:
        name = file.planned.name
        document = self.server.documents[name]
        assert file.document is not None
        if result == "deleted":
            del self.server.documents[name]
        elif result != "stalled":
            document.status = COMPLETED if result == "indexed" else ERROR
        if result == "failed for now" and file.planned.found.path is None:
            result = "failed"
        event = FileEvent.FAILED if result == "deleted" else FileEvent(result)
        if result == "failed for now":
            as_failed = file.document.as_failed_document
            file.planned = evolve(file.planned, row=None, replaces=as_failed)
        elif result == "failed" and file.updates and self.life.swaps:
            event = FileEvent.SWAP_FAILED
        elif result == "failed" and file.updates:
            event = FileEvent.REPLACEMENT_FAILED
        self.life.followed.remove(file)
        self.life.apply(file, event, result)
        # Otherwise uploads are held back after 50.
        self.life.backlog.early_failures.record_end(None)

    @precondition(lambda self: self.life.metadata._files)
    @rule(good=st.booleans())
    def assign_metadata(self, *, good: bool) -> None:
        event = FileEvent.METADATA_SET if good else FileEvent.METADATA_REFUSED
        for file in self.run(self.life.metadata.get_all()):
            self.do(lambda file=file: self.life.apply(file, event, "no such field"))  # type: ignore[misc]

    @precondition(lambda self: self.life.replacements._files)
    @rule()
    def finish_replacements(self) -> None:
        for file in self.run(self.life.replacements.get_all()):
            name = file.planned.name
            if file.state is FileState.DISCARDING:
                self.server.documents[name] = self.server.old[name]
                self.do(lambda file=file: self.life.apply(file, FileEvent.DELETED, file.failure))  # type: ignore[misc]
            elif file.state is FileState.REPLACING:
                self.do(lambda file=file: self.life.apply(file, FileEvent.REPLACED))  # type: ignore[misc]

    # Events at any time

    @rule(abandon=st.booleans(), chance=st.integers(0, 19))
    def stop(self, *, abandon: bool, chance: int) -> None:
        if chance:
            return
        self.do(lambda: self.life.stop(StopReason.DEADLINE, "Deadline reached", abandon=abandon))

    @precondition(lambda self: self.files_in(FileState.ENDED))
    @rule(event=st.sampled_from(FileEvent), number=st.integers(0, 10**6))
    def apply_late_event(self, event: FileEvent, number: int) -> None:
        ended = self.files_in(FileState.ENDED)
        file = ended[number % len(ended)]
        self.do(lambda: self.life.apply(file, event, "late"))

    # Invariants

    @invariant()
    def every_file_ends_once(self) -> None:
        if not hasattr(self, "life"):
            return
        assert not [key for key, number in self.ends.items() if number > 1]
        counts = self.ledger.counts
        ended = self.ledger.found - len(self.ledger.open)
        assert counts.total() == ended == self.ends.total()
        assert set(self.ledger.open) == {
            file for file in self.files if file.state is not FileState.ENDED
        }

    @invariant()
    def run_ends_when_all_files_have_ended(self) -> None:
        if not hasattr(self, "life"):
            return
        assert self.life._all_ended.is_set() == (self.ledger.scanned and not self.ledger.open)

    @invariant()
    def every_open_file_is_in_the_collection_of_its_state(self) -> None:
        if not hasattr(self, "life"):
            return
        life = self.life
        waiting = self.files_in(FileState.UNKNOWN, FileState.BUSY)
        assert set(life.pending._by_key) == {file.key for file in waiting}
        accepted = self.files_in(FileState.ACCEPTED)
        assert {followed.file for followed in life.followed} == set(accepted)
        queued = self.files_in(FileState.QUEUED)
        assert set(life.queue._files) | set(self.received) >= set(queued)
        assert life.queue._ready.value == len(life.queue._files)
        indexed = {file for file in life.metadata._files if file.state is FileState.INDEXED}
        assert indexed == set(self.files_in(FileState.INDEXED))
        finishing = self.files_in(FileState.REPLACING, FileState.DISCARDING)
        assert set(life.replacements._files) >= set(finishing)

    @invariant()
    def all_counts_are_right(self) -> None:
        if not hasattr(self, "life"):
            return
        life = self.life
        expected = len(self.files_in(FileState.SENDING, FileState.ACCEPTED)) + len(self.received)
        assert life.backlog._of_this_run + life.backlog._of_earlier_runs == expected
        weights = life.queue._weights
        assert life.queue._bytes == sum(weights.values())
        assert set(weights) <= {file.key for file in self.ledger.open}
        held = {
            file.key
            for file in self.files_in(FileState.QUEUED, FileState.SENDING)
            if file.planned.found.data
        }
        assert set(weights) >= held
        states = Counter(file.state for file in self.ledger.open)
        assert +self.ledger._by_state == states

    def teardown(self) -> None:
        try:
            if hasattr(self, "life"):
                self._finish_all()
                self._check_rows()
                self.run(self.stack.aclose())
        finally:
            self.runner.close()

    def _finish_all(self) -> None:
        """Let all operations succeed, and check that every file ends."""
        if not self.ledger.scanned:
            self.finish_scan()
        for _ in range(40):
            if not self.ledger.open:
                break
            self._succeed_once()
        open_states = [str(file.state) for file in self.ledger.open]
        assert not open_states, f"files that never end: {open_states}"
        self.begin_sends()
        self.every_file_ends_once()
        self.all_counts_are_right()
        self.run_ends_when_all_files_have_ended()
        assert self.life.backlog._of_this_run == self.life.backlog._of_earlier_runs == 0
        assert self.life.queue._bytes == 0
        report = self.ledger.report(1.0)
        assert report.found == self.ledger.found
        assert self.ledger.counts.total() == self.ledger.found

    def _succeed_once(self) -> None:
        count = len(self.files)
        if self.life.queue._files:
            self.receive(count)
        self.begin_sends()
        self.finish_sends(["accepted"] * count)
        self.look_up(["as it is"] * count, is_stored=True)
        self.index(["indexed"] * count)
        if self.life.metadata._files:
            self.assign_metadata(good=True)
        if self.life.replacements._files:
            self.finish_replacements()

    def _check_rows(self) -> None:
        """Check that the journal matches the server, so that the next run decides correctly."""
        self.run(self.journal.flush())
        for file in self.files:
            row = self.journal.get_rows([file.key]).get(file.key)
            document = self.server.documents.get(file.planned.name)
            self._check_row(file, row, document)

    def _check_row(
        self, file: TrackedFile, row: JournalRow | None, document: StoredDocument | None
    ) -> None:
        name = file.planned.name
        message = f"{name} is {row.state if row else 'not'} in the journal, but {document}"
        if name in self.server.in_flight:
            assert row is not None, message
            assert row.state is JournalState.SENDING, message
            return
        if row is None:
            assert document is None or document.content == 0, message
            return
        theirs = document is not None and document.id == row.document_id
        theirs = theirs and document is not None and document.file == row.upload_file_id
        match row.state:
            case JournalState.DONE:
                assert theirs, message
                assert document is not None, message
                assert document.status is COMPLETED, message
                assert row.content == bytes([document.content]), message
            case JournalState.ACCEPTED | JournalState.STALLED:
                assert theirs, message
            case JournalState.FAILED | JournalState.EMPTIED:
                pass
            case JournalState.WAITING:
                # The latest send was not stored: at most the previous document exists.
                before = row.previous
                assert document is None or theirs or document.file == before, message
            case JournalState.SENDING:
                pass  # the next run looks up the document
        remembered = row.state not in {
            JournalState.SENDING,
            JournalState.FAILED,
            JournalState.EMPTIED,
        }
        if document is not None and document.content and remembered and not theirs:
            assert document.file == row.previous, message


@pytest.mark.timeout(600 if LONG else 120)
def test_every_file_ends_once_and_the_journal_records_its_outcome() -> None:
    run_state_machine_as_test(
        FileHistories,
        settings=settings(
            max_examples=1000 if LONG else 50,
            derandomize=not LONG,  # the same histories each time
            stateful_step_count=30,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.fixture
def history() -> Iterator[FileHistories]:
    """Return a load whose steps the test chooses."""
    machine = FileHistories()
    machine.begin(follows=True, swaps=False, max_failures=None)
    yield machine
    machine.teardown()


def count_outcomes(history: FileHistories) -> dict[str, int]:
    return {str(outcome): number for outcome, number in history.ledger.counts.items()}


@pytest.mark.parametrize("answer", ["refused", "changed, stored", "page"])
def test_last_held_file_is_resolved_when_nothing_else_ends(
    history: FileHistories, answer: str
) -> None:
    """Held files are resolved also if no other file is open."""
    history.plan_files(plans=["send"], in_memory=False)
    history.finish_scan()
    history.receive(1)
    history.begin_sends()

    history.finish_sends([answer])

    (file,) = history.files
    expected = {"refused": FileState.ENDED, "page": FileState.UNKNOWN}
    assert file.state is expected.get(answer, FileState.BUSY)


def test_documents_of_earlier_runs_do_not_release_held_refusals(history: FileHistories) -> None:
    """Only an accepted upload of this run shows that the server accepts uploads."""
    history.plan_files(plans=["send", "send", "follow"], in_memory=False)
    history.receive(1)
    history.begin_sends()
    history.finish_sends(["refused"])

    history.plan_files(plans=["follow", "lost, stored"], in_memory=False)
    history.look_up(["as it is"], is_stored=True)
    history.index(["indexed"] * 3)

    assert len(history.files_in(FileState.REFUSED)) == 1
    history.receive(1)
    history.begin_sends()
    history.finish_sends(["accepted"])
    assert count_outcomes(history)["failed"] == 1


def test_held_refusals_release_their_queue_memory(
    history: FileHistories,
) -> None:
    """Otherwise the producer and the held files would wait for each other."""
    history.plan_files(plans=["send"], in_memory=True)
    history.receive(1)
    history.begin_sends()
    assert history.life.queue._bytes == 4

    history.finish_sends(["refused"])

    assert history.life.queue._bytes == 0


def test_refusal_without_an_error_ends_its_file(history: FileHistories) -> None:
    """It cannot be compared with other refusals; held, it would keep the load open forever."""
    history.plan_files(plans=["send"], in_memory=False)
    history.receive(1)
    history.begin_sends()
    (file,) = history.life.ledger.open
    assert file.error is None

    history.life.apply(file, FileEvent.REFUSED)

    assert not history.life.ledger.open
    assert history.life.ledger.counts[Outcome.FAILED] == 1


def test_busy_document_is_looked_up_at_growing_intervals(
    history: FileHistories,
) -> None:
    history.plan_files(plans=["send"], in_memory=False)
    delays = []
    for _ in range(3):
        history.receive(1)
        history.begin_sends()
        history.finish_sends(["document busy"])
        (pending,) = history.life.pending._by_key.values()
        delays.append(round(pending.due - pending.since))
        history.look_up(["as it is"], is_stored=True)

    assert delays == [1, 3, 10]


@pytest.mark.parametrize(
    ("plan", "reason"), [("lost", "sent by an earlier run"), ("send", "not sent before")]
)
def test_stopped_file_reports_its_last_step(history: FileHistories, plan: str, reason: str) -> None:
    history.plan_files(plans=[plan], in_memory=False)

    history.do(lambda: history.life.stop(StopReason.DEADLINE, "Deadline reached"))

    history.run(history.journal.flush())
    (result,) = history.journal.results.iter_failures()
    assert reason in str(result.reason)


def test_undeletable_new_version_reports_its_failure(history: FileHistories) -> None:
    history.life.swaps = history.server.swaps = True
    history.plan_files(plans=["busy"], in_memory=False)
    history.look_up(["as it is"], is_stored=True)
    history.look_up(["as it is"], is_stored=True)
    history.receive(1)
    history.begin_sends()
    history.finish_sends(["accepted"])
    history.files[0].failure = "replacement failed, the old version was kept: bad text"
    history.index(["failed"])
    assert history.files_in(FileState.DISCARDING)

    history.do(lambda: history.life.stop(StopReason.DEADLINE, "Deadline reached", abandon=True))

    history.run(history.journal.flush())
    (result,) = history.journal.results.iter_failures()
    assert result.outcome is Outcome.FAILED
    assert "bad text" in str(result.reason)
