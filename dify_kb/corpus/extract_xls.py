from __future__ import annotations

import contextlib
import math
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from .bounds import MAX_CELLS, bounded, too_many_cells
from .columns import column_names
from .unread import parser, parsing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, time

_MISSING: Final = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Texts that pandas takes for no value (its documentation of `read_excel`)."""


def xls_rows(content: bytes) -> list[str]:
    """Return a text per row of every sheet, `"column":"value"` joined by `;`, without empty cells.

    The first row names the columns. The server reads with pandas, so a column of numbers is one
    also where they are typed as texts, and an integer gets `.0` where its column has a gap or a
    fraction, or where every column is of numbers and one of them has.

    Raises:
        ExtractError: no xls, a damaged one, or one with a password.
    """
    xlrd = parser("xlrd", "xls")
    with (
        parsing(),
        xlrd.open_workbook(
            file_contents=content, logfile=StringIO(), on_demand=True, ragged_rows=True
        ) as book,
    ):
        return bounded(text for rows in _sheets(xlrd, book) for text in _texts(rows))


def _sheets(xlrd: Any, book: Any) -> Iterator[list[list[Any]]]:
    left = MAX_CELLS
    for number in range(book.nsheets):
        sheet = book.sheet_by_index(number)
        left -= sheet.nrows * sheet.ncols
        if left < 0:
            raise too_many_cells()
        yield [[_value(xlrd, book, cell) for cell in sheet.row(at)] for at in range(sheet.nrows)]
        book.unload_sheet(number)


def _value(xlrd: Any, book: Any, cell: Any) -> Any:
    kind, value = cell.ctype, cell.value
    if kind == xlrd.XL_CELL_DATE:
        return _date(xlrd, book, value)
    if kind == xlrd.XL_CELL_NUMBER:
        return int(value) if math.isfinite(value) and value == int(value) else value
    if kind == xlrd.XL_CELL_BOOLEAN:
        return bool(value)
    return None if kind == xlrd.XL_CELL_ERROR else value


def _date(xlrd: Any, book: Any, value: float) -> datetime | time | float:
    """Tell a date; one on the first day that there is is a time of day."""
    try:
        date: datetime = xlrd.xldate.xldate_as_datetime(value, book.datemode)
    except OverflowError:
        return value
    first = (1904, 1, 1) if book.datemode else (1899, 12, 31)
    return date.time() if (date.year, date.month, date.day) == first else date


def _texts(rows: list[list[Any]]) -> list[str]:
    width = max(map(len, rows), default=0)
    columns = _numbers([[_at(row, at) for row in rows[1:]] for at in range(width)])
    names = _names(rows[0] if rows else [], width)
    texts = (
        ";".join(
            f'"{name}":"{value}"'
            for name, value in zip(names, row, strict=True)
            if value is not None
        )
        for row in zip(*columns, strict=True)
    )
    return [text for text in texts if text]


def _at(row: Sequence[Any], at: int) -> Any:
    value = row[at] if at < len(row) else None
    return None if isinstance(value, str) and value in _MISSING else value


def _names(header: Sequence[Any], width: int) -> list[str]:
    """Name every column; one fraction among numbers makes fractions of them all."""
    if len(set(header)) == width and set(map(type, header)) == {int, float}:
        header = _floats(header)
    texts = ["" if value is None else str(value) for value in header]
    return column_names(texts + [""] * (width - len(texts)))


def _numbers(columns: list[list[Any]]) -> list[list[Any]]:
    """Make numbers of columns that are nothing else; one float makes floats of them all."""
    made = [_column(column) for column in columns]
    kinds = {type(value) for column in made for value in column}
    if {int}.issuperset(kinds) or not kinds <= {int, float, type(None)}:
        return made
    return [_floats(column) for column in made]


def _column(values: list[Any]) -> list[Any]:
    """Make numbers of the values if all are; what stands beside a gap is a float."""
    if {bool, type(None)} == set(map(type, values)):
        return _floats(values)
    try:
        numbers = [value if value is None else _number(value) for value in values]
    except ValueError:
        return values
    return numbers if {int}.issuperset(map(type, numbers)) else _floats(numbers)


def _number(value: object) -> int | float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError(value)


def _floats(column: Sequence[Any]) -> list[Any]:
    return [value if value is None else float(value) for value in column]
