"""Tables of chunks for review: read and write CSV, XLSX and JSON Lines."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from attrs import frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dify_kb.models import Document, Segment

COLUMNS: Final = (
    "document", "document_id", "segment_id", "position", "enabled", "content", "answer",
    "keywords", "delete", "checksum",
)  # fmt: skip
FORMATS: Final = (".csv", ".xlsx", ".jsonl")

_CHECKSUM_LENGTH: Final = 12
_MAX_CELL: Final = 32_767
"""Characters of a cell in XLSX."""

_TRUE: Final = frozenset({"true", "yes", "y", "x", "1", "wahr"})


@frozen(kw_only=True)
class ChunkRow:
    """A row of a table: a chunk, or one to append if it has no `segment_id`.

    `checksum` identifies the chunk as it was exported: a chunk that was changed since then on the
    server is not overwritten.
    """

    document: str
    document_id: str
    segment_id: str = ""
    position: int | None = None
    enabled: bool = True
    content: str
    answer: str | None = None
    keywords: Sequence[str] = ()
    delete: bool = False
    checksum: str = ""

    @classmethod
    def from_segment(cls, document: Document, segment: Segment) -> ChunkRow:
        """Return the row of a chunk."""
        return cls(
            document=document.name,
            document_id=document.id,
            segment_id=segment.id,
            position=segment.position,
            enabled=segment.enabled is not False,
            content=segment.content,
            answer=segment.answer or None,
            keywords=tuple(segment.keywords or ()),
            checksum=compute_checksum(segment),
        )


def compute_checksum(segment: Segment) -> str:
    """Return a short digest of what a table can change of a chunk."""
    enabled = segment.enabled is not False
    keywords = sorted(segment.keywords or ())
    parts = [segment.content, segment.answer or "", keywords, enabled]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_CHECKSUM_LENGTH]


@contextmanager
def open_writer(path: Path) -> Iterator[Callable[[ChunkRow], None]]:
    """Provide a function that writes rows to a new table, which appears when the block ends.

    Raises:
        ConfigError: the extension is not one of a table, the package openpyxl is missing, or a text
            does not fit into a cell.
    """
    kind = _check_format(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        if kind == ".xlsx":
            with _open_workbook(partial) as write:
                yield write
        else:
            encoding = "utf-8-sig" if kind == ".csv" else "utf-8"
            with partial.open("w", encoding=encoding, newline="") as stream:
                yield _create_csv_writer(stream) if kind == ".csv" else _create_line_writer(stream)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"Cannot write {path}: {error.strerror or error}.", hint="Pass a writable path."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _create_csv_writer(stream: TextIO) -> Callable[[ChunkRow], None]:
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    return lambda row: writer.writerow(_to_cells(row)) and None


def _create_line_writer(stream: TextIO) -> Callable[[ChunkRow], None]:
    def write(row: ChunkRow) -> None:
        values = {name: getattr(row, name) for name in COLUMNS}
        stream.write(json.dumps({**values, "keywords": [*row.keywords]}) + "\n")

    return write


@contextmanager
def _open_workbook(path: Path) -> Iterator[Callable[[ChunkRow], None]]:
    openpyxl = _import_openpyxl()
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("chunks")
    sheet.append(COLUMNS)

    def write(row: ChunkRow) -> None:
        cells = []
        for value in _to_cells(row):
            text = str(value)
            if len(text) > _MAX_CELL or openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.search(text):
                raise ConfigError(
                    f"A chunk of {row.document!r} does not fit into a cell of XLSX: it has control"
                    f" characters, or more than {_MAX_CELL:,} characters.",
                    hint="Export to .csv or .jsonl.",
                )
            cell = openpyxl.cell.WriteOnlyCell(sheet, value=text)
            cell.data_type = "s"  # a text that begins with = is not a formula
            cells.append(cell)
        sheet.append(cells)

    try:
        yield write
        workbook.save(path)
    except BaseException:
        sheet.close()
        raise


def _import_openpyxl() -> Any:
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
        importlib.import_module("openpyxl.cell.cell")
    except ModuleNotFoundError:
        raise ConfigError(
            "Tables of the format .xlsx require the package openpyxl.",
            hint="pip install 'dify-kb[emulator]', or use .csv.",
        ) from None
    return openpyxl


def _to_cells(row: ChunkRow) -> list[str | int]:
    return [
        row.document,
        row.document_id,
        row.segment_id,
        "" if row.position is None else row.position,
        "yes" if row.enabled else "no",
        row.content,
        row.answer or "",
        _join_keywords(row.keywords),
        "yes" if row.delete else "",
        row.checksum,
    ]


def _join_keywords(keywords: Sequence[str]) -> str:
    joined = ", ".join(keywords)
    return joined if _split_keywords(joined) == [*keywords] else json.dumps([*keywords])


def _split_keywords(text: str) -> list[str]:
    if text.startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, list):
            return [str(word) for word in value]
    return [word for part in text.split(",") if (word := part.strip())]


def read_rows(path: Path) -> Iterator[ChunkRow]:
    """Yield the rows of a table. Columns may be in any order; only `content` and ids are required.

    Raises:
        ConfigError: the table cannot be read, a column is missing, or a row is invalid.
    """
    kind = _check_format(path)
    try:
        if kind == ".xlsx":
            yield from _read_records(path, _iter_sheet(path))
        elif kind == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as stream:
                csv.field_size_limit(2**31 - 1)
                yield from _read_records(path, csv.reader(stream))
        else:
            with path.open(encoding="utf-8") as stream:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        yield _parse_line(path, number, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.",
            hint="Pass a table of `dify-kb segments export`, in UTF-8.",
        ) from error


def _iter_sheet(path: Path) -> Iterator[Sequence[object]]:
    import zipfile

    openpyxl = _import_openpyxl()
    try:
        workbook = openpyxl.load_workbook(path, read_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is not an XLSX file.", hint="Pass .csv or .jsonl.") from error
    try:
        yield from workbook.worksheets[0].iter_rows(values_only=True)
    finally:
        workbook.close()


def _read_records(path: Path, lines: Iterator[Sequence[object]]) -> Iterator[ChunkRow]:
    header = [str(cell or "").strip().lower() for cell in next(lines, ())]
    for number, line in enumerate(lines, 2):
        cells = dict(
            zip(header, ("" if cell is None else str(cell) for cell in line), strict=False)
        )
        if any(cells.values()):
            yield _parse_row(path, number, cells)


def _parse_line(path: Path, number: int, line: str) -> ChunkRow:
    try:
        value = json.loads(line)
        fields = {str(name): item for name, item in value.items() if item is not None}
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"Line {number} of {path} is not a JSON object.", hint="Correct the line."
        ) from error
    keywords = fields.get("keywords")
    if isinstance(keywords, list):
        fields["keywords"] = json.dumps([str(word) for word in keywords])
    for name in ("enabled", "delete"):
        if isinstance(fields.get(name), bool):
            fields[name] = "yes" if fields[name] else "no"
    return _parse_row(path, number, {name: str(item) for name, item in fields.items()})


def _parse_row(path: Path, number: int, cells: Mapping[str, str]) -> ChunkRow:
    """Return a row.

    Raises:
        ConfigError: a required column is missing.
    """
    missing = [name for name in ("document_id", "content") if name not in cells]
    if missing or not cells["document_id"]:
        raise ConfigError(
            f"Row {number} of {path} has no {(missing or ['document_id'])[0]}.",
            hint="Keep the columns of `dify-kb segments export`.",
        )
    position = cells.get("position", "")
    return ChunkRow(
        document=cells.get("document", ""),
        document_id=cells["document_id"].strip(),
        segment_id=cells.get("segment_id", "").strip(),
        position=int(position) if position.isdecimal() else None,
        enabled=cells.get("enabled", "yes").strip().lower() in {*_TRUE, ""},
        content=cells["content"],
        answer=cells.get("answer") or None,
        keywords=tuple(_split_keywords(cells.get("keywords", ""))),
        delete=cells.get("delete", "").strip().lower() in _TRUE,
        checksum=cells.get("checksum", "").strip(),
    )


def _check_format(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ConfigError(
            f"Unknown format of a table: {path.name!r}.", hint=f"Use {', '.join(FORMATS)}."
        )
    return kind
