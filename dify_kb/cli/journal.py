from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from dify_kb.errors import JournalError, KnowledgeError

from . import exit_codes, option_types, output
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import ItemResult
    from dify_kb.ingest.journal import JournalRow, JournalState
    from dify_kb.ingest.journal.read_journal import JournalOverview, PastRun

journal = typer.Typer(
    help="Show and export the journals of loads.", no_args_is_help=True, rich_markup_mode=None
)


@journal.command("show")
def show_(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Path or name of a journal; default: all journals.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        option_types.JournalStateName | None,
        typer.Option(help="List the files with this state.", show_default=False),
    ] = None,
    failures: Annotated[
        bool,
        typer.Option(
            "--failures", help="List all failed files of the last run; default: the first 20."
        ),
    ] = False,
) -> None:
    """Show all journals, or one with its runs and failures.

    States of a file: waiting (not sent), sending (upload started, outcome unknown), accepted (not
    indexed yet), done (indexed), failed, stalled (no indexing progress), emptied (replacing it
    failed, its document has no chunks). Works while a load is running.
    """
    from dify_kb.ingest.journal import JournalState, read_journal

    command: CommandContext = context.obj
    if file is None:
        raise typer.Exit(_print_all(command))
    path = _find_journal(file)
    overview = read_journal.read_overview(path)
    if command.json:
        output.print_json({"type": "journal", **_overview_fields(overview)})
    else:
        _print_journal(overview)
    if state is not None:
        _print_files(command, read_journal.iter_rows(path, state=JournalState(state)))
    if overview.last is not None:
        _print_failures(command, overview, list_all=failures or command.json)


@journal.command()
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Path or name of a journal.")],
) -> None:
    """Print the files of a journal as JSON Lines."""
    from dify_kb.ingest.journal import read_journal

    for row in read_journal.iter_rows(_find_journal(file)):
        output.print_json(_row_fields(row))


def _find_journal(file: str) -> Path:
    """Return the path of a journal, given as a path or as a name in the state folder.

    Raises:
        BadParameter: the path is empty.
        KnowledgeError: the journal does not exist.
    """
    from dify_kb.ingest import state_folder

    named = option_types.parse_path(file)
    for path in (named, state_folder() / file, state_folder() / f"{file}.db"):
        if path.is_file():
            return path
    raise KnowledgeError(
        f"Journal not found: {file}", hint="Run `dify-kb journal show` to list all journals."
    )


def _print_all(command: CommandContext) -> int:
    """Print all journals, with an error line for each that cannot be read."""
    from dify_kb.ingest import state_folder
    from dify_kb.ingest.journal import read_journal

    code = 0
    folder = state_folder()
    paths = read_journal.list_journals(folder)
    if not paths:
        output.err.print(f"No journals in {output.escape(str(folder))}.")
    for number, path in enumerate(paths):
        try:
            overview = read_journal.read_overview(path)
        except JournalError as error:
            code = exit_codes.JOURNAL_ERROR
            output.err.print(f"error: {output.escape(error.summary)}")
            continue
        if command.json:
            output.print_json({"type": "journal", **_overview_fields(overview)})
        else:
            if number:
                output.out.print()
            _print_overview(overview)
    return code


def _print_overview(overview: JournalOverview) -> None:
    source = overview.source or "items or a list"
    output.out.print(f"{overview.path.stem}  {_describe_last_run(overview)}")
    output.out.print(f"  source   {output.escape(', '.join(source.splitlines()))}")
    output.out.print(
        f"  dataset  {output.escape(overview.dataset)} at {output.escape(overview.server)}"
    )
    output.out.print(f"  files    {_format_states(overview.states) or 'none'}")


def _print_journal(overview: JournalOverview) -> None:
    _print_overview(overview)
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
    return f"last run {started:%Y-%m-%d %H:%M}: {_describe_end(overview.last, overview)}"


def _print_failures(command: CommandContext, overview: JournalOverview, *, list_all: bool) -> None:
    from dify_kb.ingest.journal import iter_failed_results

    if overview.last is None:
        return
    results = iter_failed_results(overview.path, overview.last.number)
    if command.json:
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


def _print_files(command: CommandContext, rows: Iterable[JournalRow]) -> None:
    if command.json:
        for row in rows:
            output.print_json({"type": "file", **_row_fields(row)})
        return
    output.out.print()
    for row in rows:
        reason = f": {output.escape(row.reason)}" if row.reason else ""
        output.out.print(f"  {row.state}  {output.escape(row.key)}{reason}")


def _row_fields(row: JournalRow) -> dict[str, object]:
    return {**attrs.asdict(row), "content": row.content.hex()}


def _overview_fields(overview: JournalOverview) -> dict[str, object]:
    return {**attrs.asdict(overview), "path": str(overview.path)}


def _format_states(states: Mapping[JournalState, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in states.items() if count)


def _local_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()
