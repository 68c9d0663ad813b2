"""Extract the text of docx files, with tables and links as Markdown."""

from __future__ import annotations

import re
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from .extract_errors import ExtractError, import_parser, translate_parser_errors
from .extract_limits import (
    MAX_CELLS,
    MAX_XML_TREE,
    check_archive_size,
    collect_texts,
    too_many_cells_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LINK_FIELD: Final = re.compile(r'HYPERLINK\s+"([^"]+)"', re.IGNORECASE)


def extract_docx(content: bytes) -> list[str]:
    """Return the text of a docx file: one line per paragraph, tables and links as Markdown.

    As on the server, spaces around a run (text of one formatting) are lost, so words of different
    formatting may be joined; headers, footers, notes and text boxes are ignored. Unlike the server,
    no image links are added, because no images are stored.

    Raises:
        ExtractError: not a docx file (case 208), damaged, or larger than a size limit.
    """
    docx = import_parser("docx", "docx")
    if not zipfile.is_zipfile(BytesIO(content)):
        raise ExtractError("Package not found at 'upload.docx'")
    check_archive_size(content, MAX_XML_TREE)
    with translate_parser_errors():
        document = docx.Document(_UploadFile(content))
        _check_grid_spans(document)
        return ["\n".join(collect_texts(_iter_lines(document)))]


class _UploadFile(BytesIO):
    """A file that error messages call `upload.docx`."""

    def __str__(self) -> str:
        return "upload.docx"


def _check_grid_spans(document: Any) -> None:
    # python-docx repeats a cell for every column it spans.
    spans = document.element.xpath("//w:gridSpan/@w:val")
    if sum(int(span) for span in spans if span.isdecimal()) > MAX_CELLS:
        raise too_many_cells_error()


def _iter_lines(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            yield from _format_table(block)
        else:
            yield _format_paragraph(block) or "\n"


def _format_paragraph(paragraph: Any) -> str:
    parts: list[str] = []
    field = _LinkField()
    for item in paragraph.iter_inner_content():
        if hasattr(item, "address"):
            parts.append(_format_link(item))
            continue
        parts.extend(field.feed(item.element))
        (field.label_parts if field.is_collecting else parts).append(item.text.strip())
    return "".join(parts)


def _format_link(link: Any) -> str:
    text = "".join(run.text for run in link.runs).strip()
    try:
        address = link.address
    except KeyError:
        return text
    return f"[{text or address}]({address})" if address else text


class _LinkField:
    """Parser of the fields in a paragraph; turns a hyperlink field into a Markdown link."""

    def __init__(self) -> None:
        self.is_collecting = False
        self.label_parts: list[str] = []
        self._target: str | None = None

    def feed(self, run: Any) -> Iterator[str]:
        """Process the field characters of a run; yield the link that ends in this run."""
        for instruction in run.findall(f"{_W}instrText"):
            if match := _LINK_FIELD.search(instruction.text or ""):
                self._target = match[1]
        for mark in run.findall(f"{_W}fldChar"):
            kind = mark.get(f"{_W}fldCharType")
            if kind == "separate":
                self.is_collecting = self._target is not None
                continue
            text = "".join(self.label_parts).strip()
            if kind == "end" and self.is_collecting and text:
                yield f"[{text}]({self._target})"
            self.is_collecting, self.label_parts, self._target = False, [], None


def _format_table(table: Any) -> Iterator[str]:
    rows = [row.cells for row in table.rows]
    columns = max(map(len, rows))
    if columns * len(rows) > MAX_CELLS:
        raise too_many_cells_error()
    for number, cells in enumerate(rows):
        if number == 1:
            yield f"| {' | '.join(['---'] * columns)} |"
        yield f"| {' | '.join(_format_row(cells, columns))} |"
    if len(rows) == 1:
        yield f"| {' | '.join(['---'] * columns)} |"


def _format_row(cells: Any, columns: int) -> list[str]:
    """Return the text of each column; a cell spanning several columns fills the first."""
    texts = [""] * columns
    column = 0
    while column < len(cells):
        texts[column] = _format_cell(cells[column])
        column += max(1, cells[column].grid_span)
    return texts


def _format_cell(cell: Any) -> str:
    """Join the distinct paragraphs of a cell; duplicates are dropped, as on the server."""
    texts = ("".join(run.text for run in part.runs).strip() for part in cell.paragraphs)
    return " ".join(dict.fromkeys(filter(None, texts)))
