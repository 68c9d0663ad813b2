"""A dry run: one line for each file of which something would become."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import attrs

from dify_kb import ItemResult, LoadReport, Outcome
from dify_kb.ingest import Rules, Source, Tally, source_reader

from . import show

SENT = "would be sent"
"""How the reason begins of a file that would be sent."""


def print_planned(result: ItemResult) -> None:
    """Write what would become of a file, unless that is nothing."""
    reason = result.reason or ""
    match result.outcome:
        case Outcome.UNCHANGED:
            return
        case Outcome.SKIPPED:
            verb = "skip"
        case Outcome.PENDING:
            verb = "send" if reason.startswith(SENT) else "finish"
            reason = reason.removeprefix(SENT).lstrip(", ")
        case _:
            verb = "fail"
    why = f": {show.printable(reason)}" if reason else ""
    sys.stdout.write(f"{verb:6}  {show.printable(result.key)}{why}\n")


async def scan(source: Source, rules: Rules, on_event: Callable[[ItemResult], None]) -> LoadReport:
    """Tell what a load would send into a dataset that is still to be made. No request."""
    started, tally = time.monotonic(), Tally()
    taken = await source_reader(source)
    async for batch in taken.batches(rules):
        for one in batch:
            result = one
            if not isinstance(result, ItemResult):
                result = ItemResult(
                    key=result.key,
                    name=result.name,
                    outcome=Outcome.PENDING,
                    reason=SENT,
                    size=result.size,
                )
            tally.add(result)
            on_event(result)
    return attrs.evolve(tally.report(time.monotonic() - started), dry_run=True)
