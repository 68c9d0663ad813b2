"""Translate the status of followed documents into events of their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve

from dify_kb.config import LoadTiming
from dify_kb.ingest.error_classification import is_transient_indexing_error
from dify_kb.ingest.planning.file_plan import PlannedAction
from dify_kb.ingest.report import StopReason
from dify_kb.models import (
    DisplayStatus,
    Document,
    DocumentStatus,
    IndexingErrorCode,
    IndexingStatus,
)
from dify_kb.transport.clock import loop_time

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent, FileState

if TYPE_CHECKING:
    from .followed_documents import FollowedDocument
    from .tracked_file import TrackedFile

MAX_MISSES = 2
"""Number of polls that find neither batch nor name of a document before it counts as deleted."""

MAX_OTHER_UPLOADS = 3
"""Number of polls with a different uploaded file before a document counts as replaced."""

NO_TEXT = "no text was extracted, so the document cannot be retrieved"
DOCUMENT_DELETED = "deleted or replaced by another upload before indexing finished"
NAME_SHARED = "replaced by another file of this load: the server treats their names as equal"
DOCUMENT_REPLACED = "replaced by another upload of the same size during indexing"

_NOT_BEGUN = frozenset({IndexingStatus.WAITING, IndexingStatus.PAUSED})


@define
class IndexingObserver:
    """Translator of list rows and indexing statuses into events of files."""

    timing: LoadTiming
    files: FileLifecycle

    def end_displaced(self) -> None:
        """Fail the files whose documents were replaced by those of other files."""
        for file in self.files.followed.pop_displaced():
            if file.state is FileState.ACCEPTED:
                self.files.apply(file, FileEvent.FAILED, NAME_SHARED)

    def record_missing(self, followed: FollowedDocument) -> None:
        """Record that neither the batch nor the name of a document was found."""
        followed.count_miss(self.timing.confirm_interval)
        if followed.missed >= MAX_MISSES:
            self.finish(followed, FileEvent.FAILED, DOCUMENT_DELETED)

    def process_row(self, followed: FollowedDocument, row: Document) -> None:
        """Process a row of the list."""
        followed.polled_at = loop_time()
        batch = followed.document.batch
        own_id, listed_file = followed.document.upload_file_id, row.upload_file
        if own_id and listed_file and listed_file.id != own_id:
            if batch is None:
                self._process_other_upload(followed, row)
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
        self._process_final_status(followed, row.indexing_status, row.error, is_empty=empty)

    def process_status(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Process a status from the batch of a document, which includes segment counts."""
        followed.missed = 0
        self._record_status(followed, status.indexing_status)
        self._count_segments(followed, status)
        empty, complete = status.total_segments == 0, True
        if followed.file.overlaps and status.indexing_status is IndexingStatus.COMPLETED:
            complete = status.completed_segments == status.total_segments
        if not complete:
            followed.final_at = None
            return
        self._process_final_status(
            followed,
            status.indexing_status,
            status.error,
            is_empty=empty,
            error_code=status.error_code,
        )

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
            return  # it has ended
        followed.file.document = followed.document
        self.files.followed.remove(followed.file)
        followed.file.index_seconds = loop_time() - followed.document.accepted_at
        self.files.apply(followed.file, event, reason, error=error or "")

    def _process_other_upload(self, followed: FollowedDocument, row: Document) -> None:
        """Process a row with a different uploaded file for a document whose batch does not exist.

        A single poll is not sufficient: a page read before the create has the old file.
        """
        followed.count_miss(self.timing.confirm_interval)
        if followed.missed < MAX_OTHER_UPLOADS or not row.indexing_status.is_final:
            return
        if row.upload_file and row.upload_file.size == followed.file.planned.sent_size:
            followed.file.warnings = (DOCUMENT_REPLACED,)
            followed.document = evolve(followed.document, upload_file_id=None)
            self.process_row(followed, row)
        else:
            self.finish(followed, FileEvent.FAILED, "replaced by another upload")

    def _record_status(self, followed: FollowedDocument, status: str) -> None:
        """Record a status, which counts as progress if it is new for the document.

        The batch and the list show different statuses of a paused document.
        """
        first = not followed.statuses
        followed.status = status
        if status in followed.statuses:
            return
        followed.statuses.add(status)
        followed.record_progress()
        # The first known status of a document from an earlier run is not progress.
        if status not in _NOT_BEGUN and not (first and followed.document.remembered):
            self.files.followed.activity.record_progress()

    def _count_segments(self, followed: FollowedDocument, status: DocumentStatus) -> None:
        """Record the number of indexed segments; a change is progress once indexing has begun."""
        known = followed.segments
        followed.segments = status.completed_segments
        followed.total_segments = status.total_segments
        if followed.is_waiting:  # the segments belong to the old version
            return
        if followed.counted_at is None:
            followed.counted_at = loop_time()
        elif known != followed.segments:
            followed.record_progress()
            self.files.followed.activity.record_progress()

    def _process_final_status(
        self,
        followed: FollowedDocument,
        status: IndexingStatus,
        error: str | None,
        *,
        is_empty: bool,
        error_code: IndexingErrorCode | None = None,
    ) -> None:
        if not status.is_final:
            followed.final_at = None
        elif not self._is_confirmed(followed):
            return
        elif status is IndexingStatus.ERROR:
            message = error or "no reason given by the server"
            self._fail(followed, f"indexing failed: {message}", error, error_code)
        elif is_empty:
            self._fail(followed, NO_TEXT)
        else:
            self._succeed(followed)

    def _is_confirmed(self, followed: FollowedDocument) -> bool:
        """Return whether a final status is confirmed.

        If two indexing runs of a document may overlap, two polls must show the final status: the
        final status of the first run is shown and then withdrawn (measured on 1.14.2).
        """
        if not followed.file.overlaps:
            return True
        now = loop_time()
        if followed.final_at is None:
            followed.final_at = now
        return now - followed.final_at >= self.timing.confirm_interval

    def _succeed(self, followed: FollowedDocument) -> None:
        document = followed.document
        self.files.followed.activity.record_indexed(document.response_at)
        if followed.file.is_new_document and not document.reconciled:
            self.files.followed.activity.record_newest(document.queued_at)
        self.finish(followed, followed.file.indexed_event(swaps=self.files.swaps), None)
        self._count_end(followed, None)

    def _fail(
        self,
        followed: FollowedDocument,
        reason: str,
        error: str | None = None,
        error_code: IndexingErrorCode | None = None,
    ) -> None:
        file = followed.file
        if self.files.swaps and file.is_new_version:
            self._fail_swap(followed, reason, error)
        elif (
            error is not None
            and is_transient_indexing_error(error, error_code)
            and _can_recreate(file, self.files, self.timing)
        ):
            replaces = followed.document.as_failed_document
            file.planned = evolve(file.planned, row=None, replaces=replaces)
            self.finish(followed, FileEvent.FAILED_FOR_NOW, None)
        elif file.updates:
            message = (
                f"replacing document {followed.document.id} failed and left it empty: {reason}"
            )
            self.finish(followed, FileEvent.REPLACEMENT_FAILED, message, error)
        else:
            self.finish(followed, FileEvent.FAILED, reason, error)
        self._count_end(followed, error)

    def _fail_swap(self, followed: FollowedDocument, reason: str, error: str | None = None) -> None:
        """Fail a new version that exists next to the old document, and delete the new version.

        It is not created again: with three documents of the same name, the two documents to delete
        could not be determined.
        """
        file = followed.file
        prefix = "replacement failed, the old version was kept: " if file.updates else ""
        file.failure = f"{prefix}{reason}"
        self.finish(followed, FileEvent.SWAP_FAILED, file.failure, error)

    def _count_end(self, followed: FollowedDocument, error: str | None) -> None:
        """Stop the run if indexing fails for all documents."""
        # A document of an earlier run may have failed for a reason that has since been fixed.
        old = error is not None and followed.file.planned.action is PlannedAction.FOLLOW
        reason = None if old else self.files.backlog.early_failures.record_end(error)
        if reason is not None:
            self.files.stop(StopReason.MISCONFIGURED, reason, abandon=True)


def _can_recreate(file: TrackedFile, files: FileLifecycle, times: LoadTiming) -> bool:
    """Return whether a document that failed with a transient error can be sent again."""
    is_readable = file.planned.found.can_be_read_again and not files.stopping.is_requested
    return is_readable and file.recreated < times.max_recreations
