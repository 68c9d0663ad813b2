"""Guides: formatted on a terminal, Markdown in a pipe."""

from __future__ import annotations

import pytest
from cli_runner import Cli

from dify_kb.cli import guide, output
from dify_kb.cli.output import MessageConsole


@pytest.mark.parametrize("name", guide.NAMES)
@pytest.mark.parametrize("width", [60, 80])
def test_guides_fit_the_terminal_and_are_wrapped_between_words(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    console = MessageConsole(force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(output, "out", console)
    monkeypatch.setattr("pydoc.pager", print)  # instead of less

    code, shown, _ = cli("guide", name)

    lines = shown.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= width
    assert "```" not in shown
    assert "|---|" not in shown


def test_a_guide_is_markdown_in_a_pipe(cli: Cli) -> None:
    _, shown, _ = cli("guide", "testing")
    assert shown.startswith("# Test your own code\n")
    assert "```python" in shown
