"""Lines of a diagnosis."""

from __future__ import annotations

from typing import Literal

from attrs import asdict, frozen
from rich.text import Text

from . import output


@frozen(kw_only=True)
class Check:
    """One line of the diagnosis."""

    check: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""


def tell(check: Check, *, json: bool) -> None:
    """Write one line, and a second one where something is to be done."""
    if json:
        output.line({"type": "check", **asdict(check)})
        return
    style = {"ok": "green", "warning": "yellow", "failed": "red"}[check.status]
    text = Text(f"{check.status:8}", style=style).append(f"{check.check}: ", style="bold")
    output.out.print(text.append(output.printable(check.detail), style="not bold"))
    if check.remedy:
        output.out.print(f"        next: {output.printable(check.remedy)}")
