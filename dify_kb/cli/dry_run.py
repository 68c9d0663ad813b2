"""Print what a dry run would do with each file, one line each."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio.to_thread
from attrs import define, field

from dify_kb import ItemResult, LoadReport, Outcome
from dify_kb.ingest import ScanRules, Source, create_source_reader
from dify_kb.ingest.engine.dry_run import WOULD_SEND

from . import output

_ACTIONS = {"would be added": "add", "would be updated": "update", "would be finished": "finish"}
"""The action on a file, by the beginning of its reason."""


@define
class DryRunPrinter:
    """Prints what a dry run would do with each file, and counts it."""

    is_shown: bool = True
    """Whether lines are printed; --json prints the results instead."""

    counts: Counter[str] = field(factory=Counter)
    """The files by what would be done, such as `would be added`."""

    def __call__(self, result: ItemResult) -> None:
        """Count a file, and print what would be done with it; nothing for an unchanged one."""
        reason = result.reason or ""
        if result.outcome is Outcome.PENDING:
            planned = next((one for one in _ACTIONS if reason.startswith(one)), "would be added")
            self.counts[planned] += 1
            verb, reason = _ACTIONS[planned], reason.removeprefix(planned).lstrip(":, ")
        elif result.outcome is Outcome.UNCHANGED:
            return
        else:
            verb = "skip" if result.outcome is Outcome.SKIPPED else "fail"
        if self.is_shown:
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
                    reason=WOULD_SEND,
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
