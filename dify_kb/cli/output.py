"""Writing for people and for programs."""

from __future__ import annotations

import json as _json
import os
import sys
import textwrap
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeVar

from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dify_kb.errors import KnowledgeError

T = TypeVar("T")

UNFOLDED_WIDTH = 10_000
"""Characters of a line where no terminal has to show it."""

MAX_CELL_TEXT = 60
"""Characters of a text in a table."""

FOLDED_COLUMNS = {"", "name", "dataset", "text", "error"}
"""Columns of which a narrow terminal shows the values in several lines."""

MAX_LISTED_FAILURES = 20
"""Failed files that are listed for people; --json lists all."""

out = Console(soft_wrap=True, highlight=False, markup=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def escape(text: str) -> str:
    """Show what no terminal can: bytes of a file name that are no text, control characters."""
    text = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def dump_json(value: Mapping[str, object]) -> str:
    """Turn into JSON that any terminal and any reader takes."""
    return _json.dumps(value, ensure_ascii=True)


def print_json(value: Mapping[str, object]) -> None:
    """Write one line of JSON."""
    sys.stdout.write(f"{dump_json(value)}\n")
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write a line of what was done. The work goes on where nobody reads it any more."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, sys.stdout.fileno())
        os.close(null_device)


def shorten(text: str) -> str:
    """Put a text on one line that fits a table."""
    return textwrap.shorten(text, MAX_CELL_TEXT, placeholder=" …")


def print_model(kind: str, value: object) -> None:
    """Write a model as one line of JSON. `type` says what it is, unless it has a type itself."""
    print_json({"type": kind, **to_fields(value)})


def to_fields(value: object) -> dict[str, object]:
    """Return the fields of a model as they are written in JSON."""
    from dify_kb.wire import codec

    return codec.encode_fields(value)


async def print_rows(
    kind: str,
    found: AsyncIterable[T] | Iterable[T],
    columns: Mapping[str, Callable[[T], object]],
    *,
    json: bool,
) -> None:
    """Write models: a line of JSON each, as they come, or a table of those columns.

    Columns in which nothing stands are left out.
    """
    if not json:
        listed = [row async for row in _iterate(found)]
        cells = {name: [read(row) for row in listed] for name, read in columns.items()}
        # A column in which nothing stands takes room from names.
        kept = {name: cells for name, cells in cells.items() if {*cells} != {None}}
        print_table(tuple(kept), zip(*kept.values(), strict=True))
        return
    async for row in _iterate(found):
        print_model(kind, row)


async def _iterate(found: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    if isinstance(found, AsyncIterable):
        async for row in found:
            yield row
    else:
        for row in found:
            yield row


def print_details(kind: str, value: object, cells: Mapping[str, object], *, json: bool) -> None:
    """Write a model: a line of JSON, or a table with a line for each of those cells."""
    if json:
        print_model(kind, value)
    else:
        print_table(("", ""), cells.items())


def print_error(error: KnowledgeError) -> None:
    """Write an error: what happened, and what to do."""
    err.print(Text(f"error: {escape(error.summary)}", style="red"))
    err.print(f"next:  {escape(error.hint or 'See dify-kb --help.')}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers to the right. Without names of columns there is no head."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    written = [[format_cell(value) for value in row] for row in rows]
    for position, column in enumerate(columns):
        numeric = all(row[position].replace(",", "").isdigit() for row in written) and written
        grid.add_column(
            column,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=column not in FOLDED_COLUMNS,
        )
    for row in written:
        grid.add_row(*map(Text, row))
    print_grid(grid)


def print_grid(grid: Table) -> None:
    """Write a table that is made already."""
    if out.is_terminal:
        out.print(grid, soft_wrap=False)
        return
    # Programs like grep want a row on a line, and nothing behind it.
    console = Console(width=UNFOLDED_WIDTH, highlight=False, markup=False)
    with console.capture() as written:
        console.print(grid, soft_wrap=False)
    for line_ in written.get().splitlines():
        sys.stdout.write(f"{line_.rstrip()}\n")


def format_cell(value: object) -> str:
    """Write a value for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M}"
        case _:
            return escape(str(value))


@frozen(kw_only=True)
class DiagnosticCheck:
    """One line of the diagnosis."""

    check: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""


def print_check(check: DiagnosticCheck, *, json: bool) -> None:
    """Write one line, and a second one where something is to be done."""
    if json:
        print_json({"type": "check", **asdict(check)})
        return
    style = {"ok": "green", "warning": "yellow", "failed": "red"}[check.status]
    text = Text(f"{check.status:8}", style=style).append(f"{check.check}: ", style="bold")
    out.print(text.append(escape(check.detail), style="not bold"))
    if check.remedy:
        out.print(f"        next: {escape(check.remedy)}")
