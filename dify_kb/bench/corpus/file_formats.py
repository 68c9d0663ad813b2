"""Write manuals in the file formats that servers accept, without libraries. Pure."""

from __future__ import annotations

import csv
import html
import io
import textwrap
import zipfile
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .random_text import Manual

LINES, COLUMNS = 50, 90
"""Size of a PDF page."""


def write_markdown(manual: Manual) -> bytes:
    """Return a manual as Markdown."""
    parts = [f"# {manual.title}"]
    for section in manual.sections:
        parts += [f"## {section.heading}", manual.section_text(section)]
    return ("\n\n".join(parts) + "\n").encode()


def write_text(manual: Manual) -> bytes:
    """Return a manual as plain text."""
    parts = [manual.title]
    for section in manual.sections:
        parts += [f"{section.heading}\n{manual.section_text(section)}"]
    return ("\n\n".join(parts) + "\n").encode()


def write_html(manual: Manual) -> bytes:
    """Return a manual as HTML."""
    body = "\n".join(
        f"<h2>{html.escape(section.heading)}</h2>\n<p>{html.escape(manual.section_text(section))}</p>"
        for section in manual.sections
    )
    title = html.escape(manual.title)
    return (
        f'<!doctype html>\n<html><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    ).encode()


def write_csv(manual: Manual) -> bytes:
    """Return a manual as CSV, with a row per section."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(_rows(manual))
    return text.getvalue().encode()


def write_docx(manual: Manual) -> bytes:
    """Return a manual as a minimal docx."""
    lines = [manual.title]
    for section in manual.sections:
        lines += [section.heading, manual.section_text(section)]
    body = "".join(
        f'<w:p><w:r><w:t xml:space="preserve">{escape(line)}</w:t></w:r></w:p>' for line in lines
    )
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    return _zip_files(
        {
            "[Content_Types].xml": _content_types({"/word/document.xml": main}),
            "_rels/.rels": _relationships("officeDocument", "word/document.xml"),
            "word/document.xml": f'{_XML}<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body>'
            "</w:document>",
        }
    )


def write_xlsx(manual: Manual) -> bytes:
    """Return a manual as a minimal xlsx, with a row per section."""
    rows = "".join(
        "<row>"
        + "".join(f'<c t="inlineStr"><is><t>{escape(cell)}</t></is></c>' for cell in row)
        + "</row>"
        for row in _rows(manual)
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return _zip_files(
        {
            "[Content_Types].xml": _content_types(
                {
                    "/xl/workbook.xml": f"{kind}.sheet.main+xml",
                    "/xl/worksheets/sheet1.xml": f"{kind}.worksheet+xml",
                }
            ),
            "_rels/.rels": _relationships("officeDocument", "xl/workbook.xml"),
            "xl/workbook.xml": f'{_XML}<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}">'
            '<sheets><sheet name="Manual" sheetId="1" r:id="rId1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": _relationships("worksheet", "worksheets/sheet1.xml"),
            "xl/worksheets/sheet1.xml": f'{_XML}<worksheet xmlns="{_SHEET}"><sheetData>{rows}'
            "</sheetData></worksheet>",
        }
    )


def write_pdf(manual: Manual) -> bytes:
    """Return a manual as a minimal PDF in Helvetica, which is limited to Latin-1."""
    lines = [manual.title, ""]
    for section in manual.sections:
        lines += [section.heading, *textwrap.wrap(manual.section_text(section), COLUMNS), ""]
    pages = [lines[start : start + LINES] for start in range(0, len(lines), LINES)]
    numbers = [4 + 2 * index for index in range(len(pages))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, page_lines in zip(numbers, pages, strict=True):
        stream = _pdf_text_stream(page_lines)
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (number + 1),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    return _build_pdf(objects)


WRITERS: Mapping[str, Callable[[Manual], bytes]] = {
    "md": write_markdown,
    "txt": write_text,
    "html": write_html,
    "csv": write_csv,
    "docx": write_docx,
    "xlsx": write_xlsx,
    "pdf": write_pdf,
}
"""Writers by file extension."""

_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def _rows(manual: Manual) -> Sequence[tuple[str, str]]:
    sections = [(section.heading, manual.section_text(section)) for section in manual.sections]
    return [("chapter", manual.title), *sections]


def _content_types(parts: Mapping[str, str]) -> str:
    overrides = "".join(
        f'<Override PartName="{name}" ContentType="{kind}"/>' for name, kind in parts.items()
    )
    relations = "application/vnd.openxmlformats-package.relationships+xml"
    return (
        f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
        f'<Default Extension="rels" ContentType="{relations}"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
    )


def _relationships(kind: str, target: str) -> str:
    return (
        f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/{kind}" Target="{target}"/></Relationships>'
    )


def _zip_files(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            # A fixed timestamp: the same seed gives the same bytes.
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode())
    return buffer.getvalue()


def _pdf_text_stream(lines: Sequence[str]) -> bytes:
    escaped = (
        line.encode("cp1252", "replace")
        .replace(b"\\", b"\\\\")
        .replace(b"(", b"\\(")
        .replace(b")", b"\\)")
        for line in lines
    )
    page_lines = b"".join(b"(%s) Tj T*\n" % line for line in escaped)
    return b"BT /F1 10 Tf 15 TL 50 790 Td\n%sET" % page_lines


def _build_pdf(objects: Sequence[bytes]) -> bytes:
    output = bytearray(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(output))
        output += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(output)
    output += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    output += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    output += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    output += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(output)
