"""Print journals: their source, runs, files and failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from dify_kb import ItemResult
from dify_kb.arguments import format_size
from dify_kb.errors import JournalError
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import JournalRow, JournalState, iter_failed_results, read_journal
from dify_kb.ingest.journal.read_journal import JournalOverview, PastRun
from dify_kb.ingest.progress import format_duration

from . import exit_codes, output
from .list_options import RowOrder

STATE_NAMES: Mapping[JournalState, str] = {
    JournalState.WAITING: "pending",
    JournalState.SENDING: "unknown",
    JournalState.ACCEPTED: "accepted",
    JournalState.DONE: "loaded",
    JournalState.FAILED: "failed",
    JournalState.STALLED: "stalled",
    JournalState.EMPTIED: "emptied",
    JournalState.TRASHED: "trashed",
}
"""The states of a file in the words of the outcomes of a load."""


def format_source(overview: JournalOverview) -> str:
    """Return the paths and addresses of the source."""
    return ", ".join(overview.roots) or "items or a list"


JOURNAL_COLUMNS: Mapping[str, Callable[[JournalOverview], object]] = {
    "used": lambda one: one.used,
    "source": format_source,
    "dataset": lambda one: one.dataset_name or one.dataset,
    "files": lambda one: sum(one.states.values()),
    "size": lambda one: one.size,
}
"""The values by which journals can be sorted."""

FILE_COLUMNS: Mapping[str, Callable[[JournalRow], object]] = {
    "name": lambda row: row.key,
    "size": lambda row: row.size,
}
"""The values by which files can be sorted."""


def print_all(paths: Sequence[Path], order: RowOrder, *, json: bool) -> int:
    """Print journals, with an error line for each that cannot be read; return the exit code."""
    code = 0
    overviews: list[JournalOverview] = []
    if not paths:
        output.note(f"No journals in {output.escape(str(state_folder()))}.")
    for path in paths:
        try:
            overviews.append(read_journal.read_overview(path))
        except JournalError as error:
            code = exit_codes.JOURNAL_ERROR
            output.err.print(f"error: {output.escape(error.summary)}")
    for number, overview in enumerate(order.arrange(overviews, JOURNAL_COLUMNS)):
        if number and not json:
            output.out.print()
        print_overview(overview, json=json)
    return code


def print_overview(overview: JournalOverview, *, json: bool = False) -> None:
    """Print the summary of a journal."""
    if json:
        fields = {**attrs.asdict(overview), "path": str(overview.path)}
        states = {STATE_NAMES[state]: count for state, count in overview.states.items()}
        output.print_json({"type": "journal", **fields, "states": states})
    else:
        _print_summary(overview)


def _print_summary(overview: JournalOverview) -> None:
    dataset = overview.dataset
    if overview.dataset_name is not None:
        dataset = f"{overview.dataset_name} ({dataset})"
    output.out.print(f"{overview.path.stem}  {_describe_last_run(overview)}")
    rows = {
        "  source": format_source(overview),
        "  dataset": f"{dataset} at {overview.server}",
        "  files": _format_states(overview.states) or "none",
        "  size": format_size(overview.size),
    }
    output.print_table(("", ""), rows.items())


def print_runs(overview: JournalOverview) -> None:
    """Print the summary of a journal and its last runs."""
    _print_summary(overview)
    output.out.print(f"  journal  {output.escape(str(overview.path))}")
    output.out.print()
    output.print_table(
        ("run", "started", "seconds", "ended", "found", "added", "updated", "failed", "left"),
        (_run_row(run, overview) for run in overview.runs),
    )


def _run_row(run: PastRun, overview: JournalOverview) -> tuple[object, ...]:
    seconds = None if run.ended is None else round(run.ended - run.started)
    report = run.report or {}
    unfinished = [report.get(name) for name in ("stalled", "unknown", "pending")]
    return (
        run.number,
        _local_time(run.started),
        seconds,
        _describe_end(run, overview),
        *(report.get(name) for name in ("found", "added", "updated", "failed")),
        sum(count for count in unfinished if isinstance(count, int)) if report else None,
    )


def _describe_end(run: PastRun, overview: JournalOverview) -> str:
    if run.report is not None:
        return str(run.report.get("stopped") or "finished")
    if run is overview.last and overview.writer is not None:
        return f"running (process {overview.writer})"
    return "interrupted"


def _describe_last_run(overview: JournalOverview) -> str:
    if overview.last is None:
        return "no run"
    started = _local_time(overview.last.started)
    age = format_duration(max(0.0, time.time() - overview.used))
    return (
        f"last run {started:%Y-%m-%d %H:%M} ({age} ago): {_describe_end(overview.last, overview)}"
    )


def print_failures(overview: JournalOverview, *, json: bool, list_all: bool) -> None:
    """Print the files that the last run did not load."""
    if overview.last is None:
        return
    results = iter_failed_results(overview.path, overview.last.number)
    if json:
        for result in results:
            output.print_json({"type": "item", **attrs.asdict(result)})
        return
    for line in _failure_lines(results, list_all=list_all):
        output.out.print(line)


def _failure_lines(results: Iterable[ItemResult], *, list_all: bool) -> Iterator[str]:
    for number, result in enumerate(results):
        if number == 0:
            yield "\nNot loaded in the last run:"
        if not list_all and number == output.MAX_LISTED_FAILURES:
            yield "  … and more; pass --failures to list all."
            return
        reason = output.escape(result.reason or "")
        yield f"  {result.outcome}  {output.escape(result.key)}: {reason}"


def print_files(rows: Iterable[JournalRow], *, json: bool) -> None:
    """Print files with their state and its reason."""
    if not json:
        output.out.print()
    for row in rows:
        if json:
            output.print_json({"type": "file", **row_fields(row)})
            continue
        reason = f": {output.escape(row.reason)}" if row.reason else ""
        output.out.print(f"  {STATE_NAMES[row.state]}  {output.escape(row.key)}{reason}")


def row_fields(row: JournalRow) -> dict[str, object]:
    """Return the fields of a file as JSON values."""
    return {**attrs.asdict(row), "state": STATE_NAMES[row.state], "content": row.content.hex()}


def _format_states(states: Mapping[JournalState, int]) -> str:
    return ", ".join(f"{count:,} {STATE_NAMES[state]}" for state, count in states.items() if count)


def _local_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()
