"""What Ctrl-C and SIGTERM do to a command: the first cancels it, the second ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import anyio
from attrs import define, field

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PIPE = 1
"""The exit code of a program whose output nobody reads any more; click has the same."""


@define
class Interrupt:
    """Cancels what `guarded` runs, once, and remembers with which exit code."""

    on_first: Callable[[], None] = lambda: None
    """Called in the loop thread as the command is cancelled."""

    farewell: Callable[[], str] = lambda: ""
    """What is written when the process is ended at once."""

    code: int | None = None
    """130 or 143 once a signal came, 1 once the output is closed; None before."""

    cut: bool = False
    """Whether the command did not come to its own end."""

    _cancel: Callable[[], None] = field(default=lambda: None, init=False)

    async def guarded(self, main: Callable[[], Awaitable[int]]) -> int:
        """Run a command until it ends or is cancelled, and give its exit code."""
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            self._cancel = lambda: _soon(loop, lambda: self._end(scope))
            if self.code is None:
                return await main()
        self.cut = True
        return self.code or 0

    def stop(self, code: int) -> None:
        """Cancel the command, from any thread."""
        if self.code is None:
            self.code = code
            self._cancel()

    def _end(self, scope: anyio.CancelScope) -> None:
        scope.cancel()
        self.on_first()

    def met(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal; the second of them ends the process, wherever it stands."""
        if self.code is None:
            self.stop(128 + number)
            return
        # No lock is taken here and nothing is unwound: a journal is as sound as after kill -9.
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        with suppress(OSError):
            os.write(2, f"{show_cursor}\n{self.farewell()}\n".encode(errors="backslashreplace"))
        os._exit(128 + number)


@contextmanager
def caught(interrupt: Interrupt) -> Iterator[None]:
    """Let an interrupt take the signals until the block ends; in the main thread only."""
    try:
        before = {number: signal.signal(number, interrupt.met) for number in SIGNALS}
    except ValueError:  # another thread: signals are not ours
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _soon(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and so has the command
        loop.call_soon_threadsafe(act)


def discard_output() -> None:
    """Let what is still written to standard output vanish: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
