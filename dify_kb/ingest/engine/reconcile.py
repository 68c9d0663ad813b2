"""Reconcile uploads whose outcome is unknown; hold files until they may be sent again.

A file whose create was not answered is looked up at growing intervals. Its document is taken over
when the server has it, and the file is sent again only once its create can no longer land: two runs
of one document at the same time leave the chunks of both (measured on 1.4.3, 1.12.1 and 1.14.2).
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve

from dify_kb.config import Loading
from dify_kb.errors import NotFoundError
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import FEW, DocumentLookup
from dify_kb.ingest.planning.plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    NAME_EXISTS,
    Do,
    OnExisting,
)
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.resources import Documents

from .lifecycle import FileLifecycle
from .stalls import LOST
from .states import FileEvent, FileState
from .tracked_file import UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.models import Document

    from .pending_uploads import PendingUpload


class Decision(enum.Enum):
    """What a look decides about a file that waits."""

    TAKE_OVER = enum.auto()
    """Its create has landed."""

    SEND = enum.auto()
    WAIT = enum.auto()
    KEEP_DISABLED = enum.auto()
    KEEP_ARCHIVED = enum.auto()
    KEEP_EXISTING = enum.auto()
    """Somebody else's document has its name, and is not to be replaced."""


def decide(  # noqa: PLR0911 -- one for each row of the table
    pending: PendingUpload,
    document: Document | None,
    now: float,
    *,
    replaces: bool = True,
    overwrites_archived: bool = False,
) -> Decision:
    """Decide about a file by the document of its name, if there is one.

    | document | a send may still land | else |
    |---|---|---|
    | none, or the one from before, not being indexed | wait | send |
    | the one from before, being indexed | wait | wait |
    | another file of the same size, by the API | take over | as the one from before |
    | another file | wait | as the one from before, or keep |
    | disabled or archived, and not ours | keep | keep |
    | the one from before, its indexing stalled in an earlier run | send | send |

    Size and origin are all that a list tells of a file's content, so that what somebody else sent
    by the API meanwhile, of the same size, is taken over too.

    Args:
        replaces: a document of somebody else is replaced, and not kept.
    """
    planned = pending.file.planned
    file = document.upload_file if document else None
    other = document is not None and (file is None or file.id != planned.before)
    if document is not None and file is not None and pending.lost and other:
        same = file.size in {None, planned.found.size}
        if same and document.created_from == "api":
            return Decision.TAKE_OVER
    if other and not replaces:
        return Decision.WAIT if now < pending.until else Decision.KEEP_EXISTING
    if document is not None and not document.enabled:
        return Decision.KEEP_DISABLED
    if document is not None and document.archived and not overwrites_archived:
        return Decision.KEEP_ARCHIVED
    if document is not None and not document.indexing_status.final:
        return Decision.SEND if planned.stuck and not other else Decision.WAIT
    if planned.stuck and document is not None and document.indexing_status == "completed":
        return Decision.TAKE_OVER
    return Decision.WAIT if now < pending.until else Decision.SEND


def _may_be_queued(pending: PendingUpload, document: Document) -> bool:
    """Return whether the server may still hold a task for a stalled document.

    It may unless others were indexed while the document stood still. A same-name create would then
    double its chunks; a task whose document is gone does nothing.
    """
    planned = pending.file.planned
    if not planned.stuck or document.indexing_status.final or planned.row is None:
        return False
    return not (planned.row.reason or "").startswith(LOST)


@define
class Reconciler:
    """Looks up the documents of files that wait, many at a time, and decides what happens."""

    lookup: DocumentLookup
    documents: Documents
    dataset_id: str
    times: Loading
    breaker: CircuitBreaker
    files: FileLifecycle
    on_existing: OnExisting
    overwrites_archived: bool
    patience: float
    """Seconds without any movement after which a file gives up on the document of its name."""

    async def run(self) -> None:
        """Look up those that are due, until cancelled.

        Raises:
            KnowledgeError: the server refused, or was given up.
        """
        while True:
            await self.files.pending.wait()
            if due := self.files.pending.due():
                await self.breaker.read(lambda due=due: self._look_up(due))  # type: ignore[misc]

    async def _look_up(self, due: Sequence[PendingUpload]) -> None:
        due = [pending for pending in due if self.files.pending.has(pending)]
        found = await self._newest(due)
        for pending in due:
            name = pending.file.planned.name
            document = found.get(name) or await self.lookup.named(name)
            if self.files.pending.has(pending):
                await self._act(pending, document)

    async def _newest(self, due: Sequence[PendingUpload]) -> Mapping[str, Document]:
        """Look for many new documents at once; the list is in the order of their creation."""
        new = [pending for pending in due if pending.file.planned.replaces is None]
        names = {pending.file.planned.name for pending in new}
        if len(names) <= FEW:
            return {}
        since = min(pending.created for pending in new)
        depth = self.files.followed.activity.added.count - since + len(self.files.pending)
        return await self.lookup.newest(names, depth)

    async def _act(self, pending: PendingUpload, document: Document | None) -> None:
        now = anyio.current_time()
        decision = decide(
            pending,
            document,
            now,
            replaces=self.on_existing == "overwrite" or pending.file.changed > 0,
            overwrites_archived=self.overwrites_archived,
        )
        if decision is Decision.SEND and self._may_land(pending, now):
            decision = Decision.WAIT
        file = pending.file
        if decision is Decision.WAIT:
            self._wait(pending, document, now)
            return
        if decision is Decision.SEND and document is not None and _may_be_queued(pending, document):
            await self._delete(document)
            document = None
        self.files.pending.remove(file)
        match decision:
            case Decision.TAKE_OVER if document is not None:
                self._take_over(pending, document)
            case Decision.KEEP_DISABLED:
                self.files.apply(file, FileEvent.KEPT, DISABLED_BY_HAND)
            case Decision.KEEP_ARCHIVED:
                self.files.apply(file, FileEvent.KEPT, ARCHIVED_BY_HAND)
            case Decision.KEEP_EXISTING:
                rejects = self.on_existing == "fail"
                event = FileEvent.REJECTED if rejects else FileEvent.KEPT
                self.files.apply(file, event, NAME_EXISTS)
            case _:
                self._send(pending, document)

    async def _delete(self, document: Document) -> None:
        with contextlib.suppress(NotFoundError):
            await self.documents.delete(self.dataset_id, document.id)

    def _may_land(self, pending: PendingUpload, now: float) -> bool:
        """Return whether Dify may hold the dataset's lock, so that a timed-out create may land.

        It may while no upload was answered since; when it ended, what waited for it lands first.
        """
        if not pending.timed_out:
            return False
        breaker = self.breaker
        if breaker.upload_answered_at > pending.since:
            return False
        if pending.since < breaker.resumed_at:
            return now < breaker.resumed_at + self.times.quarantine
        return breaker.uploads_blocked or now < pending.since + self.times.dataset_lock

    def _take_over(self, pending: PendingUpload, document: Document) -> None:
        file = pending.file
        if pending.lost and not pending.file.planned.stuck:
            self.breaker.record_landed()
        row = file.planned.row
        if row is not None and not file.planned.same and not file.planned.stuck:
            # What an earlier run sent has landed, and the file has changed since.
            replaces = RemoteDocument.of(document)
            file.planned = evolve(file.planned, row=None, replaces=replaces)
            file.attempts = 0
            self.files.apply(file, FileEvent.FOUND_OLD_VERSION)
            return
        file.document = UploadedDocument.found(document)
        file.updates = file.planned.before is not None
        self.files.apply(file, FileEvent.FOUND)

    def _send(self, pending: PendingUpload, document: Document | None) -> None:
        file = pending.file
        if pending.lost and file.lost >= self.times.sends:
            met = file.error.summary if file.error else "no answer"
            reason = f"sent {file.lost} times, and it is not on the server: {met}"
            self.files.apply(file, FileEvent.FAILED, reason)
            return
        remote = RemoteDocument.of(document) if document else None
        file.overlaps = file.overlaps or (pending.lost and not pending.crashed)
        if not file.recreated:
            file.updates = remote is not None
        file.planned = evolve(file.planned, do=Do.SEND, replaces=remote, row=None)
        self.files.apply(file, FileEvent.NOT_FOUND)

    def _wait(self, pending: PendingUpload, document: Document | None, now: float) -> None:
        status = document.indexing_status if document else ""
        if status != pending.status:
            pending = evolve(pending, status=status, since=now)
        moved_at = max(pending.since, self.files.followed.activity.moved_at)
        busy = pending.file.state is FileState.BUSY
        if busy and now - moved_at > self.patience and now >= pending.until:
            reason = f"its document stays {status}, and nothing else is indexed"
            self.files.apply(pending.file, FileEvent.STALLED, reason)
            return
        settle, looks = self.times.settle, pending.looks + 1
        wait = settle[min(looks, len(settle) - 1)]
        if now < pending.until:
            wait = min(wait, max(pending.until - now, settle[0]))
        self.files.pending.put(evolve(pending, due=now + wait, looks=looks))
