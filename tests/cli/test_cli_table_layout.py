"""Tables on narrow terminals: no name is wrapped, no id is cut, no line is too long."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from dify_kb.cli.table_layout import TableFormat, wrap_words

ID = "00000000-0000-4000-8000-00000000000{}"
NAMES = {
    "short": ["a.txt", "b.txt"],
    "long": ["a-long-name-of-a-document__in-a-folder__of-2024.txt", "b.txt"],
    "very long": ["x" * 200 + ".txt", "y" * 199 + "-2.txt"],
    "chinese": ["中文文档的名字很长很长很长很长很长很长很长.txt", "日本.txt"],
    "emoji": ["📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚📚-handbook.pdf", "📕.pdf"],
}
TABLES = {
    "documents": ("name", "status", "characters", "id"),
    "datasets": ("name", "documents", "technique", "id"),
    "tags": ("name", "id"),
    "segments": ("position", "text", "status", "enabled", "id"),
    "stats": ("dataset", "documents", "characters", "chunks", "errors", "stuck"),
    "runs": ("run", "started", "seconds", "ended", "found", "added", "updated", "failed", "left"),
}
VALUES = {"status": "available", "technique": "high_quality", "enabled": "yes", "ended": "finished"}


def make_rows(columns: tuple[str, ...], names: list[str]) -> list[list[str]]:
    def value(column: str, number: int) -> str:
        if column in {"name", "text", "dataset"}:
            return names[number]
        return ID.format(number) if column == "id" else VALUES.get(column, f"{number + 1},234")

    return [[value(column, number) for column in columns] for number in range(len(names))]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("table", TABLES)
def test_lines_fit_and_keep_ids_and_the_ends_of_names(table: str, kind: str, width: int) -> None:
    columns, names = TABLES[table], NAMES[kind]
    rows = make_rows(columns, names)

    lines = [line.text for line in TableFormat(width=width).format_table(columns, rows)]

    shown = "\n".join(lines)
    named = {"name", "dataset", "text"} & set(columns)
    whole = named and width < 80 and any(line in columns for line in lines)
    assert whole or max(map(cell_len, lines)) <= width
    for number, name in enumerate(names):
        if "id" in columns:
            assert ID.format(number) in shown
        if named:
            end = "" if "text" in columns else re.escape(name[-3:])
            cut = f"{re.escape(name[0])}[^\n]*…[^\n]*{end}"
            assert name in shown or re.search(cut, shown)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("table", TABLES)
def test_a_pipe_gets_each_row_whole_in_one_line(table: str, kind: str) -> None:
    columns = TABLES[table]
    rows = make_rows(columns, NAMES[kind])

    head, *lines = [line.text for line in TableFormat().format_table(columns, rows)]

    assert head.split() == list(columns)
    assert [line.split() for line in lines] == rows
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            80,
            (
                "name                                                 status     characters\n"
                "a-long-name-of-a-document__in-a-folder__of-2024.txt  available       1,234\n"
                "  00000000-0000-4000-8000-000000000000"
            ),
        ),
        (
            60,
            (
                "name                                   status     characters\n"
                "a-long-name-of-a-d…older__of-2024.txt  available       1,234\n"
                "  00000000-0000-4000-8000-000000000000"
            ),
        ),
        (
            90,
            (
                "name                           status     characters  id\n"
                "a-long-name-of…r__of-2024.txt  available       1,234"
                "  00000000-0000-4000-8000-000000000000"
            ),
        ),
        (
            30,
            (
                "name\n  a-long-name-of-a-document__in-a-folder__of-2024.txt\n"
                "status      available\ncharacters  1,234\n"
                "id\n  00000000-0000-4000-8000-000000000000"
            ),
        ),
    ],
)
def test_the_layout_depends_on_the_width(width: int, expected: str) -> None:
    columns = TABLES["documents"]
    lines = TableFormat(width=width).format_table(columns, make_rows(columns, NAMES["long"])[:1])

    assert "\n".join(line.text for line in lines) == expected


def test_numbers_are_aligned_right_and_missing_ones_too() -> None:
    lines = TableFormat().format_table(("n", "size"), [["1,000", "5 KiB"], ["-", "10 KiB"]])

    assert [line.text for line in lines] == ["    n    size", "1,000   5 KiB", "    -  10 KiB"]


def test_details_are_wrapped_between_words() -> None:
    pairs = [("name", "x" * 50), ("error", "the server was not able to read it")]

    lines = [line.text for line in TableFormat(width=30).format_details(pairs)]

    assert lines == ["name", f"  {'x' * 50}", "error  the server was not able", "       to read it"]


def test_chinese_texts_are_wrapped_between_characters() -> None:
    assert list(wrap_words("中文文档 text", 5, breaks_wide=True)) == ["中文", "文档", "text"]


def test_texts_are_shortened_between_words() -> None:
    layout = TableFormat()

    assert layout.shorten("Wombats dig at night.", 16, middle=False) == "Wombats dig at …"
    assert layout.shorten("Wombats dig at night.", 14, middle=False) == "Wombats dig …"
    assert layout.shorten("a verylongword", 10, middle=False) == "a verylon…"


def test_the_ellipsis_fits_encodings_without_one() -> None:
    assert TableFormat(ellipsis="...").shorten("abcdefghij", 8, middle=True) == "abc...ij"
