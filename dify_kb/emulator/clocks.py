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
    """What time it is for the server, and how its indexer waits."""

    def now(self) -> float:
        """Tell the time, in seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so long by this clock."""
        ...


class SystemClock:
    """The computer's time."""

    def now(self) -> float:
        """Tell the time, in seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        await anyio.sleep(seconds)


class ClockStoppedError(Exception):
    """Somebody waited in vain for a clock that stands still."""


class ManualClock:
    """A time that stands still until `advance`, which any thread may call.

    The indexer makes up for lost time: `advance(60)` with stages of 1 s in all ends the stages of
    60 documents, as if they had been waited for one by one.

    With `timeout`, in seconds of real time, what waits for so long gives up: the documents end in
    `error`, and whoever waits for them learns why instead of waiting for ever.
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
        """Tell the time, in seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on, and wake whoever waited until then, the earliest first."""
        with self._lock:
            self._now += seconds
            while self._sleepers and self._sleepers[0][0] <= self._now:
                _, _, loop, future = heapq.heappop(self._sleepers)
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_resolve, future)

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has passed this time by.

        Raises:
            ClockStoppedError: it did not within the clock's timeout.
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
            f"The server's clock stood still for {self._timeout:g} s. Move it on by"
            " dify_index_now() or advance(); to do so after a load, load with wait='accepted'."
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def to_datetime(seconds: float) -> datetime:
    """Show a time to the microsecond: only a file's is."""
    return datetime.fromtimestamp(seconds, UTC)


def to_whole_seconds(seconds: float) -> datetime:
    """Show whole seconds: what every time but a file's is."""
    return datetime.fromtimestamp(int(seconds), UTC)


def to_optional_whole_seconds(seconds: float | None) -> datetime | None:
    """Show whole seconds, or that there is no time yet."""
    return None if seconds is None else to_whole_seconds(seconds)
