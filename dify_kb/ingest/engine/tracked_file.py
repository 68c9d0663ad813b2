"""A file during a run, and the document created from it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from attrs import define, evolve, frozen

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.metadata.sync_fields import SyncFields
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import IndexingStatus
from dify_kb.resources.metadata_validation import MetadataWarning
from dify_kb.transport.clock import loop_time

from .file_states import FileEvent, FileState

if TYPE_CHECKING:
    from dify_kb.ingest.metadata.labels import Labels
    from dify_kb.models import Document

MAX_CLOCK_SKEW = timedelta(minutes=2)
"""Maximum difference between the clocks of server and client."""


def latest_server_time(seconds: float) -> datetime:
    """Return the latest possible time of the server's clock for a Unix time of the client."""
    return datetime.fromtimestamp(seconds, UTC) + MAX_CLOCK_SKEW


@frozen(kw_only=True)
class UploadedDocument:
    """A document that the server has accepted.

    `batch` is None if the response was lost and the document was found by its name. `seconds` is
    the duration of the create, `accepted_at` the time of its response on the event loop.
    `queued_at` is the latest time at which its indexing was queued, by the server's clock.
    """

    id: str
    batch: str | None
    upload_file_id: str | None
    seconds: float = 0.0
    accepted_at: float = 0.0
    queued_at: datetime | None = None
    reconciled: bool = False
    remembered: bool = False
    """Whether an earlier run uploaded it."""

    @property
    def response_at(self) -> float:
        """Time of the response to the create; -1 if unknown or in an earlier run."""
        return -1.0 if self.remembered or self.reconciled else self.accepted_at

    @property
    def as_failed_document(self) -> RemoteDocument:
        """The document after a failed indexing run."""
        return RemoteDocument(
            document_id=self.id,
            enabled=True,
            status=IndexingStatus.ERROR,
            upload_file_id=self.upload_file_id,
        )

    @classmethod
    def from_document(cls, document: Document, *, remembered: bool = False) -> UploadedDocument:
        """Create from a document that was found after the response to its create was lost."""
        file = document.upload_file
        return cls(
            id=document.id,
            batch=None,
            upload_file_id=file.id if file else None,
            accepted_at=loop_time(),
            queued_at=latest_server_time(time.time()),
            reconciled=True,
            remembered=remembered,
        )


@define(eq=False)
class TrackedFile:
    """A planned file and its progress. Only `FileLifecycle` changes `state`.

    `attempts` is the number of sends. Of the sends of this run, `lost` had a broken connection or
    no response, `recreated` followed a failed indexing run, and during `changed` the file changed.
    """

    planned: PlannedFile
    state: FileState = FileState.PLANNED
    document: UploadedDocument | None = None
    error: KnowledgeError | None = None
    """The error of the last send; None after a success."""

    attempts: int = 0
    lost: int = 0
    recreated: int = 0
    changed: int = 0
    busy_since: float | None = None
    """Time of the first refusal because the document was being indexed."""

    overlaps: bool = False
    """Whether two indexing runs may overlap: an earlier send may have been stored."""

    updates: bool = False
    """Whether the upload replaces a document that existed before this run."""

    index_seconds: float | None = None
    content: bytes = b""
    """The SHA-256 digest of the file sent; empty if it was not sent."""

    token: str | None = None
    """The token of the file sent, if it is one of a `FileSource`."""

    is_marked: bool = False
    """Whether the fields of a sync were set on the document."""

    metadata_set: bool = False
    """Whether the metadata was set."""

    refused_metadata: Sequence[MetadataWarning] = ()
    """The values that do not fit the type of their field."""

    warnings: tuple[str, ...] = ()
    failure: str | None = None
    """Why the new version failed, while it is being deleted."""

    in_backlog: Literal["sent", "before"] | None = None
    """How the backlog counts the file: as sent by this run or before it; None if not counted."""

    @classmethod
    def from_plan(cls, planned: PlannedFile) -> TrackedFile:
        """Create from a planned file, with its document from the journal, if any."""
        file = cls(planned, attempts=planned.attempts, updates=planned.replaces is not None)
        row = planned.row
        if row is not None and planned.is_unchanged:
            file.content = row.content
            file.token = None if planned.found.source is None else row.token
        if (
            planned.action in {PlannedAction.FOLLOW, PlannedAction.ASSIGN_METADATA}
            and row is not None
            and row.document_id
        ):
            file.attempts = row.attempts
            file.updates = row.previous is not None
            file.document = UploadedDocument(
                id=row.document_id,
                batch=row.batch,
                upload_file_id=row.upload_file_id,
                accepted_at=loop_time(),
                queued_at=latest_server_time(row.sent_at),
                remembered=True,
            )
        return file

    @property
    def key(self) -> str:
        """The key of the file in the source."""
        return self.planned.found.key

    @property
    def expected_outcome(self) -> Outcome:
        """The outcome if nothing fails."""
        if self.planned.action is PlannedAction.ASSIGN_METADATA:
            return Outcome.UNCHANGED
        return Outcome.UPDATED if self.updates else Outcome.ADDED

    @property
    def labels(self) -> Labels:
        """The labels to record: without those of values that were not set."""
        planned = self.planned
        if self.metadata_set or not planned.metadata:
            return planned.labels
        return planned.labels.without_values()

    @property
    def needs_metadata(self) -> bool:
        """Whether values have to be set on the indexed document."""
        planned = self.planned
        return bool(planned.metadata or planned.kept_metadata or self.sync_fields)

    @property
    def sync_fields(self) -> Mapping[str, str]:
        """The values of the fields of a sync that have to be set.

        Until the metadata is set with them, they do not say that it is.
        """
        planned = self.planned
        if planned.sync_id is None or not self.content:
            return {}
        if self.is_marked and not planned.metadata:
            return {}
        is_set = self.state is FileState.INDEXED or not planned.metadata
        labels = planned.labels if is_set else planned.labels.without_values()
        fields = SyncFields(
            sync_id=planned.sync_id,
            key=self.key,
            content=self.content,
            token=self.token,
            rule=planned.sync_rule,
            labels=str(labels),
        )
        return fields.values()

    @property
    def metadata_warnings(self) -> Sequence[MetadataWarning]:
        """The warnings about metadata."""
        return (*self.planned.warnings, *self.refused_metadata)

    @property
    def is_new_document(self) -> bool:
        """Whether this run added the document to the list."""
        existing, document = self.planned.replaces, self.document
        if document is None or document.remembered:
            return False
        return existing is None or existing.document_id != document.id

    def needs_finish(self, *, swaps: bool) -> bool:
        """Return whether an old version has to be deleted or the document archived again."""
        existing = self.planned.replaces
        if self.planned.action is PlannedAction.ASSIGN_METADATA:
            return False
        if self.document is not None and self.document.remembered:
            return (
                self.updates
            )  # a swap may have been interrupted before the old version was deleted
        if existing is None:
            return False
        return existing.archived or (swaps and self.is_new_version)

    def indexed_event(self, *, swaps: bool) -> FileEvent:
        """Return the event for an indexed document, depending on the remaining steps."""
        more = self.needs_metadata or self.needs_finish(swaps=swaps)
        return FileEvent.INDEXED if more else FileEvent.FINISHED

    @property
    def is_new_version(self) -> bool:
        """Whether the document exists in addition to the document that it replaces."""
        existing, document = self.planned.replaces, self.document
        return existing is not None and document is not None and existing.document_id != document.id

    def release_content(self) -> None:
        """Release the content of an uploaded in-memory item: thousands may wait to be indexed."""
        if self.planned.found.data is not None:
            self.planned = evolve(self.planned, found=evolve(self.planned.found, data=None))

    def result(self, outcome: Outcome, reason: str | None, error: str | None = None) -> ItemResult:
        """Return the result of the file."""
        document = self.document
        timings = {}
        if document is not None:
            timings["upload"] = document.seconds
        if self.index_seconds is not None:
            timings["index"] = self.index_seconds
        return ItemResult(
            key=self.key,
            name=self.planned.name,
            outcome=outcome,
            reason=reason,
            document_id=document.id if document else None,
            batch=document.batch if document else None,
            size=self.planned.found.size,
            attempts=self.attempts,
            reconciled=document.reconciled if document else False,
            warnings=(*self.warnings, *(one.message for one in self.metadata_warnings)),
            error=error,
            timings=timings,
        )
