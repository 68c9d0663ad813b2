"""Print text and tables for people, or JSON Lines for programs."""

from __future__ import annotations

import json as _json
import re
import sys
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from typing import Any, Literal, TypeVar

from attrs import asdict, frozen
from rich.console import Console
from rich.text import Text

from dify_kb.errors import KnowledgeError, escape_text

from .output_streams import is_quiet
from .table_layout import NAME_COLUMNS, TEXT_COLUMNS, TableFormat, wrap_message

T = TypeVar("T")

_NOUNS = {"segment": "chunk", "child_chunk": "child chunk"}
"""The words for models in messages, where they differ from their names."""

MAX_CELL_TEXT = 60
"""The length of a text in a table, in characters."""

_PARAMETER = re.compile(r"\b\w+=\w* \((--[\w-]+(?: [A-Z]+)?)\)")
"""A parameter in Python, with the option that stands for it: `journal= (--journal)`."""

MAX_LISTED_FAILURES = 20
"""The number of failed files listed without --json."""


class MessageConsole(Console):
    """A console that wraps messages between words on a terminal, and never in a pipe."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts as messages, and other objects as rich does."""
        if self.is_terminal:
            objects = tuple(map(self._wrap, objects))
        super().print(*objects, **options)

    def _wrap(self, value: object) -> object:
        if isinstance(value, str):
            return wrap_message(value, self.width)
        if isinstance(value, Text) and len(value) > self.width:  # its label has the spans
            wrapped = wrap_message(value.plain, self.width)
            return Text(wrapped, style=value.style, spans=value.spans)
        return value


out = MessageConsole(soft_wrap=True, highlight=False, markup=False)
err = MessageConsole(stderr=True, soft_wrap=True, highlight=False, markup=False)


def escape(text: str) -> str:
    """Escape what standard output cannot show, so that the width of a text is known."""
    text = escape_text(text)
    return text if text.isascii() else _to_encoding(text, "backslashreplace")


def _to_encoding(text: str, errors: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, errors).decode(encoding)


def dump_json(value: Mapping[str, object]) -> str:
    """Return ASCII JSON, which any terminal and any reader accepts."""
    return _json.dumps(value, ensure_ascii=True)


def print_json(value: Mapping[str, object]) -> None:
    """Print one line of JSON."""
    write_line(dump_json(value))


def write_line(text: str) -> None:
    """Print one line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a count, a hint or an announcement on stderr, unless --quiet was given."""
    if not is_quiet():
        err.print(text)


def shorten(text: str) -> str:
    """Return the beginning of a text in one line, at most `MAX_CELL_TEXT` characters."""
    return table_format().shorten(" ".join(text.split()), MAX_CELL_TEXT, middle=False)


def print_model(kind: str, value: object) -> None:
    """Print a model as one line of JSON; `type` is `kind`, unless the model has a type."""
    print_json({"type": kind, **to_fields(value)})


def to_fields(value: object) -> dict[str, object]:
    """Return the fields of a model as JSON values."""
    from dify_kb.wire import codec

    return codec.encode_fields(value)


async def print_rows(
    kind: str,
    found: AsyncIterable[T] | Iterable[T],
    columns: Mapping[str, Callable[[T], object]],
    *,
    json: bool,
) -> None:
    """Print models as a table with these columns, or each as a line of JSON as it arrives.

    The table omits columns without values. Without rows, a message on stderr says so.
    """
    if not json:
        listed = [row async for row in iterate(found)]
        if not listed:
            note(f"No {_NOUNS.get(kind, kind.replace('_', ' '))}s.")
            return
        cells = {name: [read(row) for row in listed] for name, read in columns.items()}
        # Empty columns would leave less width for names.
        kept = {name: cells for name, cells in cells.items() if {*cells} != {None}}
        print_table(tuple(kept), zip(*kept.values(), strict=True))
        return
    async for row in iterate(found):
        print_model(kind, row)


async def iterate(found: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """Iterate over an iterable of either kind."""
    if isinstance(found, AsyncIterable):
        async for row in found:
            yield row
    else:
        for row in found:
            yield row


def print_details(kind: str, value: object, cells: Mapping[str, object], *, json: bool) -> None:
    """Print a model as a line of JSON, or `cells` as a table with one row per cell."""
    if json:
        print_model(kind, value)
    else:
        print_table(("", ""), cells.items())


def name_options(text: str) -> str:
    """Return a message with the options of the program, without the parameters in Python."""
    return _PARAMETER.sub(r"\1", text)


def print_error(error: KnowledgeError) -> None:
    """Print an error and its hint on stderr."""
    err.print(Text(f"error: {escape(name_options(error.summary))}", style="red"))
    err.print(f"next:  {escape(name_options(error.hint) or 'Run `dify-kb --help`.')}")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    shortened: Collection[str] = NAME_COLUMNS | TEXT_COLUMNS,
    highlighted: Collection[int] = (),
) -> None:
    """Print a table; numbers are aligned right. Without column names, print names and values.

    Args:
        shortened: the columns that may be shortened on a narrow terminal.
        highlighted: indexes of the rows in bold.
    """
    written = [[format_cell(value) for value in row] for row in rows]
    layout = table_format()
    lines = (
        layout.format_table(columns, written, shortened=shortened, highlighted=highlighted)
        if any(columns)
        else layout.format_details([(name, value) for name, value in written])
    )
    for line in lines:
        if layout.width is None:
            sys.stdout.write(f"{line.text}\n")
        else:
            out.print(Text(line.text, style=line.style))


def table_format() -> TableFormat:
    """Return the format of tables on standard output: its width if it is a terminal."""
    return TableFormat(
        width=out.width if out.is_terminal else None,
        ellipsis="…" if _to_encoding("…", "replace") == "…" else "...",
    )


def format_cell(value: object) -> str:
    """Return a value as text: numbers with separators, local times, `-` for None."""
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
    """The result of a check, for `doctor` and `external check`.

    `settings` are the names of the server settings that the result depends on.
    """

    check: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""
    settings: Sequence[str] = ()


def print_check(check: DiagnosticCheck, *, json: bool) -> None:
    """Print the result of a check, with its remedy in a second line."""
    if json:
        print_json({"type": "check", **asdict(check)})
        return
    style = {"ok": "green", "warning": "yellow", "failed": "red"}[check.status]
    text = Text(f"{check.status:8}", style=style).append(f"{check.check}: ", style="bold")
    out.print(text.append(escape(name_options(check.detail)), style="not bold"))
    if check.remedy:
        out.print(f"        next: {escape(name_options(check.remedy))}")
