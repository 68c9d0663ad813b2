"""Predict the result of each file without sending, with the run's own decisions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.ingest.journal import State
from dify_kb.ingest.options import Options
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    Do,
    Planned,
    keep_existing,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome

from .pending_uploads import PendingUpload
from .reconcile import Decision, decide
from .tracked_file import TrackedFile

if TYPE_CHECKING:
    from dify_kb.models import Document

SENT = "would be sent"
IN_PLACE = "would be sent in place of its document"
LATER = f"{IN_PLACE}, once that is indexed"
FOLLOWED = "already sent; would be followed until it is indexed"
METADATA = "already indexed; its metadata would be set"
TAKEN_OVER = "already on the server, although the response was lost; would be taken over"
AGAIN = "indexing stalled; its document would be created again"


@frozen
class DryRun:
    """Prediction of the results of planned files."""

    _lookup: DocumentLookup
    _options: Options

    async def result_of(self, planned: Planned) -> ItemResult:
        """Return the predicted result of a planned file. Takes one request if a lookup is planned.

        Raises:
            KnowledgeError: the lookup failed.
        """
        match planned.do:
            case Do.FOLLOW:
                return _pending(planned, FOLLOWED)
            case Do.ASSIGN_METADATA:
                return _pending(planned, METADATA)
            case Do.SEND:
                return _pending(planned, IN_PLACE if planned.replaces else SENT)
            case Do.LOOK if planned.row is None and planned.replaces and not planned.replaces.final:
                return _pending(planned, LATER)
            case Do.LOOK:
                return self._decide_by_document(planned, await self._lookup.named(planned.name))

    def _decide_by_document(  # noqa: PLR0911 -- one for each decision
        self, planned: Planned, document: Document | None
    ) -> ItemResult:
        """Decide like the reconciler when no upload is in flight any more."""
        options = self._options
        lost = planned.row is not None and planned.row.state is State.SENDING
        file = TrackedFile.of(planned)
        pending = PendingUpload(file=file, since=0.0, due=0.0, until=0.0, lost=lost)
        decision = decide(
            pending,
            document,
            math.inf,
            replaces=options.on_existing == "overwrite",
            overwrites_archived=options.overwrite_archived,
        )
        match decision:
            case Decision.TAKE_OVER if planned.same:
                return _pending(planned, TAKEN_OVER if lost else FOLLOWED)
            case Decision.KEEP_DISABLED:
                return file.result(Outcome.SKIPPED, DISABLED_BY_HAND)
            case Decision.KEEP_ARCHIVED:
                return file.result(Outcome.SKIPPED, ARCHIVED_BY_HAND)
            case Decision.KEEP_EXISTING if document is not None:
                existing = evolve(planned, replaces=RemoteDocument.of(document))
                return keep_existing(existing, options.on_existing)
            case Decision.WAIT:
                return _pending(planned, LATER)
            case Decision.SEND if planned.stuck:
                return _pending(planned, AGAIN)
            case _:
                return _pending(planned, IN_PLACE if document else SENT)


def _pending(planned: Planned, would: str) -> ItemResult:
    return TrackedFile.of(planned).result(Outcome.PENDING, would)
