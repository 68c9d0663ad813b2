"""Apply events to files: look up the transition, record it, carry out its effect.

Every state change of a file goes through `FileLifecycle.apply`. Its effect is an entry in a passive
collection (`UploadQueue`, `PendingUploads`, `FollowedDocuments`, `FileQueue`), from which the tasks
of the run take their work.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.config import LoadTiming
from dify_kb.errors import ApiError, KnowledgeError
from dify_kb.ingest.error_classification import (
    SAME_PAGES,
    SAME_REFUSALS,
    is_from_other_server,
    is_transient,
    refusal_signature,
    stop_message,
    stop_reason,
)
from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.pacing.indexing_backlog import IndexingBacklog
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.report import ItemResult, Outcome, StopReason

from .file_queues import FileQueue, UploadQueue
from .file_states import Effect, FileEvent, FileState, TransitionOutcome, find_transition
from .followed_documents import FollowedDocuments
from .ledger import Ledger, RunStop
from .pending_uploads import PendingUploads
from .tracked_file import TrackedFile

if TYPE_CHECKING:
    from collections.abc import Iterable


@define
class HeldRefusals:
    """Files whose uploads were refused since the last accepted upload, grouped by message."""

    _held: defaultdict[str, list[TrackedFile]] = field(factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def add(self, file: TrackedFile, error: KnowledgeError) -> bool:
        """Add a refused file; return whether its refusal is so frequent that the run must stop."""
        same_refusals = self._held[refusal_signature(error)]
        same_refusals.append(file)
        return len(same_refusals) >= (SAME_PAGES if is_from_other_server(error) else SAME_REFUSALS)

    def release(self) -> list[TrackedFile]:
        """Remove and return all files."""
        held = [file for same_refusals in self._held.values() for file in same_refusals]
        self._held.clear()
        return held


NOT_SENT = "not sent before the run stopped"
NOT_LOOKED_UP = "sent by an earlier run; its document was not looked up before the run stopped"
NOT_INDEXED = "uploaded; not known to be indexed before the run stopped"
NO_METADATA = "indexed; its metadata was not set before the run stopped"
_STOPPED_AT = {
    FileState.ACCEPTED: NOT_INDEXED,
    FileState.REPLACING: NOT_INDEXED,
    FileState.INDEXED: NO_METADATA,
}

_IN_BACKLOG = frozenset({FileState.SENDING, FileState.ACCEPTED})
_HELD = frozenset({FileState.REFUSED, FileState.POSTPONED})
"""States that are resolved once no other file is open."""

_FIRST_EVENT = {
    PlannedAction.SEND: FileEvent.SEND,
    PlannedAction.LOOK_UP: FileEvent.LOOK_UP,
    PlannedAction.FOLLOW: FileEvent.FOLLOW,
    PlannedAction.ASSIGN_METADATA: FileEvent.ASSIGN_METADATA,
}


@define(kw_only=True, eq=False)
class FileLifecycle:
    """State machine of the files of a run, with the collections that contain the files."""

    ledger: Ledger
    stopping: RunStop
    times: LoadTiming
    follows: bool
    swaps: bool
    backlog: IndexingBacklog
    followed: FollowedDocuments
    pending: PendingUploads
    queue: UploadQueue = field(factory=UploadQueue)
    metadata: FileQueue = field(factory=FileQueue)
    replacements: FileQueue = field(factory=FileQueue)
    refusals: HeldRefusals = field(factory=HeldRefusals)
    _postponed: list[TrackedFile] = field(factory=list)
    _all_ended: anyio.Event = field(factory=anyio.Event)

    async def start(self, planned: PlannedFile) -> None:
        """Start a planned file, once the queue has space for it."""
        if planned.action is PlannedAction.SEND and not self.stopping.is_requested:
            await self.queue.wait_for_space(len(planned.found.data or b""))
        file = TrackedFile.from_plan(planned)
        self.ledger.record_planned(file, sends=planned.action is not PlannedAction.ASSIGN_METADATA)
        if self.stopping.is_requested:
            self.apply(file, FileEvent.HALTED, NOT_SENT)
            return
        event = _FIRST_EVENT[planned.action]
        lost = planned.row is not None and planned.row.state is JournalState.SENDING
        if event is FileEvent.LOOK_UP and lost:
            event = FileEvent.LOOK_UP_LOST
        self.apply(file, event)

    def apply(
        self, file: TrackedFile, event: FileEvent, reason: str | None = None, *, error: str = ""
    ) -> None:
        """Apply an event to a file: change its state, record the state, carry out the effect.

        Args:
            reason: why the file ended.
            error: the error message of the server for a failed document.
        """
        before = file.state
        transition = find_transition(before, event)
        after = transition.state
        self.ledger.change_state(file, after)
        if file.in_backlog or after in _IN_BACKLOG:
            _count_backlog(self.backlog, file, before, after)
        if transition.journal is not None:
            self.ledger.record_row(file, transition.journal, reason)
        if transition.effect is not None:
            self._carry_out(file, transition.effect, event)
        if transition.outcome is not None:
            self._end(file, transition.outcome, reason, error)
        elif after is not before and self.stopping.is_requested:
            self._apply_stop(file)
        if after in _HELD:
            self._finish_if_all_ended()

    def record_result(self, result: ItemResult) -> None:
        """Record the result of a file that needs no action."""
        self.ledger.record_result(result)
        self._stop_over_limit()

    def finish_scan(self) -> None:
        """Record that the source has no more files."""
        self.ledger.scanned = True
        self.ledger.report_progress()
        self._finish_if_all_ended()

    def stop(self, reason: StopReason, message: str, *, abandon: bool = False) -> None:
        """Stop sending; with `abandon`, also stop following accepted documents."""
        self.stopping.request(reason, message if message.endswith(".") else f"{message}.")
        self.stopping.abandoned = self.stopping.abandoned or abandon
        for file in list(self.ledger.open):
            self._apply_stop(file)
        self.queue.clear()
        self.ledger.report_progress()
        self._finish_if_all_ended()

    def stop_for_error(self, error: KnowledgeError, *, abandon: bool = True) -> None:
        """Stop because of an error that concerns all files."""
        self.stop(stop_reason(error), stop_message(error), abandon=abandon)

    async def wait_all_ended(self) -> None:
        """Wait until every file has ended."""
        await self._all_ended.wait()

    def _carry_out(  # noqa: C901 -- one case for each effect
        self, file: TrackedFile, effect: Effect, event: FileEvent
    ) -> None:
        match effect:
            case Effect.ENQUEUE:
                self.queue.put(file, first=file.planned.is_first)
            case Effect.LOOK_UP:
                _put_pending(self.pending, file, event)
            case Effect.LOOK_UP_LATER:
                self.pending.put_later(file, self.times.recreate_delay * 2**file.recreated)
                file.recreated += 1
            case Effect.HOLD_REFUSAL:
                self._hold_refusal(file)
            case Effect.POSTPONE:
                self._postponed.append(file)
            case Effect.FOLLOW:
                if event is FileEvent.ACCEPTED and self.refusals:
                    self._release(self.refusals.release())
                self._follow(file)
            case Effect.ASSIGN_METADATA if file.needs_metadata:
                self.metadata.put(file)
            case Effect.ASSIGN_METADATA:
                self.apply(file, FileEvent.METADATA_SET)
            case Effect.FINISH_REPLACEMENT if not file.needs_finish(swaps=self.swaps):
                self.apply(file, FileEvent.REPLACED)
            case Effect.FINISH_REPLACEMENT | Effect.DELETE_NEW_VERSION:
                self.replacements.put(file)

    def _follow(self, file: TrackedFile) -> None:
        remembered = file.document is not None and file.document.remembered
        self.ledger.record_accepted(file, remembered=remembered)
        self.queue.release(file)
        file.release_content()
        self.followed.activity.added.count += file.is_new_document
        if self.follows:
            if file.sync_fields:
                self.metadata.put(file)
            self.followed.add(file)
        else:
            self.apply(file, file.indexed_event(swaps=self.swaps))

    def _hold_refusal(self, file: TrackedFile) -> None:
        error = file.error
        if error is None:  # nothing to compare with other refusals
            self._release([file])
            return
        self.queue.release(file)  # a held file must not block others: only they can resolve it
        max_failed = self.ledger.options.failure_limit
        if self.refusals.add(file, error):
            self.stop(_refusal_reason(error), file.failure or stop_message(error))
        elif (
            max_failed is not None
            and self.ledger.counts[Outcome.FAILED] + len(self.refusals) > max_failed
        ):
            self._release(self.refusals.release())

    def _release(self, refused: Iterable[TrackedFile]) -> None:
        """End files whose refusals concern only themselves."""
        for file in refused:
            error = file.error
            reason = file.failure or (error.summary if error else None)
            looked_up = file.failure is not None
            if (
                error is not None
                and is_from_other_server(error)
                and not (looked_up or _is_redirect(error))
            ):
                self.apply(file, FileEvent.LOST)
            elif error is not None and is_transient(error):
                self.apply(file, FileEvent.GIVEN_UP, reason)
            else:
                self.apply(file, FileEvent.REFUSED_FOR_ITSELF, reason)

    def _apply_stop(self, file: TrackedFile) -> None:
        event = FileEvent.ABANDONED if self.stopping.abandoned else FileEvent.HALTED
        transition = find_transition(file.state, event)
        if transition.outcome is not None:
            failure = file.failure or (file.error.summary if file.error else None)
            reason = _STOPPED_AT.get(file.state) or failure or _unsent_reason(file)
            self.apply(file, event, reason)

    def _end(
        self, file: TrackedFile, ending: TransitionOutcome, reason: str | None, error: str
    ) -> None:
        outcome = file.expected_outcome
        if ending is not TransitionOutcome.AS_PLANNED:
            outcome = Outcome(str(ending))
        self.queue.release(file)
        self.pending.remove(file)
        self.followed.remove(file)
        failed = error or reason if outcome is Outcome.FAILED else None
        self.ledger.metadata_warnings.add(file.key, file.metadata_warnings)
        self.ledger.record_result(file.result(outcome, reason, failed))
        self._stop_over_limit()
        self._finish_if_all_ended()

    def _stop_over_limit(self) -> None:
        if self.ledger.is_over_limit and not self.stopping.is_requested:
            failed = self.ledger.counts[Outcome.FAILED]
            max_failed = self.ledger.options.failure_limit
            self.stop(
                StopReason.MAX_FAILURES,
                f"Too many failures: {failed:,} (allowed: {max_failed:,})",
            )

    def _finish_if_all_ended(self) -> None:
        """Resolve held files once no other file is open; end the run once all files have ended."""
        if self.ledger.has_only_files_in(*_HELD) and not self.stopping.is_requested:
            postponed, self._postponed = self._postponed, []
            for file in postponed:
                if file.state is FileState.POSTPONED:
                    self.apply(file, FileEvent.LOOK_UP)
            if not postponed:
                self._release(self.refusals.release())
        if self.ledger.has_ended:
            self._all_ended.set()


def _count_backlog(
    backlog: IndexingBacklog, file: TrackedFile, before: FileState, after: FileState
) -> None:
    """Update the number of documents that are on the server and not indexed."""
    if after is FileState.SENDING and before is FileState.QUEUED:
        file.in_backlog = "sent"  # counted by `UploadWorkers` before the send
    elif after is FileState.ACCEPTED and file.in_backlog is None:
        remembered = file.document is not None and file.document.remembered
        backlog.add(sent=not remembered)
        file.in_backlog = "before" if remembered else "sent"
    elif file.in_backlog is not None and after not in _IN_BACKLOG:
        backlog.release(sent=file.in_backlog == "sent")
        file.in_backlog = None


def _put_pending(pending: PendingUploads, file: TrackedFile, event: FileEvent) -> None:
    match event:
        case FileEvent.LOST:
            pending.put_lost(file)
        case FileEvent.DOCUMENT_BUSY:
            intervals = pending.times.lookup_intervals
            pending.put_later(file, intervals[min(file.attempts, len(intervals)) - 1])
        case _:
            pending.put_busy(file, lost=event is FileEvent.LOOK_UP_LOST)


def _unsent_reason(file: TrackedFile) -> str:
    return NOT_LOOKED_UP if file.state is FileState.UNKNOWN else NOT_SENT


def _refusal_reason(error: KnowledgeError) -> StopReason:
    """Return the stop reason of a run whose uploads are all refused while probes succeed."""
    if is_transient(error):
        return StopReason.OUTAGE
    by_api = isinstance(error, ApiError) and error.server_version is not None
    unauthorized = by_api and stop_reason(error) is StopReason.UNAUTHORIZED
    return StopReason.UNAUTHORIZED if unauthorized else StopReason.MISCONFIGURED


def _is_redirect(error: KnowledgeError) -> bool:
    return getattr(error, "status", 200) >= 300  # noqa: PLR2004 -- HTTP
