"""Running a command with an open client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import typer

from dify_kb import AsyncClient

from .app import Session


def act(
    context: typer.Context, main: Callable[[AsyncClient], Coroutine[Any, Any, int | None]]
) -> None:
    """Run `main` and end with the exit code that it gives; None is 0.

    Raises:
        typer.Exit: with the code.
    """
    session: Session = context.obj

    async def opened() -> int:
        async with session.client() as client:
            return await main(client) or 0

    session.run(opened)


def json(context: typer.Context) -> bool:
    """Tell whether programs read the output."""
    session: Session = context.obj
    return session.json
