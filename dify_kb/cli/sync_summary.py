"""Print the plan and the summary of a sync, and the next command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dify_kb import Outcome, StopReason, SyncAction, SyncChange, SyncReport
from dify_kb.ingest.progress import format_counts

from . import load_summary, output
from .bulk import format_count
from .command_line import instruct_repetition

QUIET_ACTIONS = frozenset({SyncAction.SAME, SyncAction.SKIP, SyncAction.FOREIGN})
"""The actions that are listed with --verbose only."""

SOURCE_STOPS = (StopReason.SOURCE_MISSING, StopReason.SOURCE_EMPTY)

_OVERRIDE = re.compile(r";? ?\w+=\w* \((--[\w-]+)(?: [A-Z]+)?\)(?: \w+ (?:more|this))?")
"""The option that accepts what a sync holds back: `; max_delete=N (--max-delete N) allows more`."""


def format_change(change: SyncChange, held: str | None = None) -> str:
    """Return a line of the plan, in the style of `rclone --combined`.

    Args:
        held: the reason why all deletes are held back, which is printed once.
    """
    names = [change.key] if change.old_key is None else [change.old_key, change.key]
    text = "not deleted" if change.reason == held else change.reason
    reason = f": {output.escape(output.name_options(text))}" if text and change.reason else ""
    return f"{change.action.symbol} {' -> '.join(map(output.escape, names))}{reason}"


def print_changes(
    changes: Iterable[SyncChange], held: str | None, *, verbose: bool, limit: int | None
) -> None:
    """Print the lines of a plan; at most `limit` for each action."""
    counts = dict.fromkeys(SyncAction, 0)
    for change in changes:
        if change.action in QUIET_ACTIONS and not verbose:
            continue
        counts[change.action] += 1
        if limit is None or counts[change.action] <= limit:
            output.write_line(format_change(change, held))
    for action, count in counts.items():
        if limit is not None and count > limit:
            output.write_line(f"{action.symbol} … and {count - limit:,} more; -v lists all.")


def print_summary(report: SyncReport, *, json: bool, is_diff: bool = False) -> None:
    """Print the counts of files and documents, and the speed."""
    console = output.err if json else output.out
    files = [format_counts({outcome: getattr(report, outcome) for outcome in Outcome})]
    files += [f"{report.renamed:,} renamed"] if report.renamed else []
    files += [f"metadata set on {report.metadata_set:,}"] if report.metadata_set else []
    counts = {
        "deleted": report.deleted,
        "kept back": report.kept_back,
        "foreign": report.foreign,
    }
    documents = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    console.print(
        f"{format_count(report.found, 'file')} found in {report.seconds:.1f} s:"
        f" {', '.join(filter(None, files)) or 'nothing to do'}"
        f"{f'; documents: {documents}' if documents else ''}."
    )
    load_summary.print_skipped(console, report)
    if is_diff:
        return
    if report.dry_run:
        console.print("Nothing was changed: this was a dry run.")
        return
    load_summary.print_costs(console, report)


def print_problems(report: SyncReport, words: Sequence[str]) -> str | None:
    """Print why a sync stopped or held something back; return the next step, if there is one."""
    if report.stopped is not None:
        output.err.print(f"error: {_describe_stop(report)}")
    elif report.held is not None:
        reason = output.escape(output.name_options(_OVERRIDE.sub("", report.held)))
        output.err.print(f"error: No document was deleted: {reason}.")
    if report.conflicts:
        count = format_count(report.conflicts, "file")
        output.err.print(
            f"error: {count} not loaded: a document of the same name is not one of this sync."
        )
    return _next_step(report, words)


def _describe_stop(report: SyncReport) -> str:
    if report.stopped in SOURCE_STOPS:
        message = _OVERRIDE.sub("", report.stop_message or report.held or "").rstrip(".")
        return f"{output.escape(message)}. Nothing was changed."
    return (load_summary.format_stop_reason(report, "sync") or "").removeprefix("error: ")


def _next_step(report: SyncReport, words: Sequence[str]) -> str | None:
    if report:
        return None
    has_failed = report.failed + report.stalled + report.unknown > 0
    if has_failed or (report.stopped is not None and report.stopped not in SOURCE_STOPS):
        return load_summary.next_step(report, words)
    override = _OVERRIDE.search(report.held or report.stop_message or "")
    if override is not None:
        option = override[1]
        if option == "--max-delete":
            count = sum(change.reason == report.held for change in report.changes)
            words, option = _without_option(words, option), f"{option}={count}"
        return instruct_repetition("do it all the same", words, option)
    if report.stopped is StopReason.SOURCE_MISSING:
        purpose = "sync once the source is there again"
    elif report.held is not None:
        purpose = "sync once that is corrected"
    elif "--adopt" in words:
        purpose = "sync once the files or these documents have other names"
    else:
        return instruct_repetition("take over those whose size fits", words, "--adopt")
    return instruct_repetition(purpose, words)


def _without_option(words: Sequence[str], option: str) -> list[str]:
    """Return a command line without an option and its value."""
    kept = [word for word in words if not word.startswith(f"{option}=")]
    if option in kept:
        place = kept.index(option)
        del kept[place : place + 2]
    return kept
