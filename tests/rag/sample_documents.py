"""Build documents for tests; read and modify those in `data/formats`.

The files were written by ReportLab 5.1 (handbook, scanned, locked), pandoc 3.9 (lease),
XlsxWriter 3.3 (prices.xlsx) and xlwt 1.3 (prices.xls).
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from dify_kb.rag import ExtractError, extract

DATA = Path(__file__).parents[1] / "data" / "formats"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def extract_sample(name: str) -> list[str]:
    """Return the texts of a file in `DATA`."""
    return extract((DATA / name).read_bytes(), name.rpartition(".")[2])


def extract_error_message(content: bytes, kind: str) -> str:
    with pytest.raises(ExtractError) as caught:
        extract(content, kind)
    return str(caught.value)


def zip_members(**members: str | bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def replace_member(name: str, member: str, content: str) -> bytes:
    """Return a file of `DATA` with one archive member replaced."""
    with zipfile.ZipFile(DATA / name) as archive:
        members = {member_name: archive.read(member_name) for member_name in archive.namelist()}
    return zip_members(**members | {member: content.encode()})


def build_docx(body: str) -> bytes:
    root = f'<w:document xmlns:w="{WORD}" xmlns:r="{RELATION}"><w:body>{body}</w:body></w:document>'
    return replace_member("lease.docx", "word/document.xml", root)


def build_xlsx(rows: str) -> bytes:
    sheet = f"<sheetData>{rows}</sheetData>"
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return replace_member(
        "prices.xlsx",
        "xl/worksheets/sheet1.xml",
        f'<worksheet xmlns="{space}">{sheet}</worksheet>',
    )


def build_cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'
