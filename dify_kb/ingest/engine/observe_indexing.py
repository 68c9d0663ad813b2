"""Observe rows and statuses of followed documents, and tell what they mean for their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve

from dify_kb.config import Loading
from dify_kb.ingest.error_classes import is_transient_indexing_error
from dify_kb.ingest.planning.plan import Do
from dify_kb.ingest.report import StopReason
from dify_kb.models import DisplayStatus, Document, DocumentStatus, IndexingStatus

from .lifecycle import FileLifecycle
from .states import FileEvent

if TYPE_CHECKING:
    from .followed_documents import FollowedDocument

MISSES = 2
"""Looks that do not find a document, though its batch is gone, before it counts as gone."""

OTHERS = 3
"""Looks that show another file than ours before it counts as another upload."""

NOTHING = "indexed, but no text was extracted from it: nothing of it can be found"
GONE = "deleted, or replaced by another upload, before it was indexed"
REPLACED = "another upload of the same length took its place while it was indexed"


@define
class IndexingObserver:
    """Turns what a look showed of a document into an event of its file."""

    loading: Loading
    files: FileLifecycle

    def miss(self, followed: FollowedDocument) -> None:
        """Take in that neither its batch nor its name finds a document."""
        followed.missed += 1
        if followed.missed >= MISSES:
            self.end(followed, FileEvent.FAILED, GONE)

    def see_row(self, followed: FollowedDocument, row: Document) -> None:
        """Take in a row of the list."""
        followed.seen_at = anyio.current_time()
        mine, theirs = followed.document.upload_file_id, row.upload_file
        if mine and theirs and theirs.id != mine:
            self._see_other(followed, row)
            return
        followed.missed = 0
        paused = row.display_status is DisplayStatus.PAUSED
        self._move(followed, IndexingStatus.PAUSED if paused else row.indexing_status)
        match row.indexing_status:
            case IndexingStatus.COMPLETED if row.word_count == 0:
                self._fail(followed, NOTHING)
            case IndexingStatus.COMPLETED if followed.file.overlaps:
                followed.to_confirm = followed.document.batch is not None
                if not followed.to_confirm:
                    self._confirm(followed)
            case IndexingStatus.COMPLETED:
                self._succeed(followed)
            case IndexingStatus.ERROR:
                self._fail_indexing(followed, row.error)

    def _see_other(self, followed: FollowedDocument, row: Document) -> None:
        """Judge a document that has another file than ours.

        A page from before our create tells of the old one, so one look is no proof.
        """
        followed.missed += 1
        if followed.missed < OTHERS or not row.indexing_status.final:
            return
        if row.upload_file and row.upload_file.size == followed.file.planned.found.size:
            followed.file.warnings = (REPLACED,)
            followed.document = evolve(followed.document, upload_file_id=None)
            self.see_row(followed, row)
        else:
            self.end(followed, FileEvent.FAILED, "another upload took its place meanwhile")

    def see_status(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Take in the status of its batch, which counts its segments."""
        followed.missed = 0
        self._move(followed, status.indexing_status)
        known, followed.segments = followed.segments, status.completed_segments
        if known != followed.segments and not (known is None and followed.document.remembered):
            followed.since = self.files.followed.activity.moved_at = anyio.current_time()
        match status.indexing_status:
            case IndexingStatus.COMPLETED if status.total_segments == 0:
                self._fail(followed, NOTHING)
            case IndexingStatus.COMPLETED if followed.file.overlaps:
                if status.completed_segments == status.total_segments:
                    self._confirm(followed)
            case IndexingStatus.COMPLETED:
                self._succeed(followed)
            case IndexingStatus.ERROR:
                self._fail_indexing(followed, status.error)

    def _move(self, followed: FollowedDocument, status: str) -> None:
        """Take in a status; only one that it did not have before is a movement.

        Of a paused document its batch and the list tell different ones, turn by turn.
        """
        followed.status = status
        if status != IndexingStatus.COMPLETED:
            followed.completed_at = None
        if status not in followed.statuses:
            first = not followed.statuses
            followed.statuses.add(status)
            followed.since = anyio.current_time()
            # A document of an earlier run that is seen for the first time has not moved.
            if not (first and followed.document.remembered):
                self.files.followed.activity.move()

    def _confirm(self, followed: FollowedDocument) -> None:
        """End a document of which two runs may overlap, once it stays completed.

        The first run's end is shown and then withdrawn (measured on 1.14.2).
        """
        now = anyio.current_time()
        if followed.completed_at is None:
            followed.completed_at = now
        elif now - followed.completed_at >= self.loading.confirm:
            self._succeed(followed)

    def _succeed(self, followed: FollowedDocument) -> None:
        document = followed.document
        self.files.followed.activity.record_indexed(
            -1.0 if document.remembered else document.accepted_at
        )
        if followed.file.is_new_document:
            self.files.followed.activity.record_newest(document.queued_at)
        self.end(followed, FileEvent.INDEXED, None)
        self._count_end(followed, None)

    def _fail_indexing(self, followed: FollowedDocument, error: str | None) -> None:
        told = error or "the server gives no reason"
        self._fail(followed, f"indexing failed: {told}", error)

    def _fail(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        file, planned = followed.file, followed.file.planned
        at_hand = planned.found.path is not None and not self.files.stopping.requested
        left = file.recreated < self.loading.recreations
        if error is not None and at_hand and left and is_transient_indexing_error(error):
            file.planned = evolve(planned, row=None, replaces=followed.document.as_failed)
            self.end(followed, FileEvent.FAILED_FOR_NOW, None)
        elif file.updates and self.files.swaps:
            file.failure = f"its replacement failed, the old version is kept: {reason}"
            self.end(followed, FileEvent.SWAP_FAILED, file.failure)
        elif file.updates:
            told = f"document {followed.document.id} is empty now: its replacement failed: {reason}"
            self.end(followed, FileEvent.REPLACEMENT_FAILED, told, error)
        else:
            self.end(followed, FileEvent.FAILED, reason, error)
        self._count_end(followed, error)

    def _count_end(self, followed: FollowedDocument, error: str | None) -> None:
        """Stop the run if the server rejects whatever it indexes."""
        # What an earlier run sent may have failed of what was mended since.
        old = error is not None and followed.file.planned.do is Do.FOLLOW
        reason = None if old else self.files.backlog.early_failures.end(error)
        if reason is not None:
            self.files.stop(StopReason.MISCONFIGURED, reason, abandon=True)

    def end(
        self,
        followed: FollowedDocument,
        event: FileEvent,
        reason: str | None,
        error: str | None = None,
    ) -> None:
        """End the following of a document, whose file goes on by `event`."""
        if self.files.followed.get(followed.document.id) is not followed:
            return  # it ended meanwhile
        followed.file.document = followed.document
        self.files.followed.remove(followed.file)
        followed.file.index_seconds = anyio.current_time() - followed.document.accepted_at
        self.files.apply(followed.file, event, reason, error=error or "")
