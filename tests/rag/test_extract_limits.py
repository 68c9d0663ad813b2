"""Limits on the size of unpacked and extracted documents."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from sample_documents import (
    DATA,
    build_cell,
    build_docx,
    build_xlsx,
    extract_error_message,
    replace_member,
    zip_members,
)

from dify_kb.rag import extract


def test_value_at_the_far_end_of_a_sheet_costs_little() -> None:
    rows = (
        f'<row r="1">{build_cell("A1", "a")}{build_cell("XFD1", "b")}</row>'
        f'<row r="1048576">{build_cell("A1048576", "z")}</row>'
    )

    assert extract(build_xlsx(rows), "xlsx") == ['"a":"z";"b":""']


def test_row_number_beyond_the_limit_of_excel_is_an_error() -> None:
    """Otherwise two thousand million missing rows would be iterated."""
    rows = (
        f'<row r="1">{build_cell("A1", "a")}{build_cell("B1", "b")}</row>'
        f'<row r="2000000000">{build_cell("A2000000000", "z")}</row>'
    )

    assert "10,000,000 cells" in extract_error_message(build_xlsx(rows), "xlsx")


@pytest.mark.parametrize("kind", ["docx", "xlsx"])
def test_archive_above_the_size_limit_is_not_unpacked(kind: str) -> None:
    content = zip_members(**{"word/document.xml": b"<a>" + b" " * 70_000_000})

    assert len(content) < 100_000
    assert "unpacks to 70,000,003 bytes" in extract_error_message(content, kind)


def test_cell_spanning_too_many_columns_is_an_error() -> None:
    wide = '<w:tc><w:tcPr><w:gridSpan w:val="100000000"/></w:tcPr><w:p/></w:tc>'

    body = f"<w:tbl><w:tblGrid/><w:tr>{wide}</w:tr></w:tbl>"
    assert "10,000,000 cells" in extract_error_message(build_docx(body), "docx")


@pytest.mark.parametrize("kind", ["docx", "xlsx"])
def test_exponential_entity_expansion_is_an_error(kind: str) -> None:
    """Nine levels of ten references expand forty letters to forty thousand million."""
    levels = "".join(
        f'<!ENTITY {level} "{f"&{below};" * 10}">' for below, level in pairwise("abcdefghij")
    )
    bomb = f'<!DOCTYPE x [<!ENTITY a "{"l" * 40}">{levels}]><x>&j;</x>'
    name, member = {
        "docx": ("lease.docx", "word/document.xml"),
        "xlsx": ("prices.xlsx", "xl/sharedStrings.xml"),
    }[kind]

    assert extract_error_message(replace_member(name, member, bomb), kind)


def test_column_name_repeated_in_every_row_counts_towards_the_limit() -> None:
    content = b"a" * 1_000_000 + b"\n" + b"x\n" * 1_000

    assert "50,000,000 characters" in extract_error_message(content, "csv")


def test_pdf_page_above_the_size_limit_is_not_processed() -> None:
    stream = zlib.compress(b"0 0 m " * 6_000_000)
    content = (DATA / "handbook.pdf").read_bytes() + b"<</Filter/FlateDecode>>stream\n" + stream

    assert "32,000,000 bytes per page" in extract_error_message(content, "pdf")


def test_pictures_of_a_pdf_are_not_limited() -> None:
    stream = b"<</Subtype/Image/Filter/FlateDecode>>stream\n" + zlib.compress(b"0" * 36_000_000)
    content = (DATA / "handbook.pdf").read_bytes() + stream

    assert len(extract(content, "pdf")) == 50
