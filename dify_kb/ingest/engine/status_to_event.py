"""Translate the status of followed documents to events of their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve

from dify_kb.config import LoadTiming
from dify_kb.ingest.error_classes import is_transient_indexing_error
from dify_kb.ingest.planning.file_plan import PlannedAction
from dify_kb.ingest.report import StopReason
from dify_kb.models import DisplayStatus, Document, DocumentStatus, IndexingStatus
from dify_kb.transport.clock import loop_time

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent, FileState

if TYPE_CHECKING:
    from .followed_documents import FollowedDocument
    from .tracked_file import TrackedFile

MAX_MISSES = 2
"""Polls that find neither the batch nor the name of a document before it counts as deleted."""

MAX_OTHER_UPLOADS = 3
"""Polls that show a document with a different uploaded file before it counts as replaced."""

NO_TEXT = "no text was extracted: nothing of it can be found"
DOCUMENT_DELETED = "deleted or replaced by another upload before it was indexed"
NAME_SHARED = "replaced by another file of this load: the server considers their names equal"
DOCUMENT_REPLACED = "replaced by another upload of the same size while it was indexed"

_NOT_BEGUN = frozenset({IndexingStatus.WAITING, IndexingStatus.PAUSED})


@define
class IndexingObserver:
    """Translator from observed rows and statuses to events of files."""

    loading: LoadTiming
    files: FileLifecycle

    def end_displaced(self) -> None:
        """Fail the files whose documents were replaced by those of other files."""
        for file in self.files.followed.pop_displaced():
            if file.state is FileState.ACCEPTED:
                self.files.apply(file, FileEvent.FAILED, NAME_SHARED)

    def record_missing(self, followed: FollowedDocument) -> None:
        """Record that a document was found neither by its batch nor by its name."""
        followed.count_miss(self.loading.confirm_interval)
        if followed.missed >= MAX_MISSES:
            self.finish(followed, FileEvent.FAILED, DOCUMENT_DELETED)

    def process_row(self, followed: FollowedDocument, row: Document) -> None:
        """Process a row of the list."""
        followed.seen_at = loop_time()
        batch = followed.document.batch
        own_id, listed_file = followed.document.upload_file_id, row.upload_file
        if own_id and listed_file and listed_file.id != own_id:
            if batch is None:
                self._see_other_upload(followed, row)
            else:
                followed.needs_status_request = True
            return
        followed.missed = 0
        paused = row.display_status is DisplayStatus.PAUSED
        self._record_status(followed, IndexingStatus.PAUSED if paused else row.indexing_status)
        if row.indexing_status.is_final and followed.file.overlaps and batch is not None:
            followed.needs_status_request = True
            return
        empty = row.word_count == 0
        self._see_final_status(followed, row.indexing_status, row.error, is_empty=empty)

    def process_status(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Process the status from its batch, which includes the number of segments."""
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
        """Finish a document that has stalled."""
        if followed.status != IndexingStatus.COMPLETED:
            self.finish(followed, FileEvent.STALLED, reason)
        elif self.files.swaps and followed.file.is_new_version:
            self._fail_swap(followed, reason)
        else:
            self.finish(followed, FileEvent.FAILED, reason)

    def finish(
        self,
        followed: FollowedDocument,
        event: FileEvent,
        reason: str | None,
        error: str | None = None,
    ) -> None:
        """Stop following a document, and apply `event` to its file."""
        if self.files.followed.get(followed.document.id) is not followed:
            return  # it ended meanwhile
        followed.file.document = followed.document
        self.files.followed.remove(followed.file)
        followed.file.index_seconds = loop_time() - followed.document.accepted_at
        self.files.apply(followed.file, event, reason, error=error or "")

    def _see_other_upload(self, followed: FollowedDocument, row: Document) -> None:
        """Process a row with a different uploaded file, of a document whose batch does not exist.

        One poll is not enough: a page read before the create shows the old file.
        """
        followed.count_miss(self.loading.confirm_interval)
        if followed.missed < MAX_OTHER_UPLOADS or not row.indexing_status.is_final:
            return
        if row.upload_file and row.upload_file.size == followed.file.planned.found.size:
            followed.file.warnings = (DOCUMENT_REPLACED,)
            followed.document = evolve(followed.document, upload_file_id=None)
            self.process_row(followed, row)
        else:
            self.finish(followed, FileEvent.FAILED, "replaced by another upload")

    def _record_status(self, followed: FollowedDocument, status: str) -> None:
        """Record a status; only one that the document did not have before counts as progress.

        For a paused document, its batch and the list show different statuses.
        """
        first = not followed.statuses
        followed.status = status
        if status in followed.statuses:
            return
        followed.statuses.add(status)
        followed.record_progress()
        # The first status of a document of an earlier run is not progress.
        if status not in _NOT_BEGUN and not (first and followed.document.remembered):
            self.files.followed.activity.record_progress()

    def _count_segments(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Record the number of indexed segments; a change is progress once indexing began."""
        known = followed.segments
        followed.segments = status.completed_segments
        followed.total_segments = status.total_segments
        if followed.is_waiting:  # the segments are those of the old version
            return
        if followed.counted_at is None:
            followed.counted_at = loop_time()
        elif known != followed.segments:
            followed.record_progress()
            self.files.followed.activity.record_progress()

    def _see_final_status(
        self,
        followed: FollowedDocument,
        status: IndexingStatus,
        error: str | None,
        *,
        is_empty: bool,
    ) -> None:
        if not status.is_final:
            followed.final_at = None
        elif not self._is_confirmed(followed):
            return
        elif status is IndexingStatus.ERROR:
            message = error or "no reason given by the server"
            self._fail(followed, f"indexing failed: {message}", error)
        elif is_empty:
            self._fail(followed, NO_TEXT)
        else:
            self._succeed(followed)

    def _is_confirmed(self, followed: FollowedDocument) -> bool:
        """Return whether a final status is confirmed.

        If two indexing runs of a document may overlap, the final status of the first is shown and
        then withdrawn (measured on 1.14.2), so that two polls must show it.
        """
        if not followed.file.overlaps:
            return True
        now = loop_time()
        if followed.final_at is None:
            followed.final_at = now
        return now - followed.final_at >= self.loading.confirm_interval

    def _succeed(self, followed: FollowedDocument) -> None:
        document = followed.document
        self.files.followed.activity.record_indexed(document.response_at)
        if followed.file.is_new_document and not document.reconciled:
            self.files.followed.activity.record_newest(document.queued_at)
        self.finish(followed, followed.file.indexed_event(swaps=self.files.swaps), None)
        self._count_end(followed, None)

    def _fail(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        file = followed.file
        if self.files.swaps and file.is_new_version:
            self._fail_swap(followed, reason, error)
        elif error is not None and _can_recreate(file, error, self.files, self.loading):
            replaces = followed.document.as_failed_document
            file.planned = evolve(file.planned, row=None, replaces=replaces)
            self.finish(followed, FileEvent.FAILED_FOR_NOW, None)
        elif file.updates:
            message = (
                f"document {followed.document.id} is empty now: its replacement failed: {reason}"
            )
            self.finish(followed, FileEvent.REPLACEMENT_FAILED, message, error)
        else:
            self.finish(followed, FileEvent.FAILED, reason, error)
        self._count_end(followed, error)

    def _fail_swap(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        """Fail a new version that exists beside the old document, and is deleted.

        It is not created again: with three documents of the same name, it would not be known which
        two to delete.
        """
        file = followed.file
        prefix = "its replacement failed, the old version is kept: " if file.updates else ""
        file.failure = f"{prefix}{reason}"
        self.finish(followed, FileEvent.SWAP_FAILED, file.failure, error)

    def _count_end(self, followed: FollowedDocument, error: str | None) -> None:
        """Stop the run if indexing fails for all documents."""
        # A document of an earlier run may have failed for a reason that was fixed since.
        old = error is not None and followed.file.planned.action is PlannedAction.FOLLOW
        reason = None if old else self.files.backlog.early_failures.record_end(error)
        if reason is not None:
            self.files.stop(StopReason.MISCONFIGURED, reason, abandon=True)


def _can_recreate(file: TrackedFile, error: str, files: FileLifecycle, times: LoadTiming) -> bool:
    """Return whether a document that failed with a transient error can be sent again."""
    at_hand = file.planned.found.path is not None and not files.stopping.is_requested
    return at_hand and file.recreated < times.max_recreations and is_transient_indexing_error(error)
