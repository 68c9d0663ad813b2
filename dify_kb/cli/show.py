"""Writing for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dify_kb.errors import KnowledgeError

out = Console(soft_wrap=True, highlight=False, markup=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def printable(text: str) -> str:
    """Show what no terminal can: bytes of a file name that are no text, control characters."""
    text = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def line(value: Mapping[str, object]) -> None:
    """Write one line of JSON."""
    sys.stdout.write(f"{json.dumps(value, ensure_ascii=True)}\n")
    sys.stdout.flush()


def failure(error: KnowledgeError) -> None:
    """Write an error: what happened, and what to do."""
    err.print(Text(f"error: {printable(error.summary)}", style="red"))
    err.print(f"next:  {printable(error.hint or 'See dify-kb --help.')}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers to the right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    written = [[_cell(cell) for cell in row] for row in rows]
    for position, column in enumerate(columns):
        numeric = all(row[position].replace(",", "").isdigit() for row in written) and written
        grid.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=False
        )
    for row in written:
        grid.add_row(*(Text(cell) for cell in row))
    out.print(grid, soft_wrap=False)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M}"
        case _:
            return printable(str(value))
