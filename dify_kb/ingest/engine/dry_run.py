"""Predict the result of each file without sending it, with the same decisions as a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.load_options import LoadOptions
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.file_plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    PlannedAction,
    PlannedFile,
    keep_existing,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome

from .pending_uploads import PendingUpload
from .reconcile import ReconcileDecision, decide_next_step
from .tracked_file import TrackedFile

if TYPE_CHECKING:
    from dify_kb.models import Document

WOULD_SEND = "would be added"
WOULD_REPLACE = "would be updated"
WOULD_WAIT = f"{WOULD_REPLACE}, once the document is indexed"
WOULD_FOLLOW = "would be finished: it was sent, and its indexing would be followed"
WOULD_SET_METADATA = "would be finished: it is indexed, and its metadata would be set"
WOULD_TAKE_OVER = "would be finished: its document is on the server, although the response was lost"
WOULD_RESEND = "would be added again: its indexing stalled"


@frozen
class DryRun:
    """Predictor of the results of planned files."""

    _lookup: DocumentLookup
    _options: LoadOptions

    async def predict(self, planned: PlannedFile) -> ItemResult:
        """Return the predicted result of a planned file. Costs one request if a lookup is planned.

        Raises:
            KnowledgeError: the lookup failed.
        """
        match planned.action:
            case PlannedAction.FOLLOW:
                return _pending(planned, WOULD_FOLLOW)
            case PlannedAction.ASSIGN_METADATA:
                return _pending(planned, WOULD_SET_METADATA)
            case PlannedAction.SEND:
                return _pending(planned, WOULD_REPLACE if planned.replaces else WOULD_SEND)
            case PlannedAction.LOOK_UP if (
                planned.row is None and planned.replaces and not planned.replaces.is_final
            ):
                return _pending(planned, WOULD_WAIT)
            case PlannedAction.LOOK_UP:
                return self._decide_by_document(planned, await self._lookup.find(planned.name))

    def _decide_by_document(  # noqa: PLR0911 -- one for each decision
        self, planned: PlannedFile, document: Document | None
    ) -> ItemResult:
        """Decide as the reconciler does once no upload is in flight."""
        options = self._options
        lost = planned.row is not None and planned.row.state is JournalState.SENDING
        file = TrackedFile.from_plan(planned)
        pending = PendingUpload(file=file, since=0.0, due=0.0, until=0.0, lost=lost)
        decision = decide_next_step(
            pending,
            document,
            math.inf,
            replaces=options.on_existing == "overwrite",
            overwrites_archived=options.overwrite_archived,
        )
        match decision:
            case ReconcileDecision.TAKE_OVER if planned.is_unchanged:
                return _pending(planned, WOULD_TAKE_OVER if lost else WOULD_FOLLOW)
            case ReconcileDecision.KEEP_DISABLED:
                return file.result(Outcome.SKIPPED, DISABLED_BY_HAND)
            case ReconcileDecision.KEEP_ARCHIVED:
                return file.result(Outcome.SKIPPED, ARCHIVED_BY_HAND)
            case ReconcileDecision.KEEP_EXISTING if document is not None:
                existing = evolve(planned, replaces=RemoteDocument.from_document(document))
                return keep_existing(existing, options.on_existing)
            case ReconcileDecision.WAIT:
                return _pending(planned, WOULD_WAIT)
            case ReconcileDecision.SEND if planned.has_stalled:
                return _pending(planned, WOULD_RESEND)
            case _:
                return _pending(planned, WOULD_REPLACE if document else WOULD_SEND)


def _pending(planned: PlannedFile, prediction: str) -> ItemResult:
    return TrackedFile.from_plan(planned).result(Outcome.PENDING, prediction)
