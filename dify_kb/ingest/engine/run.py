"""One load while it runs: each planned file goes through here to exactly one end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.errors import ApiError, KnowledgeError
from dify_kb.ingest.events import Progress
from dify_kb.ingest.journal import Journal, State
from dify_kb.ingest.options import Options, Server
from dify_kb.ingest.pacing.backlog import Backlog
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.plan import Do, Planned, left
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.report import GOOD, ItemResult, Outcome, StopReason, Tally
from dify_kb.ingest.stops import stop_reason
from dify_kb.ingest.transient import transient
from dify_kb.models import UNSET, Dataset, Document, ProcessRule, Unset
from dify_kb.resources.labels import Labels

from .assign_metadata import MetadataAssigner
from .dry_run import rehearsed
from .gate import Gate, passing
from .reconcile import Reconciler
from .upload import UploadedDocument, Uploader, not_sent
from .upload_queue import UploadQueue
from .upload_workers import Sending
from .watch_indexing import NOT_MOVING, IndexingWatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

NOT_SEEN = "uploaded; the run stopped before it was seen indexed"
NOT_SENT = "the run stopped before it"


@define(kw_only=True)
class Run:
    """The state of one load, and what its parts tell it."""

    server: Server
    dataset: Dataset
    journal: Journal
    options: Options
    tally: Tally
    labels: Labels
    stopped: StopReason | None = None
    message: str | None = None
    found: int = 0
    _blind: bool = False
    _scanned: bool = False
    _to_send: int = 0
    _accepted: int = 0
    _open: int = 0
    watcher: IndexingWatcher = field(init=False)
    _line: UploadQueue = field(init=False, factory=UploadQueue)
    _lookup: DocumentLookup = field(init=False)
    _room: Reconciler = field(init=False)
    _gate: Gate = field(init=False)
    _backlog: Backlog = field(init=False)
    _labeller: MetadataAssigner = field(init=False)
    _sending: Sending = field(init=False)

    def __attrs_post_init__(self) -> None:
        server, dataset, options = self.server, self.dataset, self.options
        documents, times = server.documents, server.policy.loading
        self._lookup = lookup = DocumentLookup(documents, dataset.id)
        self._backlog = Backlog(options.max_unindexed, options.follows)
        self.watcher = IndexingWatcher(
            documents,
            dataset.id,
            server.policy.watch,
            times,
            options.stall_after,
            lookup,
            self.indexed,
            self.failing,
            self._backlog.forget,
        )
        self._room = Reconciler(
            lookup,
            times,
            self._line.again,
            self.adopt,
            self.refuse,
            self.failing,
            options.stall_after,
            self.watcher,
            None if options.on_existing == "overwrite" else self.leave,
        )
        self._gate = Gate(
            lambda: server.probe.get(dataset.id), times, self._tell, self._back, self._give_up
        )
        self._labeller = MetadataAssigner(self.labels, self.failing, self.ready)
        self._sending = Sending(
            course=self,
            uploader=Uploader(
                server.uploads, self.journal, dataset, self._rule, options.doc_form, options.cut
            ),
            line=self._line,
            admission=server.admission,
            gate=self._gate,
            backlog=self._backlog,
            times=times,
            tally=self.tally,
            pause=options.pause,
        )

    @property
    def halted(self) -> bool:
        """Whether nothing more is to be sent."""
        return self.stopped is not None

    async def through(self, produce: Callable[[], Awaitable[None]]) -> None:
        """Take everything that `produce` hands over to its end."""
        async with self._company(), anyio.create_task_group() as sending:
            for _ in range(self.server.admission.most):
                sending.start_soon(self._sending.work)
            await produce()
            self._scanned = True
            self._tell()
            self._close_if_done()

    def close(self) -> None:
        """Let go of what was not sent."""
        self._line.discard()

    async def hand_over(self, planned: Planned) -> None:
        """Take a file that is to be done something with."""
        self._open += 1
        self._to_send += planned.do is not Do.LABEL
        if self.options.dry_run:
            told = await rehearsed(planned, self._lookup, self.options.on_existing)
            self._ended(planned, told)
            return
        if self.halted:
            self._ended(planned, not_sent(planned, Outcome.PENDING, NOT_SENT))
            return
        match planned.do:
            case Do.SEND:
                await self._line.put(planned)
            case Do.LOOK:
                self._room.look(planned)
            case Do.FOLLOW:
                self._accepted += 1
                self._backlog.take(sent=False)
                self._follow(remembered(planned), new=False)
            case Do.LABEL:
                sent = remembered(planned)
                self._labeller.add(sent, sent.ended(Outcome.UNCHANGED))

    def end(self, result: ItemResult) -> None:
        """Take a file that ended."""
        would = self.options.dry_run and result.outcome is Outcome.PENDING
        good = would or result.outcome in GOOD
        if not good or self.options.verifies:
            self.journal.keep(result, held=good)
        if not good or not self.options.verifies:
            self._count(result)

    def verified(self, result: ItemResult) -> None:
        """Take a result that was held; one that turned out bad is kept as a failure."""
        if result.outcome not in GOOD:
            if result.outcome is Outcome.FAILED:
                self.journal.end(result.key, State.FAILED, reason=result.reason)
            self.journal.keep(result)
        self._count(result)

    def pend_rest(self) -> None:
        """Count as pending what a journal that failed could not give back."""
        self.tally.counts[Outcome.PENDING] += self.found - self.tally.ended

    def stop(self, reason: StopReason, message: str, *, blind: bool = False) -> None:
        """Send nothing more; what is under way may finish.

        What was accepted is followed to its end, unless the run is `blind` from now on.
        """
        if not self.halted:
            self.stopped, self.message = reason, message
            self._sending.halt()
            for held in self._room.leave():
                outcome = Outcome.UNKNOWN if held.lost else Outcome.PENDING
                reached = not_sent(held.planned, outcome, held.reason or NOT_SENT)
                self._ended(held.planned, reached)
        if blind:
            self._blind = True
            for sent in self.watcher.leave():
                self._make_room(sent)
                self._ended(sent.planned, sent.ended(Outcome.PENDING, reason=NOT_SEEN))
        self._close_if_done()

    def fail_run(self, error: KnowledgeError, *, blind: bool = False) -> None:
        """Stop for an error that concerns every file."""
        own = error.message if isinstance(error, ApiError) else ""
        self.stop(stop_reason(error) or StopReason.OUTAGE, own or error.summary, blind=blind)

    async def failing(self, error: KnowledgeError) -> bool:
        """Take an error that a look met; when the server is back, tell whether to go on."""
        if not passing(error):
            self.fail_run(error, blind=True)
            return False
        self._gate.close(error)
        await self._gate.passed()
        return not self._blind

    def accepted(self, sent: UploadedDocument) -> None:
        """Take a document that the server has."""
        self._count_accepted(sent)
        self._follow(_without_data(sent), new=sent.planned.replaces is None)

    def lost(self, planned: Planned, error: KnowledgeError) -> None:
        """Take a file whose create was not answered, or not by the API."""
        if self.halted:
            self.unknown(planned, error.summary)
        else:
            self._room.lost(planned, error)

    def unknown(self, planned: Planned, reason: str) -> None:
        """Take a file that the server may have, and that is to be looked for in the next run."""
        self._ended(planned, not_sent(planned, Outcome.UNKNOWN, reason))

    def busy(self, planned: Planned) -> None:
        """Take a file whose document is being indexed."""
        if self.halted:
            self.pend(planned, NOT_SENT)
        else:
            self._room.look(planned)

    async def adopt(self, planned: Planned, document: Document) -> None:
        """Take a document of ours whose create was not answered."""
        sent = _found(planned, document)
        self._sending.uploader.accepted(sent)
        if planned.row is not None and not planned.same:
            # What an earlier run sent has landed, and the file has changed since.
            self._room.look(
                evolve(planned, row=None, replaces=RemoteDocument.of(document), attempts=0)
            )
            return
        self._backlog.take(sent=True)
        self._count_accepted(sent)
        self._follow(_without_data(sent), new=not sent.updated)

    def leave(self, planned: Planned, document: Document) -> None:
        """Take a file whose name somebody else's document has got."""
        self.journal.end(planned.found.key, State.WAITING)
        planned = evolve(planned, replaces=RemoteDocument.of(document))
        self._ended(planned, left(planned, self.options.on_existing))

    def refuse(self, planned: Planned, reason: str) -> None:
        """Take a file that cannot be sent."""
        self.fail(planned, reason, State.FAILED)

    def fail(self, planned: Planned, reason: str, state: State | None) -> None:
        """Take a file that failed, and what is to be remembered of it."""
        if state is not None:
            self.journal.end(planned.found.key, state, reason=reason)
        self._ended(planned, not_sent(planned, Outcome.FAILED, reason))

    def pend(self, planned: Planned, reason: str) -> None:
        """Take a file that the run stopped before."""
        if planned.attempts:
            self.journal.end(planned.found.key, State.WAITING)
        self._ended(planned, not_sent(planned, Outcome.PENDING, reason))

    def indexed(self, sent: UploadedDocument, result: ItemResult) -> None:
        """Take a document that was followed to its end."""
        self._make_room(sent)
        error = result.error if result.outcome is Outcome.FAILED else None
        # What an earlier run sent may have failed of what is mended since.
        old = error is not None and sent.planned.do is Do.FOLLOW
        misconfigured = None if old else self._backlog.canary.end(error)
        if error is not None and self._recreates(sent, error):
            pass
        elif result.outcome not in GOOD:
            state = State.ACCEPTED if result.outcome is Outcome.STALLED else State.FAILED
            self.journal.end(result.key, state, reason=result.reason)
            self._ended(sent.planned, result)
        elif sent.planned.metadata:
            self._labeller.add(sent, result)
        else:
            self.ready(sent, result, "")
        if misconfigured is not None:
            self.stop(StopReason.MISCONFIGURED, misconfigured, blind=True)

    def ready(self, sent: UploadedDocument, result: ItemResult, labels: str) -> None:
        """Take a document with which everything was done."""
        row = sent.planned.row
        state = State.DONE if self.options.follows else State.ACCEPTED
        if sent.planned.do is Do.LABEL and row is not None:
            state = row.state
        self.journal.end(result.key, state, labels=labels)
        self._ended(sent.planned, result)

    @asynccontextmanager
    async def _company(self) -> AsyncIterator[None]:
        """Run what accompanies the sending, and end it with that."""
        async with anyio.create_task_group() as company:
            company.start_soon(self._watch)
            company.start_soon(self._room.run)
            company.start_soon(self._gate.run)
            company.start_soon(self._labeller.run)
            company.start_soon(self._sending.drain)
            if self.options.deadline is not None:
                company.start_soon(self._end_after, self.options.deadline)
            yield
            company.cancel_scope.cancel()

    async def _end_after(self, deadline: float) -> None:
        await anyio.sleep(deadline)
        self.stop(StopReason.DEADLINE, f"{deadline:g} s were over", blind=True)

    async def _watch(self) -> None:
        await self.watcher.run()
        self.stop(StopReason.NOT_INDEXING, NOT_MOVING, blind=True)

    def _back(self) -> None:
        self.server.admission.reopen()
        self._tell()

    def _give_up(self, error: KnowledgeError) -> None:
        self.fail_run(error, blind=True)

    @property
    def _rule(self) -> ProcessRule | Unset:
        """The rule that goes with the first document: a base without any must be told one."""
        automatic = UNSET if self.dataset.document_count else ProcessRule.automatic()
        return self.options.process_rule or automatic

    def _count_accepted(self, sent: UploadedDocument) -> None:
        self.tally.bytes += sent.planned.found.size
        self._accepted += 1
        self._line.done(sent.planned)

    def _follow(self, sent: UploadedDocument, *, new: bool) -> None:
        """Follow a document that the server has, or end it here."""
        if self.options.follows and not self._blind:
            self.watcher.add(sent, new=new)
            self._tell()
            return
        self.watcher.note(new=new)
        self._make_room(sent)
        if self.options.follows:
            self._ended(sent.planned, sent.ended(Outcome.PENDING, reason=NOT_SEEN))
        elif sent.planned.metadata:
            self._labeller.add(sent, sent.ended(sent.done))
        else:
            self._ended(sent.planned, sent.ended(sent.done))

    def _make_room(self, sent: UploadedDocument) -> None:
        """Let another file be sent in place of a document that is followed no more."""
        self._backlog.leave(sent=sent.planned.do is not Do.FOLLOW)

    def _recreates(self, sent: UploadedDocument, error: str) -> bool:
        """Send a document again whose indexing failed for a passing reason."""
        planned, times = sent.planned, self.server.policy.loading
        at_hand = planned.found.path is not None and not self.halted
        if not at_hand or planned.recreated >= times.recreations or not transient(error):
            return False
        again = evolve(
            planned,
            row=None,
            replaces=sent.remote,
            attempts=sent.attempts,
            added=not sent.updated,
            recreated=planned.recreated + 1,
        )
        self._room.later(again, times.recreate * 2**planned.recreated)
        return True

    def _ended(self, planned: Planned, result: ItemResult) -> None:
        self._open -= 1
        self._line.done(planned)
        self.end(result)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._scanned and not self._open:
            self._line.close()

    def _count(self, result: ItemResult) -> None:
        """Tell a result that is final."""
        self.tally.add(result)
        if self.options.on_event is not None:
            self.options.on_event(result)
            self._tell()
        most = self.options.most_failures
        if most is not None and self.tally.failed > most:
            self.stop(StopReason.MAX_FAILURES, f"{self.tally.failed} files failed")

    def _tell(self) -> None:
        if self.options.on_event is not None:
            self.options.on_event(
                Progress(
                    found=self.found,
                    scanned=self._scanned,
                    to_send=self._to_send,
                    accepted=self._accepted,
                    ended=self.tally.ended,
                    failed=self.tally.bad,
                    bytes=self.tally.bytes,
                    settling=len(self._room),
                    paused=None if self._gate.error is None else self._gate.error.summary,
                    stopped=self.stopped,
                )
            )


def remembered(planned: Planned) -> UploadedDocument:
    """Take up a document that an earlier run sent."""
    row = planned.row
    if row is None or row.document_id is None:
        raise LookupError(f"nothing is remembered of {planned.found.key!r}")
    return UploadedDocument(
        planned=planned,
        attempts=row.attempts,
        document_id=row.document_id,
        batch=row.batch,
        upload_file_id=row.upload_file_id,
        seconds=0.0,
        accepted_at=anyio.current_time(),
        updated=row.previous is not None,
    )


def _found(planned: Planned, document: Document) -> UploadedDocument:
    """Take up a document that turned out to be there."""
    file = document.upload_file
    return UploadedDocument(
        planned=planned,
        attempts=planned.attempts,
        document_id=document.id,
        batch=None,
        upload_file_id=file.id if file else None,
        seconds=0.0,
        accepted_at=anyio.current_time(),
        updated=planned.before is not None,
        reconciled=True,
    )


def _without_data(sent: UploadedDocument) -> UploadedDocument:
    """Let go of an item's content, which the server has; thousands may wait to be indexed."""
    if sent.planned.found.data is None:
        return sent
    found = evolve(sent.planned.found, data=None)
    return evolve(sent, planned=evolve(sent.planned, found=found))
