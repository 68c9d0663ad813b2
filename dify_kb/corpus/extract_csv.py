from __future__ import annotations

import csv
from io import StringIO
from itertools import chain
from typing import TYPE_CHECKING, Final

from .bounds import too_many_cells
from .columns import column_names
from .unread import ExtractError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_COLUMNS: Final = 100_000

_END: Final = 'end"'
"""A line that is added. An open quotation would end at its quote, which stays otherwise."""


def csv_rows(text: str) -> Iterator[str]:
    """Yield a text per row, `column: value` joined by `;`.

    Rows of too many values are left out, as on the server, which reads with pandas. If the first
    row below the header has too many, the values at its front are taken for the row's name and
    left out here, and of the other rows likewise.

    Raises:
        ExtractError: no header, or a quotation that does not end.
    """
    rows = _rows(text)
    header = next(rows, None)
    if header is None:
        raise ExtractError("No columns to parse from file")
    if len(header) > _MAX_COLUMNS:
        raise too_many_cells()
    names = [name.strip() for name in column_names(header)]
    first = next(rows, [])
    named = max(0, len(first) - len(names))
    width = named + len(names)
    for row in chain([first] if first else [], rows):
        if len(row) <= width:
            values = [*row, *[""] * (width - len(row))][named:]
            pairs = zip(names, values, strict=True)
            yield ";".join(f"{name}: {value.strip()}" for name, value in pairs)


def _rows(text: str) -> Iterator[list[str]]:
    """Cut the text into rows; empty lines and lines of spaces are none."""
    # pandas has no such limit; to raise it for the whole process harms nobody.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    before: list[str] = []
    read = 0
    try:
        for row in csv.reader(chain(StringIO(text, newline=""), [_END])):
            if before and not (len(before) == 1 and before[0].isspace()):
                yield before
            before = row
            read += 1
    except csv.Error as error:
        raise ExtractError(f"Error tokenizing data. C error: {error}") from error
    if before != [_END]:
        raise ExtractError(
            f"Error tokenizing data. C error: EOF inside string starting at row {read - 1}"
        )
