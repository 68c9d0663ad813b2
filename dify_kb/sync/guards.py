"""Guards: when a sync deletes nothing, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.ingest.report import ItemResult, Outcome, StopReason
from dify_kb.ingest.sources.file_source import parse_scheme
from dify_kb.ingest.sources.found_file import FoundFile

from .sync_report import SyncAction

if TYPE_CHECKING:
    from dify_kb.ingest.sources.items import Source

    from .sync_options import SyncOptions
    from .sync_plan import SyncPlan

TOO_LARGE = "too large"
"""The beginning of the reason of a file above the size limit, which hides no other file."""


@frozen
class Hold:
    """The reason why a sync deletes nothing."""

    reason: str
    stop: StopReason | None = None


def find_hold(
    plan: SyncPlan, items: Sequence[FoundFile | ItemResult], options: SyncOptions
) -> Hold | None:
    """Return why the deletes of a plan must be held back before anything is changed."""
    if not any(isinstance(item, FoundFile) for item in items) and not options.allow_empty:
        return Hold(
            "the source contains no file to load; allow_empty=True (--allow-empty) accepts this",
            StopReason.SOURCE_EMPTY,
        )
    counted = sum(deletion.counts for deletion in plan.deletions)
    if not counted:
        return None
    if unread := [
        item.key
        for item in items
        if isinstance(item, ItemResult)
        and item.outcome is Outcome.FAILED
        and not (item.reason or "").startswith(TOO_LARGE)
    ]:
        more = f" and {len(unread) - 1:,} more" if len(unread) > 1 else ""
        return Hold(f"the scan of the source failed for {unread[0]}{more}")
    maximum = options.max_delete.maximum(plan.owned)
    if counted > maximum:
        return Hold(
            f"{counted:,} of {plan.owned:,} documents would be deleted, more than {maximum:,};"
            " max_delete=N (--max-delete N) allows more"
        )
    return None


def hold_deletes(plan: SyncPlan, reason: str) -> None:
    """Remove all deletes from a plan; documents of renamed files are replaced all the same."""
    held = {deletion.document_id for deletion in plan.deletions}
    if any(deletion.counts for deletion in plan.deletions):
        plan.held = plan.held or reason
    plan.deletions = []
    plan.changes = [
        evolve(change, action=SyncAction.KEEP, reason=reason)
        if change.action is SyncAction.DELETE and change.document_id in held
        else change
        for change in plan.changes
    ]


def find_missing_path(source: Source) -> str | None:
    """Return the first path of a source that does not exist. Blocking."""
    elements = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    for element in elements:
        if not isinstance(element, str | os.PathLike) or parse_scheme(element):
            continue
        if os.fspath(element) and not os.path.lexists(element):
            return os.fspath(element)
    return None
