"""Run a command: the options of the program, a client, an event loop, and the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import anyio
import typer
from attrs import define, field, frozen

import dify_kb

from . import output

if TYPE_CHECKING:
    from ssl import SSLContext

    from dify_kb import AsyncClient, AttemptEvent, Policy


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

    def create_client(
        self,
        *,
        on_event: Callable[[AttemptEvent], None] | None = None,
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

    def run(
        self, main: Callable[[], Coroutine[Any, Any, int]], *, interrupt_message: str = ""
    ) -> None:
        """Run a command in a loop and end with its exit code.

        Args:
            interrupt_message: what people are told when an interrupt has to wait for something.

        Raises:
            typer.Exit: with the code.
        """
        interrupt = Interrupt(
            lambda: output.err.print(interrupt_message) if interrupt_message else None
        )
        code = self.run_interruptible(main, interrupt)
        if interrupt.was_cancelled and code != BROKEN_PIPE_EXIT:
            output.err.print("Interrupted.")
        raise typer.Exit(code)

    def run_interruptible(
        self, main: Callable[[], Coroutine[Any, Any, int]], interrupt: Interrupt
    ) -> int:
        """Run a command in a loop, which `interrupt` may end early, and give its exit code."""
        with handle_signals(interrupt):
            return anyio.run(
                interrupt.run_cancellable, main, backend_options={"use_uvloop": _has_uvloop()}
            )


def run_with_client(
    context: typer.Context, main: Callable[[AsyncClient], Coroutine[Any, Any, int | None]]
) -> None:
    """Run `main` with an open client and end with the exit code that it gives; None is 0.

    Raises:
        typer.Exit: with the code.
    """
    command: CommandContext = context.obj

    async def run_main() -> int:
        async with command.create_client() as client:
            return await main(client) or 0

    command.run(run_main)


def is_json_output(context: typer.Context) -> bool:
    """Tell whether programs read the output."""
    command: CommandContext = context.obj
    return command.json


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 -- asked for by anyio
    except ImportError:
        return False
    return True


SIGNALS = (signal.SIGINT, signal.SIGTERM)

BROKEN_PIPE_EXIT = 1
"""The exit code of a program whose output nobody reads any more; click has the same."""


@define
class Interrupt:
    """Cancels what `run_cancellable` runs, once, and remembers with which exit code."""

    on_interrupt: Callable[[], None] = lambda: None
    """Called in the loop thread as the command is cancelled."""

    exit_message: Callable[[], str] = lambda: ""
    """What is written when the process is ended at once."""

    exit_code: int | None = None
    """130 or 143 once a signal came, 1 once the output is closed; None before."""

    was_cancelled: bool = False
    """Whether the command did not come to its own end."""

    _cancel: Callable[[], None] = field(default=lambda: None, init=False)

    async def run_cancellable(self, main: Callable[[], Awaitable[int]]) -> int:
        """Run a command until it ends or is cancelled, and give its exit code."""
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            self._cancel = lambda: _call_soon(loop, lambda: self._cancel_scope(scope))
            if self.exit_code is None:
                return await main()
        self.was_cancelled = True
        return self.exit_code or 0

    def stop(self, code: int) -> None:
        """Cancel the command, from any thread."""
        if self.exit_code is None:
            self.exit_code = code
            self._cancel()

    def _cancel_scope(self, scope: anyio.CancelScope) -> None:
        scope.cancel()
        self.on_interrupt()

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal; the second of them ends the process, wherever it stands."""
        if self.exit_code is None:
            self.stop(128 + number)
            return
        # No lock is taken here and nothing is unwound: a journal is as sound as after kill -9.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        with suppress(OSError):
            os.write(2, f"{show_cursor}\n{self.exit_message()}\n".encode(errors="backslashreplace"))
        os._exit(128 + number)


@contextmanager
def handle_signals(interrupt: Interrupt) -> Iterator[None]:
    """Let an interrupt take the signals until the block ends; in the main thread only."""
    try:
        previous_handlers = {
            number: signal.signal(number, interrupt.handle_signal) for number in SIGNALS
        }
    except ValueError:  # another thread: signals are not ours
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and so has the command
        loop.call_soon_threadsafe(callback)


def discard_output() -> None:
    """Let what is still written to standard output vanish: its reader has gone."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)
