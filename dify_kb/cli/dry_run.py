"""Print what a dry run would do with each file, one line each."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from dify_kb import ItemResult, LoadReport, Outcome
from dify_kb.ingest import ScanRules, Source, create_source_reader

from . import output

SEND_REASON = "would be sent"
"""The beginning of the reason of a file that would be sent."""


def print_planned(result: ItemResult) -> None:
    """Print what would be done with a file; nothing for an unchanged one."""
    reason = result.reason or ""
    match result.outcome:
        case Outcome.UNCHANGED:
            return
        case Outcome.SKIPPED:
            verb = "skip"
        case Outcome.PENDING:
            verb = "send" if reason.startswith(SEND_REASON) else "finish"
            reason = reason.removeprefix(SEND_REASON).lstrip(", ")
        case _:
            verb = "fail"
    why = f": {output.escape(reason)}" if reason else ""
    sys.stdout.write(f"{verb:6}  {output.escape(result.key)}{why}\n")


async def scan_source(
    source: Source, rules: ScanRules, on_event: Callable[[ItemResult], None]
) -> LoadReport:
    """Return the report of a dry run into a dataset that does not exist yet. Costs no request."""
    started = time.monotonic()
    counts, reasons = Counter[Outcome](), Counter[str]()
    reader = await create_source_reader(source)
    await anyio.to_thread.run_sync(reader.prepare, abandon_on_cancel=True)
    async for batch in reader.batches(rules):
        for entry in batch:
            result = entry
            if not isinstance(result, ItemResult):
                result = ItemResult(
                    key=result.key,
                    name=result.name,
                    outcome=Outcome.PENDING,
                    reason=SEND_REASON,
                    size=result.size,
                )
            counts[result.outcome] += 1
            if result.outcome is Outcome.SKIPPED and result.reason:
                reasons[result.reason] += 1
            on_event(result)
    by_name: dict[str, Any] = {outcome.value: count for outcome, count in counts.items()}
    return LoadReport(
        found=counts.total(),
        **by_name,
        skipped_reasons=dict(reasons),
        seconds=time.monotonic() - started,
        dry_run=True,
    )
