"""Run a command: the options of the program, a client, an event loop, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import typer
from attrs import frozen

import dify_kb

from . import output
from .interrupt import PIPE, Interrupt, caught

if TYPE_CHECKING:
    from ssl import SSLContext

    from dify_kb import AsyncClient, Attempted, Policy


@frozen(kw_only=True)
class Invocation:
    """How the program was started."""

    arguments: Sequence[str]
    """The whole command line, without the name of the program."""

    policy: Policy | None = None
    """The client's times, where they are not the usual ones."""


@frozen(kw_only=True)
class CommandContext:
    """What the program was told before the command."""

    url: str | None
    api_key: str | None
    headers: Mapping[str, str]
    proxy: str | None
    trust_env: bool
    ssl: SSLContext | None
    json: bool
    quiet: bool
    verbose: bool
    invocation: Invocation

    def client(
        self,
        *,
        on_event: Callable[[Attempted], None] | None = None,
        concurrency: int | None = None,
    ) -> AsyncClient:
        """Make a client of the server that was named, not open yet."""
        return dify_kb.AsyncClient(
            self.url,
            self.api_key,
            headers=self.headers,
            proxy=self.proxy,
            trust_env=self.trust_env,
            ssl=self.ssl,
            policy=self.invocation.policy,
            on_event=on_event,
            concurrency=concurrency,
        )

    def run(self, main: Callable[[], Coroutine[Any, Any, int]], *, on_first: str = "") -> None:
        """Run a command in a loop and end with its exit code.

        Args:
            on_first: what people are told when an interrupt has to wait for something.

        Raises:
            typer.Exit: with the code.
        """
        interrupt = Interrupt(lambda: output.err.print(on_first) if on_first else None)
        code = self.code_of(main, interrupt)
        if interrupt.cut and code != PIPE:
            output.err.print("Interrupted.")
        raise typer.Exit(code)

    def code_of(self, main: Callable[[], Coroutine[Any, Any, int]], interrupt: Interrupt) -> int:
        """Run a command in a loop, which `interrupt` may end early, and give its exit code."""
        with caught(interrupt):
            return anyio.run(interrupt.guarded, main, backend_options={"use_uvloop": _has_uvloop()})


def run_with_client(
    context: typer.Context, main: Callable[[AsyncClient], Coroutine[Any, Any, int | None]]
) -> None:
    """Run `main` with an open client and end with the exit code that it gives; None is 0.

    Raises:
        typer.Exit: with the code.
    """
    command: CommandContext = context.obj

    async def run_main() -> int:
        async with command.client() as client:
            return await main(client) or 0

    command.run(run_main)


def wants_json(context: typer.Context) -> bool:
    """Tell whether programs read the output."""
    command: CommandContext = context.obj
    return command.json


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 -- asked for by anyio
    except ImportError:
        return False
    return True
