"""Documents that other programs made, and damaged ones.

`data/formats` holds what ReportLab 5.1 (handbook, scanned, locked), pandoc 3.9 (lease), XlsxWriter
3.3 (prices.xlsx) and xlwt 1.3 (prices.xls) wrote. What is expected of the tables was compared with
pandas 2.3 on 300 made workbooks and 3,000 made csv files.
"""

from __future__ import annotations

import sys
import threading
import zipfile
import zlib
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.corpus import ExtractError, extract

DATA = Path(__file__).parents[1] / "data" / "formats"
FILES = sorted(DATA.iterdir())
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def read(name: str) -> list[str]:
    return extract((DATA / name).read_bytes(), name.rpartition(".")[2])


def refusal(content: bytes, kind: str) -> str:
    with pytest.raises(ExtractError) as caught:
        extract(content, kind)
    return str(caught.value)


def packed(**members: str | bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def changed(name: str, member: str, content: str) -> bytes:
    """A file of `DATA` with another member."""
    with zipfile.ZipFile(DATA / name) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    return packed(**members | {member: content.encode()})


def docx(body: str) -> bytes:
    root = f'<w:document xmlns:w="{WORD}" xmlns:r="{RELATION}"><w:body>{body}</w:body></w:document>'
    return changed("lease.docx", "word/document.xml", root)


def xlsx(rows: str) -> bytes:
    sheet = f"<sheetData>{rows}</sheetData>"
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return changed(
        "prices.xlsx",
        "xl/worksheets/sheet1.xml",
        f'<worksheet xmlns="{space}">{sheet}</worksheet>',
    )


def cell(place: str, text: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_pdf_is_a_text_per_page() -> None:
    pages = read("handbook.pdf")

    assert len(pages) == 50
    assert pages[36].startswith("Maintenance handbook, page 37 of 50\r\nStep 1: check")
    assert pages[36].endswith("The purple heron nests behind the third turbine hall.")


def test_scanned_pdf_has_no_text() -> None:
    assert read("scanned.pdf") == [""]


def test_pdf_with_a_password_is_an_error() -> None:
    """In the form of case 206, which is of a broken one."""
    with pytest.raises(ExtractError) as caught:
        read("locked.pdf")

    assert str(caught.value) == "Failed to load document (PDFium: Incorrect password error)."


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"%PDF-1.4 broken", "pdf", "Failed to load document (PDFium: Data format error)."),
        (b"", "pdf", "Failed to load document (PDFium: Data format error)."),
        (b"notzip", "xlsx", "File is not a zip file"),
        (b"notzip", "docx", "Package not found at 'upload.docx'"),
        (b"notzip", "xls", "Unsupported format, or corrupt file: Expected BOF record"),
    ],
)
def test_broken_files_fail_in_the_words_of_the_server(
    content: bytes, kind: str, message: str
) -> None:
    """Cases 206, 208 and 218; there the path of a temporary file stands in the second."""
    assert refusal(content, kind).startswith(message)


def test_docx_is_lines_with_links_and_tables_as_markdown() -> None:
    """Words of two formattings touch, as on the server, which strips every run."""
    (text,) = read("lease.docx")

    assert text.split("\n") == [
        "Terms of the lease",
        "Terms",
        "Thetenantkeeps the[garden](https://example.org/garden)in order.",
        "The silver otter clause applies from the second year on.",
        "first",
        "second",
        "| Item | Rent |",
        "| --- | --- |",
        "| Flat | 900 |",
        "| Loft | 750 |",
        "code stays",
        "Naïve café \u2013数据库.",
    ]


def test_docx_link_of_an_old_field_is_markdown() -> None:
    runs = [
        '<w:fldChar w:fldCharType="begin"/>',
        '<w:instrText>HYPERLINK "https://example.org/a"</w:instrText>',
        '<w:fldChar w:fldCharType="separate"/>',
        "<w:t>the </w:t>",
        "<w:t>page</w:t>",
        '<w:fldChar w:fldCharType="end"/>',
        "<w:t> after</w:t>",
    ]
    body = "".join(f"<w:r>{run}</w:r>" for run in runs)

    assert extract(docx(f"<w:p>{body}</w:p>"), "docx") == ["[thepage](https://example.org/a)after"]


def test_docx_cells_that_span_columns_stand_in_the_first() -> None:
    wide = '<w:tcPr><w:gridSpan w:val="2"/></w:tcPr>'
    row = "<w:tr>{}</w:tr>"
    one = "<w:tc>{}<w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    rows = row.format(one.format(wide, "head")) + row.format(one.format("", "a") * 2)

    assert extract(docx(f"<w:tbl><w:tblGrid/>{rows}</w:tbl>"), "docx") == [
        "| head |  |\n| --- | --- |\n| a | a |"
    ]


def test_empty_paragraphs_of_a_docx_are_empty_lines() -> None:
    body = "<w:p/><w:p><w:r><w:t>a</w:t></w:r></w:p>"

    assert extract(docx(body), "docx") == ["\n\na"]


def test_docx_without_its_parts_is_an_error() -> None:
    assert "[Content_Types].xml" in refusal(packed(a="b"), "docx")


def test_cut_off_docx_is_an_error() -> None:
    content = (DATA / "lease.docx").read_bytes()

    assert refusal(content[: len(content) // 2], "docx") == "Package not found at 'upload.docx'"


def test_workbook_named_docx_is_an_error() -> None:
    message = refusal((DATA / "prices.xlsx").read_bytes(), "docx")

    assert message.startswith("file 'upload.docx' is not a Word file, content type is")


def test_xlsx_is_a_text_per_row_under_the_first_row_of_two_names() -> None:
    """The title above the table is no header, a formula is what it came to, a gap is empty."""
    assert read("prices.xlsx") == [
        r'"Article":"Copper kettle";"Price":"129.5";"Since":"2026-03-01 00:00:00";"Note":"\"A\""',
        '"Article":"Brass lantern";"Price":"64.75";"Since":"";"Note":""',
    ]


def test_xlsx_with_one_column_is_named_by_its_first_row() -> None:
    rows = "".join(
        f'<row r="{at}">{cell(f"A{at}", text)}</row>' for at, text in ((2, "n"), (4, "x"))
    )

    assert extract(xlsx(rows), "xlsx") == ['"n":"x"']


def test_xls_reads_numbers_as_pandas_does() -> None:
    """A gap in the column of integers makes fractions of them; an empty cell is left out."""
    assert read("prices.xls") == [
        '"Article":"Copper kettle";"Price":"129.5";"Stock":"3.0"',
        '"Article":"Brass lantern";"Price":"64.0"',
    ]


def test_value_at_the_far_end_of_a_sheet_costs_little() -> None:
    rows = (
        f'<row r="1">{cell("A1", "a")}{cell("XFD1", "b")}</row>'
        f'<row r="1048576">{cell("A1048576", "z")}</row>'
    )

    assert extract(xlsx(rows), "xlsx") == ['"a":"z";"b":""']


def test_row_beyond_the_end_of_a_sheet_is_an_error() -> None:
    """Else the rows between would be counted up to two thousand million."""
    rows = (
        f'<row r="1">{cell("A1", "a")}{cell("B1", "b")}</row>'
        f'<row r="2000000000">{cell("A2000000000", "z")}</row>'
    )

    assert "cells of tables" in refusal(xlsx(rows), "xlsx")


@pytest.mark.parametrize("kind", ["docx", "xlsx"])
def test_archive_that_unpacks_to_too_much_is_not_unpacked(kind: str) -> None:
    content = packed(**{"word/document.xml": b"<a>" + b" " * 70_000_000})

    assert len(content) < 100_000
    assert "unpacks to 70,000,003 bytes" in refusal(content, kind)


def test_cells_that_span_any_number_of_columns_are_an_error() -> None:
    wide = '<w:tc><w:tcPr><w:gridSpan w:val="100000000"/></w:tcPr><w:p/></w:tc>'

    body = f"<w:tbl><w:tblGrid/><w:tr>{wide}</w:tr></w:tbl>"
    assert "cells of tables" in refusal(docx(body), "docx")


@pytest.mark.parametrize("kind", ["docx", "xlsx"])
def test_entities_that_multiply_are_an_error(kind: str) -> None:
    """Nine levels of ten make forty thousand million letters of forty."""
    levels = "".join(
        f'<!ENTITY {level} "{f"&{below};" * 10}">' for below, level in pairwise("abcdefghij")
    )
    bomb = f'<!DOCTYPE x [<!ENTITY a "{"l" * 40}">{levels}]><x>&j;</x>'
    name, member = {
        "docx": ("lease.docx", "word/document.xml"),
        "xlsx": ("prices.xlsx", "xl/sharedStrings.xml"),
    }[kind]

    assert refusal(changed(name, member, bomb), kind)


def test_name_repeated_in_every_row_is_bounded() -> None:
    content = b"a" * 1_000_000 + b"\n" + b"x\n" * 1_000

    assert "50,000,000 characters" in refusal(content, "csv")


def test_page_that_unpacks_to_too_much_is_not_drawn() -> None:
    stream = zlib.compress(b"0 0 m " * 6_000_000)
    content = (DATA / "handbook.pdf").read_bytes() + b"<</Filter/FlateDecode>>stream\n" + stream

    assert "32,000,000 bytes of a page" in refusal(content, "pdf")


def test_pictures_of_a_pdf_may_unpack_to_anything() -> None:
    stream = b"<</Subtype/Image/Filter/FlateDecode>>stream\n" + zlib.compress(b"0" * 36_000_000)
    content = (DATA / "handbook.pdf").read_bytes() + stream

    assert len(extract(content, "pdf")) == 50


def test_threads_read_pdfs_in_turn() -> None:
    """PDFium may crash the process where two threads use it."""
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(read("handbook.pdf")))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [50] * 6


@pytest.mark.parametrize(
    ("kind", "module"),
    [("pdf", "pypdfium2"), ("docx", "docx"), ("xlsx", "openpyxl"), ("xls", "xlrd")],
)
def test_missing_parser_is_named_with_the_way_to_install_it(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    assert refusal(b"", kind) == (
        f"Reading .{kind} files needs {module}, which is not installed;"
        " install dify-kb[emulator]"
    )


@settings(deadline=None, max_examples=60)
@given(file=st.sampled_from(FILES), data=st.data())
def test_damaged_files_are_texts_or_an_extract_error(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))

    with suppress(ExtractError):
        texts = extract(bytes(content[:end] if data.draw(st.booleans()) else content), file.suffix)
        assert all(isinstance(text, str) for text in texts)
