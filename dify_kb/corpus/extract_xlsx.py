from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from .archive import MAX_STREAM, check_archive
from .bounds import MAX_CELLS, bounded, too_many_cells
from .unread import parser, parsing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_ROWS: Final = 1_048_576
_MAX_COLUMNS: Final = 16_384
"""Excel's own limits; a damaged file may state any number."""

_HEADER_ROWS: Final = 10
"""Among which the server looks for the names of the columns."""


def xlsx_rows(content: bytes) -> list[str]:
    """Return a text per row of every sheet, `"column":"value"` joined by `;`.

    The columns are named by the first of ten rows that has two values, or else by the first that
    has one; columns beyond are not read. Formulas are what the writing program computed.

    Raises:
        ExtractError: no xlsx (case 218), a damaged one, or one that unpacks to too much.
    """
    openpyxl = parser("openpyxl", "xlsx")
    # It warns of whatever it does not keep when it writes, and nothing is written here.
    warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
    check_archive(content, MAX_STREAM)
    with parsing():
        book = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True)
        try:
            return bounded(_rows(book))
        finally:
            book.close()


def _rows(book: Any) -> Iterator[str]:
    left = MAX_CELLS
    for sheet in (book[name] for name in book.sheetnames):
        start, names = _header(sheet)
        columns = max(names, default=-1) + 1
        for row in _present(sheet, start, columns) if columns else ():
            left -= columns
            if left < 0:
                raise too_many_cells()
            if row.count(None) < columns:
                yield ";".join(f'"{name}":"{_quoted(row[at])}"' for at, name in names.items())


def _present(sheet: Any, start: int, columns: int) -> Iterator[Sequence[Any]]:
    """Go through the rows below the header.

    Rows that are missing are all the same object and come once: one at the far end of a sheet
    costs little.
    """
    before: Sequence[Any] | None = None
    rows = sheet.iter_rows(min_row=start + 1, max_col=columns, values_only=True)
    for number, row in enumerate(rows, start + 1):
        if number > _MAX_ROWS:
            raise too_many_cells()
        if row is not before:
            yield row
        before = row


def _header(sheet: Any) -> tuple[int, dict[int, str]]:
    """Find the row that names the columns, counted from 1, and their names by number."""
    first: tuple[int, dict[int, str]] = (0, {})
    rows = sheet.iter_rows(max_row=_HEADER_ROWS, max_col=_MAX_COLUMNS, values_only=True)
    for number, row in enumerate(rows, 1):
        texts = ((at, _quoted(value)) for at, value in enumerate(row) if value is not None)
        names = {at: text for at, text in texts if text}
        if len(names) > 1:
            return number, names
        if names and not first[1]:
            first = number, names
    return first


def _quoted(value: object) -> str:
    return "" if value is None else str(value).strip().replace('"', '\\"')
