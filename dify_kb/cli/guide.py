"""`dify-kb guide`: print the guides that are part of the package."""

from __future__ import annotations

import os
import sys
from importlib import resources
from typing import Annotated

import typer

from dify_kb.errors import ConfigError

NAMES = (
    "load",
    "sync",
    "archives",
    "python",
    "shell",
    "testing",
    "external-knowledge",
    "benchmarks",
    "settings",
    "server-versions",
    "numbers",
)
"""The guides, in reading order."""


def guide(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Name of the guide; default: list the guides."),
    ] = None,
) -> None:
    """Print a guide, or list the guides.

    On a terminal, the guide is formatted and shown by the pager (PAGER, default: less); in a pipe
    it is Markdown.
    """
    if name is None:
        width = max(map(len, NAMES))
        for each in NAMES:
            sys.stdout.write(f"{each:<{width}}  {_read(each).partition(chr(10))[0].lstrip('# ')}\n")
    elif name in NAMES:
        _show(_read(name))
    else:
        raise ConfigError(f"Unknown guide: {name!r}.", hint=f"Choose one of: {', '.join(NAMES)}.")


def _show(text: str) -> None:
    from .output import out

    if not out.is_terminal:
        sys.stdout.write(text)
        return
    from rich.markdown import Markdown

    os.environ.setdefault("LESS", "FRX")  # ends if all of it fits, shows colors, keeps the text
    with out.pager(styles=True):
        out.print(Markdown(text, hyperlinks=False), soft_wrap=False)


def _read(name: str) -> str:
    return (resources.files("dify_kb") / "guides" / f"{name}.md").read_text(encoding="utf-8")
