"""Reconcile uploads whose outcome is unknown; hold files until they may be sent again.

A file whose create was not answered is looked up at growing intervals. Its document is taken over
if the server has it. The file is sent again only once its create can no longer land: two indexing
runs of one document at a time leave the chunks of both (measured on 1.4.3, 1.12.1 and 1.14.2).
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
    """What is done with a pending file after a lookup."""

    TAKE_OVER = enum.auto()
    """Its create has landed."""

    SEND = enum.auto()
    WAIT = enum.auto()
    KEEP_DISABLED = enum.auto()
    KEEP_ARCHIVED = enum.auto()
    KEEP_EXISTING = enum.auto()
    """Somebody else's document has its name and is not to be replaced."""


def decide(  # noqa: PLR0911 -- one for each row of the table
    pending: PendingUpload,
    document: Document | None,
    now: float,
    *,
    replaces: bool = True,
    overwrites_archived: bool = False,
) -> ReconcileDecision:
    """Decide about a file by the document of its name. The first row that applies counts.

    | document | a send may still land | else |
    |---|---|---|
    | another file, by the API, of the size that was lost | take over | take over |
    | stalled in an earlier run, completed now, file unchanged | take over | take over |
    | none | wait | send |
    | another file, not to be replaced | wait | keep existing |
    | disabled | wait | keep disabled |
    | archived, not to be overwritten | wait | keep archived |
    | stalled in an earlier run | wait | send |
    | being indexed | wait | wait |
    | any other | wait | send |

    Lists tell only size and origin of a file's content. A document of the same size that somebody
    else created by the API meanwhile is taken over too.

    Args:
        now: the time at which the lookup began.
        replaces: replace a document of somebody else.
        overwrites_archived: replace an archived document.
    """
    planned = pending.file.planned
    file = document.upload_file if document else None
    other = document is not None and (file is None or file.id != planned.previous_upload_id)
    if pending.lost and other and document is not None and _is_what_was_sent(planned, document):
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
    if document.archived and not overwrites_archived:
        return ReconcileDecision.KEEP_ARCHIVED
    sends = document.indexing_status.is_final or (planned.has_stalled and not other)
    return ReconcileDecision.SEND if sends else ReconcileDecision.WAIT


def _is_what_was_sent(planned: PlannedFile, document: Document) -> bool:
    file = document.upload_file
    size = planned.row.size if planned.row else planned.found.size
    return file is not None and file.size in {None, size} and document.created_from == "api"


def _has_recovered(planned: PlannedFile, document: Document) -> bool:
    """Return whether a document that stalled in an earlier run is the file, and indexed now."""
    stalled = planned.has_stalled and planned.row is not None and planned.is_unchanged
    return stalled and document.indexing_status == "completed"


def _may_be_queued(pending: PendingUpload, document: Document) -> bool:
    """Return whether the server may still run a task of a document that stood still.

    Unless others were indexed meanwhile, a same-name create could double its chunks. The task of a
    deleted document does nothing.
    """
    planned, file = pending.file.planned, document.upload_file
    if document.indexing_status.is_final:
        return False
    stalled = planned.row if file is not None and file.id == planned.previous_upload_id else None
    return stalled is None or not (stalled.reason or "").startswith(LOST_BY_WORKER)


@define
class Reconciler:
    """Looks up the documents of pending files, and applies what that decides."""

    lookup: DocumentLookup
    documents: Documents
    dataset_id: str
    times: LoadTiming
    breaker: CircuitBreaker
    files: FileLifecycle
    on_existing: OnExisting
    overwrites_archived: bool
    retries_stalled: bool
    """Whether a document that stands still is created again."""

    patience: float
    """Seconds without any movement after which a document that is being indexed has stalled."""

    _still_at: float = -math.inf
    """When documents stood still last. What is created again then moves; the others still stood."""

    async def run(self) -> None:
        """Look up those that are due, until cancelled.

        Raises:
            KnowledgeError: the server refused, or was given up.
        """
        while True:
            await self.files.pending.wait()
            await self._look_up(self.files.pending.pop_due())

    async def _look_up(self, due: Sequence[PendingUpload]) -> None:
        listed, listed_at = await self._list_newest(due)
        for pending in due:
            if not self.files.pending.has(pending):
                continue
            name, asked_at = pending.file.planned.name, listed_at
            document = listed.get(name)
            if document is None:
                document, asked_at = await self._read(lambda name=name: self.lookup.find(name))  # type: ignore[misc]
            if self.files.pending.has(pending):
                await self._apply_decision(pending, document, asked_at)

    async def _list_newest(
        self, due: Sequence[PendingUpload]
    ) -> tuple[Mapping[str, Document], float]:
        """Look for many new documents at once; the list is in the order of their creation."""
        new = [pending for pending in due if pending.file.planned.replaces is None]
        names = {pending.file.planned.name for pending in new}
        if len(names) <= MAX_NAME_QUERIES:
            return {}, 0.0
        since = min(pending.created for pending in new)
        depth = self.files.followed.activity.added.count - since + len(names)
        return await self._read(lambda: self.lookup.find_newest(names, depth))

    async def _read(self, request: Callable[[], Awaitable[T]]) -> tuple[T, float]:
        """Repeat a read until it is answered; return the answer and when that attempt began.

        What lands between the beginning of a lookup and its answer may not be in the answer.
        """

        async def attempt() -> tuple[T, float]:
            began = loop_time()
            return await request(), began

        return await self.breaker.read(attempt)

    async def _apply_decision(
        self, pending: PendingUpload, document: Document | None, asked_at: float
    ) -> None:
        decision = self._decide(pending, document, asked_at)
        if decision is ReconcileDecision.WAIT:
            seen = self._with_status(pending, document)
            if document is None or not self._has_stalled(seen, document):
                self._wait(seen)
                return
            if not self.retries_stalled or self._may_be_stored_later(pending, asked_at):
                reason = f"its document stayed {document.indexing_status}, and nothing else moves"
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
                return  # the run stopped meanwhile
        self.files.pending.remove(pending.file)
        self._carry_out(decision, pending, document)

    def _decide(
        self, pending: PendingUpload, document: Document | None, asked_at: float
    ) -> ReconcileDecision:
        decision = decide(
            pending,
            document,
            asked_at,
            replaces=self.on_existing == "overwrite" or pending.file.changed > 0,
            overwrites_archived=self.overwrites_archived,
        )
        if decision is not ReconcileDecision.TAKE_OVER and self._may_be_stored_later(
            pending, asked_at
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

    def _may_be_stored_later(self, pending: PendingUpload, asked_at: float) -> bool:
        """Return whether Dify may hold the dataset's lock, so that a timed-out create may land.

        | since the send timed out | a lookup that began then finds what landed |
        |---|---|
        | uploads were blocked, and went on | `late_create_after_disconnect` after they went on |
        | an upload was answered | after the answer |
        | neither, and uploads are blocked | never |
        | neither | `dataset_lock_time` after the timeout |
        """
        breaker, since = self.breaker, pending.since
        if not pending.timed_out:
            return False
        if since < breaker.resumed_at:
            return asked_at < breaker.resumed_at + self.times.late_create_after_disconnect
        if since < breaker.upload_succeeded_at:
            return asked_at < breaker.upload_succeeded_at
        return breaker.has_blocked_uploads or asked_at < since + self.times.dataset_lock_time

    def _take_over(self, pending: PendingUpload, document: Document) -> None:
        file, planned = pending.file, pending.file.planned
        if pending.lost and file.lost:
            self.breaker.record_stored_upload()
        if pending.lost and planned.row is not None and not planned.is_unchanged:
            # What an earlier run sent has landed, and the file has changed since.
            remote = RemoteDocument.from_document(document)
            file.planned = evolve(planned, row=None, replaces=remote)
            file.attempts = 0
            self.files.apply(file, FileEvent.FOUND_OLD_VERSION)
            return
        remembered = planned.has_stalled and planned.row is not None  # else it was created again
        file.document = UploadedDocument.from_document(document, remembered=remembered)
        if planned.row is not None:
            file.updates = planned.row.previous is not None
        self.files.apply(file, FileEvent.FOUND)

    def _send(self, pending: PendingUpload, document: Document | None) -> None:
        file = pending.file
        if pending.lost and file.lost >= self.times.max_sends:
            last_error = file.error.summary if file.error else "no answer"
            file.failure = f"not found on the server after {file.lost} uploads: {last_error}"
            self.files.apply(file, FileEvent.REFUSED)
            return
        remote = RemoteDocument.from_document(document) if document else None
        file.overlaps = file.overlaps or (pending.lost and not pending.crashed)
        if not (file.recreated or file.changed):  # else the document is of this run
            file.updates = remote is not None
        file.planned = evolve(file.planned, action=PlannedAction.SEND, replaces=remote, row=None)
        self.files.apply(file, FileEvent.NOT_FOUND)

    def _with_status(self, pending: PendingUpload, document: Document | None) -> PendingUpload:
        """Return it with the status of its document, and since when that was seen."""
        status = str(document.indexing_status) if document else ""
        if status == pending.status:
            return pending
        return evolve(pending, status=status, status_since=loop_time())

    def _has_stalled(self, pending: PendingUpload, document: Document) -> bool:
        """Return whether neither its document nor any other moved for too long."""
        now = loop_time()
        if document.indexing_status.is_final or now < pending.until:
            return False
        if now - self.files.followed.activity.moved_at > self.patience:
            self._still_at = now
        return self._still_at - pending.status_since > self.patience

    def _wait(self, pending: PendingUpload) -> None:
        now = loop_time()
        settle, lookup_count = self.times.lookup_intervals, pending.lookups + 1
        wait = settle[min(lookup_count, len(settle) - 1)]
        if now < pending.until:
            wait = min(wait, max(pending.until - now, settle[0]))
        self.files.pending.put(evolve(pending, due=now + wait, lookups=lookup_count))
