"""Run small blocking calls in a worker thread, batching those of one loop iteration."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar, checkpoint
from attrs import define, field

T = TypeVar("T")

PATIENCE = 0.002
"""Seconds that a thread spends on its batch. A small file in the page cache takes 0.02 ms, a thread
switch 0.1 to 0.2 (measured); calls behind a slower one run in parallel instead."""

LATE = 0.05
"""Seconds after which the calls behind one that does not return run in parallel."""

TURNS = 2
"""Iterations of the loop that a batch stays open: replies that arrive together wake their tasks
over two of them (measured: with one, every other batch of 8 uploads holds a single file)."""


async def run_in_batch(do: Callable[..., T], *args: object) -> T:
    """Call `do` in a thread and return its result, or raise its error.

    A cancelled caller returns at once. `do` may still be called, and its result is dropped.
    """
    work = _Work(partial(do, *args))
    batch = _open.get(None)
    if batch is None:
        batch = _Batch([work])
        await batch.run()
    else:
        batch.works.append(work)
        await batch.done.wait()
    if work.claim():
        await run_in_thread(work.call)
    await work.wait()
    if work.error is not None:
        raise work.error
    return work.value


async def run_in_thread(do: Callable[..., T], *args: object) -> T:
    """Call `do` in a thread of its own; a cancelled caller returns at once and leaves it there."""
    return await anyio.to_thread.run_sync(partial(do, *args), abandon_on_cancel=True)


@define(eq=False)
class _Work(Generic[T]):
    do: Callable[[], T]
    error: Exception | None = None
    value: T = field(init=False)
    _claimed: threading.Lock = field(factory=threading.Lock)
    _finished: bool = False
    _notify: Callable[[], object] | None = None

    def claim(self) -> bool:
        """Return True to the first caller, who is to call it."""
        return self._claimed.acquire(blocking=False)

    def call(self) -> None:
        try:
            self.value = self.do()
        except Exception as error:  # noqa: BLE001 -- raised where it was asked for
            self.error = error
        self._finished = True
        if self._notify is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
                self._notify()

    async def wait(self) -> None:
        """Wait until it was called."""
        if self._finished:
            return
        event = anyio.Event()
        self._notify = partial(asyncio.get_running_loop().call_soon_threadsafe, event.set)
        if not self._finished:  # the thread sets this before it looks for whom to notify
            await event.wait()


@define(eq=False)
class _Batch:
    works: list[_Work[Any]]
    done: anyio.Event = field(factory=anyio.Event)
    """Set when its thread has returned or is late, or when the task that runs it is cancelled.
    Calls that nobody claimed by then run in parallel."""

    async def run(self) -> None:
        _open.set(self)
        try:
            for _ in range(TURNS):
                await checkpoint()
            _open.set(None)
            with anyio.move_on_after(LATE):
                await run_in_thread(self._call)
        finally:
            if _open.get(None) is self:
                _open.set(None)
            self.done.set()

    def _call(self) -> None:
        until = time.monotonic() + PATIENCE
        for work in self.works:
            if work.claim():
                work.call()
            if time.monotonic() > until:
                return


_open: RunVar[_Batch | None] = RunVar("_open")
"""The batch that still accepts calls, one per loop."""
