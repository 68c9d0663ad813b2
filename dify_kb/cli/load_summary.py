"""What is said when a load has ended: the sum, the failures, and what to type next."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console

from dify_kb import ItemResult, LoadReport, Outcome, StopReason

from . import show
from .progress_state import format_counts

LISTED = 20
"""Failures that people are shown; programs get all."""

MIB = 2**20

_SECRET = frozenset({"--api-key", "--header", "--proxy"})

_RETRY = "--retry-failed"

_MEND: Mapping[StopReason, str] = {
    StopReason.RATE_LIMIT: "Wait until the server takes requests again (--rate 100/min states how"
    " many)",
    StopReason.PLAN_LIMIT: "Make room in the plan: delete documents, or buy more",
    StopReason.UNAUTHORIZED: "Pass a key that may write here (--api-key or DIFY_API_KEY)",
    StopReason.OUTAGE: "Wait until the server is back (`dify-kb doctor` tells)",
    StopReason.NOT_INDEXING: "Have the server's worker looked after, which indexes nothing",
    StopReason.MISCONFIGURED: "Mend the dataset's settings: its models, or how it cuts",
    StopReason.MAX_FAILURES: "Look at the failures above",
    StopReason.DEADLINE: "The time was over",
    StopReason.JOURNAL: "Make room, or get the right to write the journal",
}


def command_line(words: Sequence[str], *extra: str) -> str:
    """Write the command line as it can be pasted, without the secrets in it."""
    shown: list[str] = []
    secret = False
    for word in words:
        option, equals, _ = word.partition("=")
        if secret:
            shown.append("…")
        elif equals and option in _SECRET:
            shown.append(f"{option}=…")
        else:
            shown.append(shlex.quote(word))
        secret = not secret and word in _SECRET
    extra = tuple(word for word in extra if word not in words)
    return show.printable(" ".join(["dify-kb", *shown, *extra]))


def print_summary(console: Console, report: LoadReport) -> None:
    """Write the sum of a load and the first of its failures."""
    counts = {outcome: getattr(report, outcome) for outcome in Outcome}
    console.print(
        f"{report.found:,} files found in {report.seconds:.1f} s:"
        f" {format_counts(counts) or 'nothing to do'}."
    )
    if report.dry_run:
        console.print("Nothing was sent: this was a dry run.")
        return
    console.print(
        f"{report.bytes / MIB:,.1f} MiB uploaded, {report.goodput:.1f} documents/s,"
        f" {report.requests:,} requests, {report.retries:,} retries."
    )


def print_failures(console: Console, report: LoadReport, also: Sequence[ItemResult]) -> None:
    """List the first files that were not loaded."""
    bad = report.failed + report.stalled + report.unknown + report.pending
    for result in itertools.islice(itertools.chain(also, report.failures()), LISTED):
        reason = show.printable(result.reason or "")
        console.print(f"  {result.outcome}  {show.printable(result.key)}: {reason}")
    if bad > LISTED:
        whole = f"`dify-kb journal show --failures {report.journal}`" if report.journal else ""
        console.print(f"  … and {bad - LISTED:,} more; {whole or '--json'} lists all.")


def next_step(report: LoadReport, words: Sequence[str]) -> str | None:
    """Say what to do next; None when nothing is left."""
    if report or report.dry_run:
        return None
    again = _RETRY if report.failed else ""
    resumes = command_line(words, *filter(None, [again]))
    failed = ", and sends the failed ones again" if again else ""
    if report.stopped is None:
        what = "sends the failed files again" if again else "looks what became of the rest"
        return f"This {what}:\n       {resumes}"
    return f"{_MEND[report.stopped]}; this goes on where it stood{failed}:\n       {resumes}"
