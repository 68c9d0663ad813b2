"""Clocks of the emulator: system time, or a time that tests control."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """The server's source of time, which its indexer sleeps by."""

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of this clock."""
        ...


class SystemClock:
    """The system time."""

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep in real time."""
        await anyio.sleep(seconds)


class ClockStoppedError(Exception):
    """Raised when a sleeper waited too long for a `ManualClock` that nothing advanced."""


class ManualClock:
    """A clock that stands still until `advance()` is called. All methods are thread-safe.

    The indexer catches up: if indexing a document takes 1 s in total, `advance(60)` finishes 60
    documents, as if the clock had advanced step by step.

    Args:
        start: initial time, in seconds since the epoch.
        timeout: real seconds after which a sleeper fails: its document ends in `error`, so a
            client that waits for it gets a message instead of waiting forever. None: no limit.
    """

    def __init__(self, start: float = 1_800_000_000.0, *, timeout: float | None = None) -> None:
        self._now = start
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sequence_numbers = itertools.count()
        self._sleepers: list[
            tuple[float, int, asyncio.AbstractEventLoop, asyncio.Future[None]]
        ] = []

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the time by `seconds`, and wake the sleepers that are due, earliest first."""
        with self._lock:
            self._now += seconds
            while self._sleepers and self._sleepers[0][0] <= self._now:
                _, _, loop, future = heapq.heappop(self._sleepers)
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_resolve, future)

    async def sleep(self, seconds: float) -> None:
        """Sleep until `advance()` has moved the time by `seconds`.

        Raises:
            ClockStoppedError: the time was not reached within the clock's timeout.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if seconds > 0:
                sleeper = (self._now + seconds, next(self._sequence_numbers), loop, future)
                heapq.heappush(self._sleepers, sleeper)
            else:
                future.set_result(None)
        with anyio.move_on_after(self._timeout):
            await future
            return
        raise ClockStoppedError(
            f"The emulator's clock was not advanced for {self._timeout:g} s. Call dify_index_now()"
            " or advance(); to call it after a load, load with wait='accepted'."
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def to_datetime(seconds: float) -> datetime:
    """Convert a timestamp to a datetime with microseconds, as servers send for files only."""
    return datetime.fromtimestamp(seconds, UTC)


def to_whole_seconds(seconds: float) -> datetime:
    """Convert a timestamp to a datetime without fraction, as servers send except for files."""
    return datetime.fromtimestamp(int(seconds), UTC)


def to_optional_whole_seconds(seconds: float | None) -> datetime | None:
    """Convert a timestamp to a datetime without fraction; None stays None."""
    return None if seconds is None else to_whole_seconds(seconds)
