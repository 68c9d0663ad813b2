"""Create the report of a sync from its plan and the report of its load."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from dify_kb.ingest.report import ItemResult, LoadReport, Outcome, StopReason

from .sync_report import SyncAction, SyncReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .guards import Hold
    from .sync_plan import SyncPlan


def make_report(
    load: LoadReport,
    plan: SyncPlan,
    hold: Hold | None,
    *,
    renamed: int | None,
    deleted: int | None,
    failures: Callable[[], Iterator[ItemResult]],
) -> SyncReport:
    """Return the report of a sync.

    Args:
        renamed: number of renames that were carried out; None counts those of the plan.
        deleted: likewise for deletes.
    """
    counts = Counter(one.action for one in plan.changes)
    kept = Counter(one.reason or "" for one in plan.changes if one.action is SyncAction.KEEP)
    renamed = counts[SyncAction.RENAME] if renamed is None else renamed
    fields = {
        one.name: getattr(load, one.name)
        for one in attrs.fields(LoadReport)
        if one.name != "_failures"
    }
    fields["added"] = load.added - renamed
    if load.stopped is None and hold is not None and hold.stop is not None:
        fields |= {"stopped": hold.stop, "stop_message": _sentence(hold.reason)}
    return SyncReport(
        **fields,
        renamed=renamed,
        deleted=counts[SyncAction.DELETE] if deleted is None else deleted,
        kept_back=sum(kept.values()),
        foreign=plan.foreign,
        conflicts=plan.conflicts,
        held=plan.held,
        kept_back_reasons=dict(kept),
        changes=tuple(plan.changes),
        _failures=failures,
    )


def predict_report(plan: SyncPlan, *, dry_run: bool) -> LoadReport:
    """Return the report of a load that would carry the plan out."""
    counts = Counter(one.action for one in plan.changes)
    skipped = Counter(
        one.reason or ""
        for one in plan.files
        if isinstance(one, ItemResult) and one.outcome is Outcome.SKIPPED
    )
    failed, found = counts[SyncAction.FAIL], len(plan.files)
    added = counts[SyncAction.ADD] + counts[SyncAction.RENAME]
    return LoadReport(
        found=found,
        added=added,
        updated=counts[SyncAction.UPDATE],
        unchanged=found - added - counts[SyncAction.UPDATE] - failed - skipped.total(),
        skipped=skipped.total(),
        failed=failed,
        skipped_reasons=dict(skipped),
        dry_run=dry_run,
    )


def missing_source_report(path: str) -> SyncReport:
    """Return the report of a sync whose source does not exist."""
    reason = f"the source {path} does not exist"
    return SyncReport(
        stopped=StopReason.SOURCE_MISSING, stop_message=_sentence(reason), held=reason
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
