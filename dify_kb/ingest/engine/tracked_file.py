"""One file during a run, and the document that it became."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from attrs import define, evolve, frozen

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import IndexingStatus
from dify_kb.transport.clock import loop_time

from .file_states import FileEvent, FileState

if TYPE_CHECKING:
    from dify_kb.models import Document

MAX_CLOCK_SKEW = timedelta(minutes=2)
"""By so much the clocks of server and client may differ."""


def latest_server_time(seconds: float) -> datetime:
    """Return the latest time that the server's clock may have told at a time of ours."""
    return datetime.fromtimestamp(seconds, UTC) + MAX_CLOCK_SKEW


@frozen(kw_only=True)
class UploadedDocument:
    """A document that the server has accepted.

    `batch` is None when the answer was lost and it was found by its name; `seconds` is the time of
    the create, `accepted_at` the time of its answer, of the event loop. `queued_at` is when its
    indexing was queued at the latest, by the server's clock.
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
        """When its create was answered in this run; -1 where that is not known, or was before."""
        return -1.0 if self.remembered or self.reconciled else self.accepted_at

    @property
    def as_failed_document(self) -> RemoteDocument:
        """The document once its indexing has failed."""
        return RemoteDocument(
            document_id=self.id,
            enabled=True,
            status=IndexingStatus.ERROR,
            upload_file_id=self.upload_file_id,
        )

    @classmethod
    def from_document(cls, document: Document, *, remembered: bool = False) -> UploadedDocument:
        """Create from a document that was found after its create was not answered."""
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
    """A planned file on its way to its outcome. Only `FileLifecycle` changes `state`.

    `attempts` counts its sends, `lost` those of this run that broke or were not answered,
    `recreated` those that followed a failed indexing; `changed` those during which it changed.
    """

    planned: PlannedFile
    state: FileState = FileState.PLANNED
    document: UploadedDocument | None = None
    error: KnowledgeError | None = None
    """The error of its last send; None after a success."""

    attempts: int = 0
    lost: int = 0
    recreated: int = 0
    changed: int = 0
    busy_since: float | None = None
    """When the server first refused it because its document is being indexed."""

    overlaps: bool = False
    """Whether two runs of its document may be going on: an earlier send may still have landed."""

    updates: bool = False
    """Whether its document replaces one that was there before this run."""

    index_seconds: float | None = None
    metadata_recorded: str = ""
    """The fingerprint of the metadata that was set."""

    warnings: tuple[str, ...] = ()
    failure: str | None = None
    """Why the indexing of its new version failed, while that is being deleted."""

    in_backlog: Literal["sent", "before"] | None = None
    """Whether the backlog counts it: as one of this run, or of an earlier one."""

    @classmethod
    def from_plan(cls, planned: PlannedFile) -> TrackedFile:
        """Create from a planned file, with the document that the journal remembers of it."""
        file = cls(planned, attempts=planned.attempts, updates=planned.replaces is not None)
        row = planned.row
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
        """The key of its source."""
        return self.planned.found.key

    @property
    def expected_outcome(self) -> Outcome:
        """The outcome when all goes well."""
        if self.planned.action is PlannedAction.ASSIGN_METADATA:
            return Outcome.UNCHANGED
        return Outcome.UPDATED if self.updates else Outcome.ADDED

    @property
    def is_new_document(self) -> bool:
        """Whether its document was added to the list by this run, and not there before."""
        existing, document = self.planned.replaces, self.document
        if document is None or document.remembered:
            return False
        return existing is None or existing.document_id != document.id

    def needs_finish(self, *, swaps: bool) -> bool:
        """Return whether the old version is still there, or the document was archived before."""
        existing = self.planned.replaces
        if self.planned.action is PlannedAction.ASSIGN_METADATA:
            return False
        if self.document is not None and self.document.remembered:
            return self.updates  # a swap may have been cut off before its old version was deleted
        if existing is None:
            return False
        return existing.archived or (swaps and self.is_new_version)

    def indexed_event(self, *, swaps: bool) -> FileEvent:
        """Return the event that its document is indexed, as far as that is followed."""
        more = bool(self.planned.metadata) or self.needs_finish(swaps=swaps)
        return FileEvent.INDEXED if more else FileEvent.FINISHED

    @property
    def is_new_version(self) -> bool:
        """Whether its document stands beside the one that it replaces."""
        existing, document = self.planned.replaces, self.document
        return existing is not None and document is not None and existing.document_id != document.id

    def release_content(self) -> None:
        """Release an item's content, which the server has; thousands may wait to be indexed."""
        if self.planned.found.data is not None:
            self.planned = evolve(self.planned, found=evolve(self.planned.found, data=None))

    def result(self, outcome: Outcome, reason: str | None, error: str | None = None) -> ItemResult:
        """Return how it ended."""
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
            warnings=self.warnings,
            error=error,
            timings=timings,
        )
