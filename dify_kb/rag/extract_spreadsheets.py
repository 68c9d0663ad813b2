"""Extract one text per row from csv, xlsx and xls files."""

from __future__ import annotations

import contextlib
import csv
import math
import warnings
from collections import Counter
from io import BytesIO, StringIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from .extract_errors import ExtractError, import_parser, translate_parser_errors
from .extract_limits import (
    MAX_CELLS,
    MAX_XML_STREAM,
    check_archive_size,
    collect_texts,
    too_many_cells_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, time


_MAX_CSV_COLUMNS: Final = 100_000

_SENTINEL_LINE: Final = 'end"'
"""Appended to the input; read as a separate row unless a quotation is still open."""


_MAX_XLSX_ROWS: Final = 1_048_576
_MAX_XLSX_COLUMNS: Final = 16_384
"""Limits of Excel itself; a damaged file may state any number."""

_HEADER_ROWS: Final = 10
"""Number of first rows among which the server looks for the header."""

_MISSING_VALUES: Final = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Texts that pandas reads as missing values (documentation of `pandas.read_excel`)."""


def extract_csv(text: str) -> Iterator[str]:
    """Yield one text per row: `column: value` pairs joined by `;`.

    Rows with too many values are skipped, as on the server, which uses pandas. If the first row
    below the header has extra values, its leading values are treated as the row index and omitted,
    here and in all other rows.

    Raises:
        ExtractError: the header is missing, or a quotation is not closed.
    """
    rows = _iter_csv_rows(text)
    header = next(rows, None)
    if header is None:
        raise ExtractError("No columns to parse from file")
    if len(header) > _MAX_CSV_COLUMNS:
        raise too_many_cells_error()
    names = [name.strip() for name in _name_columns(header)]
    first_row = next(rows, [])
    index_columns = max(0, len(first_row) - len(names))
    width = index_columns + len(names)
    for row in chain([first_row] if first_row else [], rows):
        if len(row) <= width:
            values = [*row, *[""] * (width - len(row))][index_columns:]
            pairs = zip(names, values, strict=True)
            yield ";".join(f"{name}: {value.strip()}" for name, value in pairs)


def _iter_csv_rows(text: str) -> Iterator[list[str]]:
    """Split the text into rows; skip empty lines and lines of spaces."""
    # pandas has no field size limit; raising it for the whole process is harmless.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    previous: list[str] = []
    row_count = 0
    try:
        for row in csv.reader(chain(StringIO(text, newline=""), [_SENTINEL_LINE])):
            if previous and not (len(previous) == 1 and previous[0].isspace()):
                yield previous
            previous = row
            row_count += 1
    except csv.Error as error:
        raise ExtractError(f"Error tokenizing data. C error: {error}") from error
    if previous != [_SENTINEL_LINE]:
        raise ExtractError(
            f"Error tokenizing data. C error: EOF inside string starting at row {row_count - 1}"
        )


def extract_xlsx(content: bytes) -> list[str]:
    """Return one text per row of every sheet: `"column":"value"` pairs joined by `;`.

    The header is the first of ten rows with at least two values, or else the first with one value;
    columns to the right of it are ignored. For a formula, the result stored in the file is used.

    Raises:
        ExtractError: not an xlsx file (case 218), damaged, or larger than a size limit.
    """
    openpyxl = import_parser("openpyxl", "xlsx")
    # openpyxl warns about features that it would lose on writing; nothing is written here.
    warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
    check_archive_size(content, MAX_XML_STREAM)
    with translate_parser_errors():
        book = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True)
        try:
            return collect_texts(_format_xlsx_rows(book))
        finally:
            book.close()


def _format_xlsx_rows(book: Any) -> Iterator[str]:
    remaining_cells = MAX_CELLS
    for sheet in (book[name] for name in book.sheetnames):
        start, names = _find_header(sheet)
        columns = max(names, default=-1) + 1
        for row in _iter_data_rows(sheet, start, columns) if columns else ():
            remaining_cells -= columns
            if remaining_cells < 0:
                raise too_many_cells_error()
            if row.count(None) < columns:
                yield ";".join(
                    f'"{name}":"{_escape_quotes(row[column])}"' for column, name in names.items()
                )


def _iter_data_rows(sheet: Any, start: int, columns: int) -> Iterator[Sequence[Any]]:
    """Yield the rows below the header.

    openpyxl yields the same object for all missing rows; consecutive ones are yielded once, so a
    value at the far end of a sheet costs little.
    """
    previous: Sequence[Any] | None = None
    rows = sheet.iter_rows(min_row=start + 1, max_col=columns, values_only=True)
    for number, row in enumerate(rows, start + 1):
        if number > _MAX_XLSX_ROWS:
            raise too_many_cells_error()
        if row is not previous:
            yield row
        previous = row


def _find_header(sheet: Any) -> tuple[int, dict[int, str]]:
    """Return the number of the header row, from 1, and the column names by index."""
    fallback: tuple[int, dict[int, str]] = (0, {})
    rows = sheet.iter_rows(max_row=_HEADER_ROWS, max_col=_MAX_XLSX_COLUMNS, values_only=True)
    for number, row in enumerate(rows, 1):
        texts = (
            (column, _escape_quotes(value)) for column, value in enumerate(row) if value is not None
        )
        names = {column: text for column, text in texts if text}
        if len(names) > 1:
            return number, names
        if names and not fallback[1]:
            fallback = number, names
    return fallback


def _escape_quotes(value: object) -> str:
    return "" if value is None else str(value).strip().replace('"', '\\"')


def extract_xls(content: bytes) -> list[str]:
    """Return one text per row of every sheet: `"column":"value"` pairs joined by `;`.

    The first row is the header; empty cells are omitted. Numbers are formatted as pandas does it
    on the server. A column of numeric texts counts as numbers. An integer gets `.0` if its column
    contains a gap or a fraction, or if all columns are numeric and one of them does.

    Raises:
        ExtractError: not an xls file, damaged, or password-protected.
    """
    xlrd = import_parser("xlrd", "xls")
    with (
        translate_parser_errors(),
        xlrd.open_workbook(
            file_contents=content, logfile=StringIO(), on_demand=True, ragged_rows=True
        ) as book,
    ):
        return collect_texts(
            text for rows in _read_sheets(xlrd, book) for text in _format_xls_rows(rows)
        )


def _read_sheets(xlrd: Any, book: Any) -> Iterator[list[list[Any]]]:
    remaining_cells = MAX_CELLS
    for number in range(book.nsheets):
        sheet = book.sheet_by_index(number)
        remaining_cells -= sheet.nrows * sheet.ncols
        if remaining_cells < 0:
            raise too_many_cells_error()
        yield [
            [_convert_cell(xlrd, book, cell) for cell in sheet.row(row)]
            for row in range(sheet.nrows)
        ]
        book.unload_sheet(number)


def _convert_cell(xlrd: Any, book: Any, cell: Any) -> Any:
    kind, value = cell.ctype, cell.value
    if kind == xlrd.XL_CELL_DATE:
        return _convert_date(xlrd, book, value)
    if kind == xlrd.XL_CELL_NUMBER:
        return int(value) if math.isfinite(value) and value == int(value) else value
    if kind == xlrd.XL_CELL_BOOLEAN:
        return bool(value)
    return None if kind == xlrd.XL_CELL_ERROR else value


def _convert_date(xlrd: Any, book: Any, value: float) -> datetime | time | float:
    """Return the date of a cell, or the time of day if the date is the first of the calendar."""
    try:
        date: datetime = xlrd.xldate.xldate_as_datetime(value, book.datemode)
    except OverflowError:
        return value
    first = (1904, 1, 1) if book.datemode else (1899, 12, 31)
    return date.time() if (date.year, date.month, date.day) == first else date


def _format_xls_rows(rows: list[list[Any]]) -> list[str]:
    width = max(map(len, rows), default=0)
    columns = _convert_columns(
        [[_cell_value(row, column) for row in rows[1:]] for column in range(width)]
    )
    names = _xls_column_names(rows[0] if rows else [], width)
    texts = (
        ";".join(
            f'"{name}":"{value}"'
            for name, value in zip(names, row, strict=True)
            if value is not None
        )
        for row in zip(*columns, strict=True)
    )
    return [text for text in texts if text]


def _cell_value(row: Sequence[Any], column: int) -> Any:
    value = row[column] if column < len(row) else None
    return None if isinstance(value, str) and value in _MISSING_VALUES else value


def _xls_column_names(header: Sequence[Any], width: int) -> list[str]:
    """Return the column names; in a purely numeric header one float makes all of them floats."""
    if len(set(header)) == width and set(map(type, header)) == {int, float}:
        header = _to_floats(header)
    texts = ["" if value is None else str(value) for value in header]
    return _name_columns(texts + [""] * (width - len(texts)))


def _convert_columns(columns: list[list[Any]]) -> list[list[Any]]:
    """Convert numeric columns to numbers; if all are numeric, one float makes all floats."""
    converted = [_convert_column(column) for column in columns]
    kinds = {type(value) for column in converted for value in column}
    if {int}.issuperset(kinds) or not kinds <= {int, float, type(None)}:
        return converted
    return [_to_floats(column) for column in converted]


def _convert_column(values: list[Any]) -> list[Any]:
    """Convert the values to numbers if all are numeric; with a gap or a fraction, to floats."""
    if {bool, type(None)} == set(map(type, values)):
        return _to_floats(values)
    try:
        numbers = [value if value is None else _parse_number(value) for value in values]
    except ValueError:
        return values
    return numbers if {int}.issuperset(map(type, numbers)) else _to_floats(numbers)


def _parse_number(value: object) -> int | float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError(value)


def _to_floats(column: Sequence[Any]) -> list[Any]:
    return [value if value is None else float(value) for value in column]


def _name_columns(header: Iterable[str]) -> list[str]:
    """Return unique column names as pandas does on the server.

    A column without a name is called "Unnamed: 3" (its index, from 0). A repeated name gets a
    number: "price", "price.1".
    """
    names: dict[str, None] = {}
    repeats: Counter[str] = Counter()
    for position, title in enumerate(header):
        base = name = title or f"Unnamed: {position}"
        while name in names:
            repeats[base] += 1
            name = f"{base}.{repeats[base]}"
        names[name] = None
    return list(names)
