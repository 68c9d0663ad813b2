"""Reconcile uploads whose outcome is unknown; hold files until they may be sent again.

A file whose create got no response is looked up at growing intervals. If the server has its
document, the document is taken over. The file is sent again only once its create can no longer be
carried out: two concurrent indexing runs of a document leave the chunks of both (measured on 1.4.3,
1.12.1 and 1.14.2).
"""

from __future__ import annotations

import contextlib
import enum
import math
from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve

from dify_kb.config import LoadTiming
from dify_kb.errors import NotFoundError
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import MAX_NAME_QUERIES, DocumentLookup
from dify_kb.ingest.planning.file_plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    NAME_EXISTS,
    OnExisting,
    PlannedAction,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.resources import Documents
from dify_kb.transport.clock import loop_time

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent
from .stall_detector import LOST_BY_WORKER
from .tracked_file import UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from dify_kb.ingest.planning.file_plan import PlannedFile
    from dify_kb.models import Document

    from .pending_uploads import PendingUpload

T = TypeVar("T")


class ReconcileDecision(enum.Enum):
    """A decision about a pending file after a lookup."""

    TAKE_OVER = enum.auto()
    """The create was carried out; the document is followed."""

    SEND = enum.auto()
    WAIT = enum.auto()
    KEEP_DISABLED = enum.auto()
    KEEP_ARCHIVED = enum.auto()
    KEEP_EXISTING = enum.auto()
    """Another document has the same name and must not be replaced."""


def decide_next_step(  # noqa: PLR0911 -- one for each row of the table
    pending: PendingUpload,
    document: Document | None,
    now: float,
    *,
    replaces: bool = True,
    overwrites_archived: bool = False,
) -> ReconcileDecision:
    """Return the decision about a file by the document with its name: the first matching row.

    | document | a send may still be carried out | otherwise |
    |---|---|---|
    | another upload, by the API, with the size of the lost file | take over | take over |
    | stalled in an earlier run, completed now, file unchanged | take over | take over |
    | none | wait | send |
    | another upload, not to be replaced | wait | keep existing |
    | disabled | wait | keep disabled |
    | archived, not to be overwritten | wait | keep archived |
    | stalled in an earlier run | wait | send |
    | being indexed | wait | wait |
    | any other | wait | send |

    Lists contain only the size and origin of a file. A document of the same size that another
    client created by the API at that time is therefore taken over as well.

    Args:
        now: time when the lookup began.
        replaces: replace documents of other clients.
        overwrites_archived: replace archived documents.
    """
    planned = pending.file.planned
    file = document.upload_file if document else None
    other = document is not None and (file is None or file.id != planned.previous_upload_id)
    if pending.lost and other and document is not None and _matches_upload(planned, document):
        return ReconcileDecision.TAKE_OVER
    if document is not None and not other and _has_recovered(planned, document):
        return ReconcileDecision.TAKE_OVER
    if now < pending.until:
        return ReconcileDecision.WAIT
    if document is None:
        return ReconcileDecision.SEND
    if other and not replaces:
        return ReconcileDecision.KEEP_EXISTING
    if not document.enabled:
        return ReconcileDecision.KEEP_DISABLED
    if document.is_archived and not overwrites_archived:
        return ReconcileDecision.KEEP_ARCHIVED
    sends = document.indexing_status.is_final or (planned.has_stalled and not other)
    return ReconcileDecision.SEND if sends else ReconcileDecision.WAIT


def _matches_upload(planned: PlannedFile, document: Document) -> bool:
    file = document.upload_file
    same_size = file is not None and file.size in {None, planned.sent_size}
    return same_size and document.created_from in {None, "api"}


def _has_recovered(planned: PlannedFile, document: Document) -> bool:
    """Return whether a document that stalled in an earlier run has the same file and is indexed."""
    stalled = planned.has_stalled and planned.row is not None and planned.is_unchanged
    return stalled and document.indexing_status == "completed"


def _may_be_queued(pending: PendingUpload, document: Document) -> bool:
    """Return whether the server may still run the task of a stalled document.

    In that case a create with the same name could duplicate its chunks, so that the document is
    deleted first: the task of a deleted document has no effect.
    """
    planned, file = pending.file.planned, document.upload_file
    if document.indexing_status.is_final:
        return False
    stalled = planned.row if file is not None and file.id == planned.previous_upload_id else None
    return stalled is None or not (stalled.reason or "").startswith(LOST_BY_WORKER)


@define
class Reconciler:
    """Worker that looks up the documents of pending files and decides how each file continues."""

    lookup: DocumentLookup
    documents: Documents
    dataset_id: str
    times: LoadTiming
    breaker: CircuitBreaker
    files: FileLifecycle
    on_existing: OnExisting
    overwrites_archived: bool
    retries_stalled: bool
    """Whether a stalled document is created again."""

    patience: float
    """Seconds without any progress after which a document that is being indexed has stalled."""

    _stalled_at: float = -math.inf
    """Time when documents were last found to be stalled. Documents created again then make
    progress, but the other documents remain stalled."""

    async def run(self) -> None:
        """Look up due files until cancelled.

        Raises:
            KnowledgeError: the server refused a request, or the load gave up on it.
        """
        while True:
            await self.files.pending.wait()
            await self._look_up(self.files.pending.pop_due())

    async def _look_up(self, due: Sequence[PendingUpload]) -> None:
        listed, listed_at = await self._list_newest(due)
        for pending in due:
            if not self.files.pending.has(pending):
                continue
            name, requested_at = pending.file.planned.name, listed_at
            document = listed.get(name)
            if document is None:
                document, requested_at = await self._read(lambda name=name: self.lookup.find(name))  # type: ignore[misc]
            if self.files.pending.has(pending):
                await self._apply_decision(pending, document, requested_at)

    async def _list_newest(
        self, due: Sequence[PendingUpload]
    ) -> tuple[Mapping[str, Document], float]:
        """Look up many new documents by listing the newest documents of the dataset."""
        new = [pending for pending in due if pending.file.planned.replaces is None]
        names = {pending.file.planned.name for pending in new}
        if len(names) <= MAX_NAME_QUERIES:
            return {}, 0.0
        since = min(pending.created for pending in new)
        depth = self.files.followed.activity.added.count - since + len(names)
        return await self._read(lambda: self.lookup.find_newest(names, depth))

    async def _read(self, request: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """Repeat a read until it succeeds; return the response and the start time of that attempt.

        A document stored after that time may be missing from the response.
        """

        async def attempt() -> tuple[T, float]:
            began = loop_time()
            return await request(), began

        return await self.breaker.read(attempt)

    async def _apply_decision(
        self, pending: PendingUpload, document: Document | None, requested_at: float
    ) -> None:
        decision = self._decide(pending, document, requested_at)
        if decision is ReconcileDecision.WAIT:
            seen = self._with_status(pending, document)
            if document is None or not self._has_stalled(seen, document):
                self._wait(seen)
                return
            if not self.retries_stalled or self._may_be_stored_later(pending, requested_at):
                reason = (
                    f"no progress (status {str(document.indexing_status)!r}), and no other document"
                    " made progress"
                )
                self.files.pending.remove(pending.file)
                self.files.apply(pending.file, FileEvent.STALLED, reason)
                return
            decision = ReconcileDecision.SEND
        if (
            decision is ReconcileDecision.SEND
            and document is not None
            and _may_be_queued(pending, document)
        ):
            await self._delete(document)
            document = None
            if not self.files.pending.has(pending):
                return  # the run has stopped
        self.files.pending.remove(pending.file)
        self._carry_out(decision, pending, document)

    def _decide(
        self, pending: PendingUpload, document: Document | None, requested_at: float
    ) -> ReconcileDecision:
        decision = decide_next_step(
            pending,
            document,
            requested_at,
            replaces=self.on_existing == "overwrite" or pending.file.changed > 0,
            overwrites_archived=self.overwrites_archived,
        )
        if decision is not ReconcileDecision.TAKE_OVER and self._may_be_stored_later(
            pending, requested_at
        ):
            return ReconcileDecision.WAIT
        return decision

    def _carry_out(
        self, decision: ReconcileDecision, pending: PendingUpload, document: Document | None
    ) -> None:
        file = pending.file
        match decision:
            case ReconcileDecision.TAKE_OVER if document is not None:
                self._take_over(pending, document)
            case ReconcileDecision.KEEP_DISABLED:
                self.files.apply(file, FileEvent.KEPT, DISABLED_BY_HAND)
            case ReconcileDecision.KEEP_ARCHIVED:
                self.files.apply(file, FileEvent.KEPT, ARCHIVED_BY_HAND)
            case ReconcileDecision.KEEP_EXISTING:
                rejects = self.on_existing == "fail"
                event = FileEvent.REJECTED if rejects else FileEvent.KEPT
                self.files.apply(file, event, NAME_EXISTS)
            case _:
                self._send(pending, document)

    async def _delete(self, document: Document) -> None:
        async def delete() -> None:
            with contextlib.suppress(NotFoundError):
                await self.documents.delete(self.dataset_id, document.id)

        await self._read(delete)

    def _may_be_stored_later(self, pending: PendingUpload, requested_at: float) -> bool:
        """Return whether a timed-out create may still be carried out: Dify may lock the dataset.

        | since the send timed out | a lookup is conclusive if it began |
        |---|---|
        | uploads were blocked, and resumed | `late_create_after_disconnect` after that |
        | an upload succeeded | after that |
        | neither, and uploads are blocked | never |
        | neither | `dataset_lock_time` after the timeout |
        """
        breaker, since = self.breaker, pending.since
        if not pending.timed_out:
            return False
        if since < breaker.resumed_at:
            return requested_at < breaker.resumed_at + self.times.late_create_after_disconnect
        if since < breaker.upload_succeeded_at:
            return requested_at < breaker.upload_succeeded_at
        return breaker.has_blocked_uploads or requested_at < since + self.times.dataset_lock_time

    def _take_over(self, pending: PendingUpload, document: Document) -> None:
        file, planned = pending.file, pending.file.planned
        if pending.lost and file.lost:
            self.breaker.record_stored_upload()
        if pending.lost and planned.row is not None and not planned.is_unchanged:
            # The upload of an earlier run was stored, and the file has changed since.
            remote = RemoteDocument.from_document(document)
            file.planned = evolve(planned, row=None, replaces=remote)
            file.attempts = 0
            self.files.apply(file, FileEvent.FOUND_OLD_VERSION)
            return
        remembered = (
            planned.has_stalled and planned.row is not None
        )  # otherwise it was created again
        file.document = UploadedDocument.from_document(document, remembered=remembered)
        if planned.row is not None:
            file.updates = planned.row.previous is not None
        self.files.apply(file, FileEvent.FOUND)

    def _send(self, pending: PendingUpload, document: Document | None) -> None:
        file = pending.file
        if pending.lost and file.lost >= self.times.max_sends:
            last_error = file.error.summary if file.error else "no response"
            file.failure = f"not found on the server after {file.lost} uploads: {last_error}"
            self.files.apply(file, FileEvent.REFUSED)
            return
        remote = RemoteDocument.from_document(document) if document else None
        file.overlaps = file.overlaps or (pending.lost and not pending.crashed)
        if not (file.recreated or file.changed):  # otherwise the document is from this run
            file.updates = remote is not None
        file.planned = evolve(file.planned, action=PlannedAction.SEND, replaces=remote, row=None)
        self.files.apply(file, FileEvent.NOT_FOUND)

    def _with_status(self, pending: PendingUpload, document: Document | None) -> PendingUpload:
        """Return the entry with the current status of the document."""
        status = str(document.indexing_status) if document else ""
        if status == pending.status:
            return pending
        return evolve(pending, status=status, status_since=loop_time())

    def _has_stalled(self, pending: PendingUpload, document: Document) -> bool:
        """Return whether neither the document nor any other document made progress for too long."""
        now = loop_time()
        if document.indexing_status.is_final or now < pending.until:
            return False
        if now - self.files.followed.activity.last_progress_at > self.patience:
            self._stalled_at = now
        return self._stalled_at - pending.status_since > self.patience

    def _wait(self, pending: PendingUpload) -> None:
        now = loop_time()
        intervals, lookup_count = self.times.lookup_intervals, pending.lookups + 1
        wait = intervals[min(lookup_count, len(intervals) - 1)]
        if now < pending.until:
            wait = min(wait, max(pending.until - now, intervals[0]))
        self.files.pending.put(evolve(pending, due=now + wait, lookups=lookup_count))
