from __future__ import annotations

import re
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from .archive import MAX_TREE, check_archive
from .bounds import MAX_CELLS, bounded, too_many_cells
from .unread import ExtractError, parser, parsing

if TYPE_CHECKING:
    from collections.abc import Iterator

_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LINK_FIELD: Final = re.compile(r'HYPERLINK\s+"([^"]+)"', re.IGNORECASE)


def word_text(content: bytes) -> list[str]:
    """Return the text of a docx: a line per paragraph, tables and links as Markdown.

    As on the server, the spaces around a run (a stretch of one formatting) are lost, so words of
    two formattings may touch; headers, footers, notes and text boxes are not read. The links to
    pictures that the server adds are left out: there are no pictures to link to.

    Raises:
        ExtractError: no docx (case 208), a damaged one, or one that unpacks to too much.
    """
    docx = parser("docx", "docx")
    if not zipfile.is_zipfile(BytesIO(content)):
        raise ExtractError("Package not found at 'upload.docx'")
    check_archive(content, MAX_TREE)
    with parsing():
        document = docx.Document(_Upload(content))
        _check_spans(document)
        return ["\n".join(bounded(_lines(document)))]


class _Upload(BytesIO):
    """The file, by the name that an error is to give it."""

    def __str__(self) -> str:
        return "upload.docx"


def _check_spans(document: Any) -> None:
    # python-docx repeats a cell for every column that it spans.
    spans = document.element.xpath("//w:gridSpan/@w:val")
    if sum(int(span) for span in spans if span.isdecimal()) > MAX_CELLS:
        raise too_many_cells()


def _lines(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            yield from _table(block)
        else:
            yield _paragraph(block) or "\n"


def _paragraph(paragraph: Any) -> str:
    parts: list[str] = []
    field = _Field()
    for item in paragraph.iter_inner_content():
        if hasattr(item, "address"):
            parts.append(_link(item))
            continue
        parts.extend(field.passes(item.element))
        (field.shown if field.collects else parts).append(item.text.strip())
    return "".join(parts)


def _link(link: Any) -> str:
    text = "".join(run.text for run in link.runs).strip()
    try:
        address = link.address
    except KeyError:
        return text
    return f"[{text or address}]({address})" if address else text


class _Field:
    """The field that runs of a paragraph are in; one that links becomes a Markdown link."""

    def __init__(self) -> None:
        self.collects = False
        self.shown: list[str] = []
        self._target: str | None = None

    def passes(self, run: Any) -> Iterator[str]:
        """Take the marks of a run; tell the link that ends here."""
        for instruction in run.findall(f"{_W}instrText"):
            if found := _LINK_FIELD.search(instruction.text or ""):
                self._target = found[1]
        for mark in run.findall(f"{_W}fldChar"):
            kind = mark.get(f"{_W}fldCharType")
            if kind == "separate":
                self.collects = self._target is not None
                continue
            text = "".join(self.shown).strip()
            if kind == "end" and self.collects and text:
                yield f"[{text}]({self._target})"
            self.collects, self.shown, self._target = False, [], None


def _table(table: Any) -> Iterator[str]:
    rows = [row.cells for row in table.rows]
    columns = max(map(len, rows))
    if columns * len(rows) > MAX_CELLS:
        raise too_many_cells()
    for number, cells in enumerate(rows):
        if number == 1:
            yield f"| {' | '.join(['---'] * columns)} |"
        yield f"| {' | '.join(_row(cells, columns))} |"
    if len(rows) == 1:
        yield f"| {' | '.join(['---'] * columns)} |"


def _row(cells: Any, columns: int) -> list[str]:
    """Tell the text of each column; a cell that spans several stands in the first of them."""
    texts = [""] * columns
    at = 0
    while at < len(cells):
        texts[at] = _cell(cells[at])
        at += max(1, cells[at].grid_span)
    return texts


def _cell(cell: Any) -> str:
    """Join the paragraphs; one that is there twice counts once, as on the server."""
    texts = ("".join(run.text for run in part.runs).strip() for part in cell.paragraphs)
    return " ".join(dict.fromkeys(filter(None, texts)))
