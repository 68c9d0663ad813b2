from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import attrs
import typer

from dify_kb import ItemResult
from dify_kb.errors import JournalError, KnowledgeError
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import Row, State, failures, reading
from dify_kb.ingest.journal.reading import Overview, PastRun

from . import exits, show, words
from .app import Session, app
from .load_summary import LISTED

journal = typer.Typer(
    help="Show and export the journals of loads.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(journal, name="journal")


@journal.command("show")
def show_(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Path or name of a journal; default: all in the state folder.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        State | None, typer.Option(help="List the files in this state.", show_default=False)
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="List all failed files of the last run.")
    ] = False,
) -> None:
    """Show the journals of loads: all of them, or one.

    A file is waiting (not sent), sending (perhaps sent), accepted (not seen indexed), done
    (indexed), failed, stalled (its indexing stopped moving) or emptied (its replacement failed, and
    its document has no chunks). A load may write the journal meanwhile.
    """
    session: Session = context.obj
    if file is None:
        raise typer.Exit(_all(session))
    path = _named(file)
    seen = reading.overview(path)
    if session.json:
        show.line({"type": "journal", **_fields(seen)})
    else:
        _one(seen)
    if state is not None:
        _files(session, reading.items(path, state=state))
    if seen.last is not None:
        _failures(session, seen, whole=failures or session.json)


@journal.command()
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Path or name of a journal.")],
) -> None:
    """Write every file of a journal as JSON Lines."""
    for row in reading.items(_named(file)):
        show.line(_row(row))


def _named(file: str) -> Path:
    """Return the path of a journal, given as a path or as a name in the state folder.

    Raises:
        BadParameter: the path is empty.
        KnowledgeError: the journal does not exist.
    """
    named = words.path(file)
    for path in (named, state_folder() / file, state_folder() / f"{file}.db"):
        if path.is_file():
            return path
    raise KnowledgeError(
        f"Journal not found: {file}", hint="`dify-kb journal show` lists all journals."
    )


def _all(session: Session) -> int:
    """Print all journals; one that cannot be read does not hide the others."""
    code = 0
    folder = state_folder()
    paths = reading.journals(folder)
    if not paths:
        show.err.print(f"No journals in {show.printable(str(folder))}.")
    for number, path in enumerate(paths):
        try:
            seen = reading.overview(path)
        except JournalError as error:
            code = exits.JOURNAL
            show.err.print(f"error: {show.printable(error.summary)}")
            continue
        if session.json:
            show.line({"type": "journal", **_fields(seen)})
        else:
            if number:
                show.out.print()
            _short(seen)
    return code


def _short(seen: Overview) -> None:
    source = seen.source or "items, or a list"
    show.out.print(f"{seen.path.stem}  {_last(seen)}")
    show.out.print(f"  source   {show.printable(', '.join(source.splitlines()))}")
    show.out.print(f"  dataset  {show.printable(seen.dataset)} at {show.printable(seen.server)}")
    show.out.print(f"  files    {_counted(seen.states) or 'none'}")


def _one(seen: Overview) -> None:
    _short(seen)
    show.out.print(f"  journal  {show.printable(str(seen.path))}")
    show.out.print()
    show.table(
        ("run", "started", "seconds", "ended", "found", "added", "updated", "failed", "left"),
        (_of_run(run, seen) for run in seen.runs),
    )


def _of_run(run: PastRun, seen: Overview) -> tuple[object, ...]:
    seconds = None if run.ended is None else round(run.ended - run.started)
    report = run.report or {}
    left = [report.get(name) for name in ("stalled", "unknown", "pending")]
    return (
        run.number,
        _time(run.started),
        seconds,
        _end(run, seen),
        *(report.get(name) for name in ("found", "added", "updated", "failed")),
        sum(count for count in left if isinstance(count, int)) if report else None,
    )


def _end(run: PastRun, seen: Overview) -> str:
    if run.report is not None:
        return str(run.report.get("stopped") or "by itself")
    if run is seen.last and seen.writer is not None:
        return f"goes on (process {seen.writer})"
    return "cut off"


def _last(seen: Overview) -> str:
    if seen.last is None:
        return "no run"
    return f"last run {_time(seen.last.started):%Y-%m-%d %H:%M}: {_end(seen.last, seen)}"


def _failures(session: Session, seen: Overview, *, whole: bool) -> None:
    if seen.last is None:
        return
    found = failures(seen.path, seen.last.number)
    if session.json:
        for result in found:
            show.line({"type": "item", **attrs.asdict(result)})
        return
    for line in _lines(found, whole=whole):
        show.out.print(line)


def _lines(found: Iterable[ItemResult], *, whole: bool) -> Iterator[str]:
    for number, result in enumerate(found):
        if number == 0:
            yield "\nNot loaded in the last run:"
        if not whole and number == LISTED:
            yield "  … and more; --failures lists all."
            return
        reason = show.printable(result.reason or "")
        yield f"  {result.outcome}  {show.printable(result.key)}: {reason}"


def _files(session: Session, rows: Iterable[Row]) -> None:
    if session.json:
        for row in rows:
            show.line({"type": "file", **_row(row)})
        return
    show.out.print()
    for row in rows:
        reason = f": {show.printable(row.reason)}" if row.reason else ""
        show.out.print(f"  {row.state}  {show.printable(row.key)}{reason}")


def _row(row: Row) -> dict[str, object]:
    return {**attrs.asdict(row), "content": row.content.hex()}


def _fields(seen: Overview) -> dict[str, object]:
    return {**attrs.asdict(seen), "path": str(seen.path)}


def _counted(states: Mapping[State, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in states.items() if count)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()
