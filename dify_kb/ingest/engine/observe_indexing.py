"""Interpret rows and statuses of followed documents as events of their files."""

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
from .states import FileEvent, FileState

if TYPE_CHECKING:
    from .followed_documents import FollowedDocument
    from .tracked_file import TrackedFile

MAX_MISSES = 2
"""Looks that do not find a document, though its batch is gone, before it counts as gone."""

MAX_OTHER_UPLOADS = 3
"""Looks that show another file than ours before it counts as another upload."""

NO_TEXT = "indexed, but no text was extracted from it: nothing of it can be found"
GONE = "deleted, or replaced by another upload, before it was indexed"
SHARED = "another file of this load replaced its document, as the server takes their names for one"
REPLACED = "another upload of the same length took its place while it was indexed"

_NOT_BEGUN = frozenset({IndexingStatus.WAITING, IndexingStatus.PAUSED})


@define
class IndexingObserver:
    """Turns what a look showed of a document into an event of its file."""

    loading: Loading
    files: FileLifecycle

    def end_displaced(self) -> None:
        """End the files whose documents became those of other files."""
        for file in self.files.followed.take_displaced():
            if file.state is FileState.ACCEPTED:
                self.files.apply(file, FileEvent.FAILED, SHARED)

    def miss(self, followed: FollowedDocument) -> None:
        """Record that neither its batch nor its name finds a document."""
        followed.count_miss(self.loading.confirm)
        if followed.missed >= MAX_MISSES:
            self.end(followed, FileEvent.FAILED, GONE)

    def see_row(self, followed: FollowedDocument, row: Document) -> None:
        """Interpret a row of the list."""
        followed.seen_at = anyio.current_time()
        batch = followed.document.batch
        mine, theirs = followed.document.upload_file_id, row.upload_file
        if mine and theirs and theirs.id != mine:
            if batch is None:
                self._see_other_upload(followed, row)
            else:
                followed.to_ask = True
            return
        followed.missed = 0
        paused = row.display_status is DisplayStatus.PAUSED
        self._record_status(followed, IndexingStatus.PAUSED if paused else row.indexing_status)
        if row.indexing_status.final and followed.file.overlaps and batch is not None:
            followed.to_ask = True
            return
        empty = row.word_count == 0
        self._see_final_status(followed, row.indexing_status, row.error, is_empty=empty)

    def see_status(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Interpret the status of its batch, which counts its segments."""
        followed.missed = 0
        self._record_status(followed, status.indexing_status)
        self._count_segments(followed, status)
        empty, complete = status.total_segments == 0, True
        if followed.file.overlaps and status.indexing_status is IndexingStatus.COMPLETED:
            complete = status.completed_segments == status.total_segments
        if not complete:
            followed.final_at = None
            return
        self._see_final_status(followed, status.indexing_status, status.error, is_empty=empty)

    def end_stalled(self, followed: FollowedDocument, reason: str) -> None:
        """End a document that does not move any more."""
        if followed.status != IndexingStatus.COMPLETED:
            self.end(followed, FileEvent.STALLED, reason)
        elif self.files.swaps and followed.file.is_new_version:
            self._fail_swap(followed, reason)
        else:
            self.end(followed, FileEvent.FAILED, reason)

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

    def _see_other_upload(self, followed: FollowedDocument, row: Document) -> None:
        """Interpret a row that has another file than ours, of a document whose batch is gone.

        A page from before our create tells of the old one, so one look is no proof.
        """
        followed.count_miss(self.loading.confirm)
        if followed.missed < MAX_OTHER_UPLOADS or not row.indexing_status.final:
            return
        if row.upload_file and row.upload_file.size == followed.file.planned.found.size:
            followed.file.warnings = (REPLACED,)
            followed.document = evolve(followed.document, upload_file_id=None)
            self.see_row(followed, row)
        else:
            self.end(followed, FileEvent.FAILED, "another upload took its place meanwhile")

    def _record_status(self, followed: FollowedDocument, status: str) -> None:
        """Record a status; only one that it did not have before is a movement.

        Of a paused document its batch and the list tell different ones, turn by turn.
        """
        first = not followed.statuses
        followed.status = status
        if status in followed.statuses:
            return
        followed.statuses.add(status)
        followed.move()
        # A document of an earlier run that is seen for the first time has not moved.
        if status not in _NOT_BEGUN and not (first and followed.document.remembered):
            self.files.followed.activity.move()

    def _count_segments(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Record how many segments are indexed; further ones are a movement of a begun document."""
        known = followed.segments
        followed.segments = status.completed_segments
        followed.total_segments = status.total_segments
        if followed.waits:  # they are those of the version before
            return
        if followed.counted_at is None:
            followed.counted_at = anyio.current_time()
        elif known != followed.segments:
            followed.move()
            self.files.followed.activity.move()

    def _see_final_status(
        self,
        followed: FollowedDocument,
        status: IndexingStatus,
        error: str | None,
        *,
        is_empty: bool,
    ) -> None:
        if not status.final:
            followed.final_at = None
        elif not self._is_confirmed(followed):
            return
        elif status is IndexingStatus.ERROR:
            message = error or "the server gives no reason"
            self._fail(followed, f"indexing failed: {message}", error)
        elif is_empty:
            self._fail(followed, NO_TEXT)
        else:
            self._succeed(followed)

    def _is_confirmed(self, followed: FollowedDocument) -> bool:
        """Return whether a final status may be believed.

        Where two runs of a document may overlap, the first run's end is shown and then withdrawn
        (measured on 1.14.2), so that two looks must show it.
        """
        if not followed.file.overlaps:
            return True
        now = anyio.current_time()
        if followed.final_at is None:
            followed.final_at = now
        return now - followed.final_at >= self.loading.confirm

    def _succeed(self, followed: FollowedDocument) -> None:
        document = followed.document
        self.files.followed.activity.record_indexed(
            -1.0 if document.remembered else document.accepted_at
        )
        if followed.file.is_new_document:
            self.files.followed.activity.record_newest(document.queued_at)
        self.end(followed, followed.file.indexed_event(swaps=self.files.swaps), None)
        self._count_end(followed, None)

    def _fail(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        file = followed.file
        if self.files.swaps and file.is_new_version:
            self._fail_swap(followed, reason, error)
        elif error is not None and _can_recreate(file, error, self.files, self.loading):
            replaces = followed.document.as_failed
            file.planned = evolve(file.planned, row=None, replaces=replaces)
            self.end(followed, FileEvent.FAILED_FOR_NOW, None)
        elif file.updates:
            message = (
                f"document {followed.document.id} is empty now: its replacement failed: {reason}"
            )
            self.end(followed, FileEvent.REPLACEMENT_FAILED, message, error)
        else:
            self.end(followed, FileEvent.FAILED, reason, error)
        self._count_end(followed, error)

    def _fail_swap(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        """Fail a document that stands beside another of its name, and is deleted.

        It is not created again: of three documents of one name, it would not be known which two to
        delete.
        """
        file = followed.file
        kept = "its replacement failed, the old version is kept: " if file.updates else ""
        file.failure = f"{kept}{reason}"
        self.end(followed, FileEvent.SWAP_FAILED, file.failure, error)

    def _count_end(self, followed: FollowedDocument, error: str | None) -> None:
        """Stop the run if the server rejects whatever it indexes."""
        # What an earlier run sent may have failed of what was mended since.
        old = error is not None and followed.file.planned.do is Do.FOLLOW
        reason = None if old else self.files.backlog.early_failures.end(error)
        if reason is not None:
            self.files.stop(StopReason.MISCONFIGURED, reason, abandon=True)


def _can_recreate(file: TrackedFile, error: str, files: FileLifecycle, times: Loading) -> bool:
    """Return whether a document that failed for a passing reason can be sent again."""
    at_hand = file.planned.found.path is not None and not files.stopping.requested
    return at_hand and file.recreated < times.recreations and is_transient_indexing_error(error)
