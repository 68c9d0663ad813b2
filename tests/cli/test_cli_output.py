"""Tables on narrow terminals and in pipes."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from dify_kb.cli import output

ID = "00000000-0000-4000-8000-000000000000"
NAME = "a-long-name-of-a-document-in-a-folder.txt"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """A terminal of 80 columns, without colours."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, no_color=True, width=80)
    monkeypatch.setattr(output, "out", console)
    return screen


def columns() -> dict[str, object]:
    return {"name": NAME, "status": "available", "created": "2026-11-21 15:16", "id": ID}


async def listed(*rows: dict[str, object]) -> None:
    reads = {name: lambda row, name=name: row[name] for name in rows[0]}
    await output.print_rows("thing", rows, reads, json=False)


async def test_narrow_terminal_shortens_only_names(terminal: StringIO) -> None:
    await listed(columns())

    drawn = terminal.getvalue()
    assert all(text in drawn for text in ("available", "2026-11-21 15:16", ID))
    assert "a-long-name" in drawn
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines())) <= 80


async def test_piped_table_has_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    await listed(columns(), columns())

    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "status", "created", "id"]
    assert [row.split()[0] for row in rows] == [NAME, NAME]


async def test_empty_columns_are_omitted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await listed({"name": "a", "error": None}, {"name": "b", "error": None})
    assert capsys.readouterr().out == "name\na\nb\n"
    await listed({"name": "a", "error": None}, {"name": "b", "error": "no"})
    assert capsys.readouterr().out == "name  error\na     -\nb     no\n"


async def test_empty_table_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    await output.print_rows("thing", [], {"name": str, "id": str}, json=False)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No things." in printed.err
