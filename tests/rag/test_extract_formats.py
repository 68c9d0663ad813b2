"""Documents that other programs made, and damaged ones.

`data/formats` holds what ReportLab 5.1 (handbook, scanned, locked), pandoc 3.9 (lease), XlsxWriter
3.3 (prices.xlsx) and xlwt 1.3 (prices.xls) wrote. What is expected of the tables was compared with
pandas 2.3 on 300 made workbooks and 3,000 made csv files.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_documents import (
    DATA,
    build_cell,
    build_docx,
    build_xlsx,
    extract_error_message,
    zip_members,
)

from dify_kb.rag import ExtractError, extract

FILES = sorted(DATA.iterdir())


def read(name: str) -> list[str]:
    return extract((DATA / name).read_bytes(), name.rpartition(".")[2])


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
    assert extract_error_message(content, kind).startswith(message)


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

    assert extract(build_docx(f"<w:p>{body}</w:p>"), "docx") == [
        "[thepage](https://example.org/a)after"
    ]


def test_docx_cells_that_span_columns_stand_in_the_first() -> None:
    wide = '<w:tcPr><w:gridSpan w:val="2"/></w:tcPr>'
    row = "<w:tr>{}</w:tr>"
    one = "<w:tc>{}<w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    rows = row.format(one.format(wide, "head")) + row.format(one.format("", "a") * 2)

    assert extract(build_docx(f"<w:tbl><w:tblGrid/>{rows}</w:tbl>"), "docx") == [
        "| head |  |\n| --- | --- |\n| a | a |"
    ]


def test_empty_paragraphs_of_a_docx_are_empty_lines() -> None:
    body = "<w:p/><w:p><w:r><w:t>a</w:t></w:r></w:p>"

    assert extract(build_docx(body), "docx") == ["\n\na"]


def test_docx_without_its_parts_is_an_error() -> None:
    assert "[Content_Types].xml" in extract_error_message(zip_members(a="b"), "docx")


def test_cut_off_docx_is_an_error() -> None:
    content = (DATA / "lease.docx").read_bytes()

    assert (
        extract_error_message(content[: len(content) // 2], "docx")
        == "Package not found at 'upload.docx'"
    )


def test_workbook_named_docx_is_an_error() -> None:
    message = extract_error_message((DATA / "prices.xlsx").read_bytes(), "docx")

    assert message.startswith("file 'upload.docx' is not a Word file, content type is")


def test_xlsx_is_a_text_per_row_under_the_first_row_of_two_names() -> None:
    """The title above the table is no header, a formula is what it came to, a gap is empty."""
    assert read("prices.xlsx") == [
        r'"Article":"Copper kettle";"Price":"129.5";"Since":"2026-03-01 00:00:00";"Note":"\"A\""',
        '"Article":"Brass lantern";"Price":"64.75";"Since":"";"Note":""',
    ]


def test_xlsx_with_one_column_is_named_by_its_first_row() -> None:
    rows = "".join(
        f'<row r="{at}">{build_cell(f"A{at}", text)}</row>' for at, text in ((2, "n"), (4, "x"))
    )

    assert extract(build_xlsx(rows), "xlsx") == ['"n":"x"']


def test_xls_reads_numbers_as_pandas_does() -> None:
    """A gap in the column of integers makes fractions of them; an empty cell is left out."""
    assert read("prices.xls") == [
        '"Article":"Copper kettle";"Price":"129.5";"Stock":"3.0"',
        '"Article":"Brass lantern";"Price":"64.0"',
    ]


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

    assert extract_error_message(b"", kind) == (
        f"Reading .{kind} files needs {module}, which is not installed; install dify-kb[emulator]"
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
