"""Keep back the documents whose chunks a person edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.resources import Segments

from .decide_changes import EDITED_BY_HAND
from .sync_report import SyncAction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import Segment
    from dify_kb.transport import Sender

    from .sync_plan import SyncPlan


async def keep_edited(plan: SyncPlan, sender: Sender, dataset_id: str) -> None:
    """Keep back the documents of a plan whose chunks were edited by hand.

    Costs one request per 100 chunks of each document that would be overwritten, replaced or
    deleted. A chunk that was deleted at the end of a document is not noticed.

    Raises:
        KnowledgeError: the chunks could not be listed.
    """
    segments, edited = Segments(sender), set[str]()
    for document_id in sorted(_find_endangered(plan)):
        rows = [row async for row in segments.iter(dataset_id, document_id)]
        if is_edited(rows):
            edited.add(document_id)
    if edited:
        _keep(plan, edited)


def is_edited(chunks: Sequence[Segment]) -> bool:
    """Return whether a person updated, disabled, added or deleted one of these chunks.

    A worker writes all chunks of a document before it completes the first.
    """
    completed = [chunk.completed_at for chunk in chunks if chunk.completed_at is not None]
    first = min(completed, default=None)
    positions = sorted(chunk.position for chunk in chunks if chunk.position is not None)
    return positions != list(range(1, len(positions) + 1)) or any(
        chunk.updated_by is not None
        or chunk.disabled_by is not None
        or (first is not None and chunk.created_at is not None and chunk.created_at > first)
        for chunk in chunks
    )


def _find_endangered(plan: SyncPlan) -> set[str]:
    """Return the ids of the documents that the plan would overwrite or delete."""
    ids = {deletion.document_id for deletion in plan.deletions if deletion.counts}
    ids |= {rename.row.document_id for rename in plan.renames if rename.row.document_id}
    for one in plan.files:
        if isinstance(one, PlannedFile) and one.action is not PlannedAction.ASSIGN_METADATA:
            ids |= {one.replaces.document_id} if one.replaces is not None else set()
    return ids


def _keep(plan: SyncPlan, edited: set[str]) -> None:
    kept = {change.key for change in plan.changes if change.document_id in edited}
    plan.deletions = [one for one in plan.deletions if one.document_id not in edited]
    plan.renames = [one for one in plan.renames if one.row.document_id not in edited]
    plan.files = [
        _result(one) if isinstance(one, PlannedFile) and one.found.key in kept else one
        for one in plan.files
    ]
    plan.changes = [
        evolve(change, action=SyncAction.KEEP, reason=EDITED_BY_HAND)
        if change.document_id in edited
        and change.action in {SyncAction.UPDATE, SyncAction.DELETE, SyncAction.RENAME}
        else change
        for change in plan.changes
    ]


def _result(planned: PlannedFile) -> ItemResult:
    return ItemResult(
        key=planned.found.key,
        name=planned.name,
        outcome=Outcome.SKIPPED,
        reason=EDITED_BY_HAND,
        document_id=planned.replaces.document_id if planned.replaces else None,
        size=planned.found.size,
    )
