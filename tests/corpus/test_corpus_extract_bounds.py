"""Files that unpack to more than a server should hold."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from corpus_packed import DATA, cell, changed, docx, packed, refusal, xlsx

from dify_kb.corpus import extract


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
