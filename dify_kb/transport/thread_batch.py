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

BATCH_SECONDS = 0.002
"""Seconds that a thread spends on its batch. Reading a small cached file takes 0.02 ms, a thread
switch 0.1 to 0.2 ms (measured). Calls queued behind a slower one run in parallel instead."""

BATCH_TIMEOUT = 0.05
"""Seconds after which calls queued behind a blocked one run in parallel."""

OPEN_ITERATIONS = 2
"""Loop iterations that a batch stays open. Responses that arrive together wake their tasks over two
iterations (measured: with one, every other batch of 8 uploads contains a single file)."""


async def run_in_batch(function: Callable[..., T], *args: object) -> T:
    """Call `function` in a thread and return its result, or raise its error.

    Cancellation takes effect immediately; `function` may still run, and its result is dropped.
    """
    job = _Job(partial(function, *args))
    batch = _open_batch.get(None)
    if batch is None:
        batch = _Batch([job])
        await batch.run()
    else:
        batch.jobs.append(job)
        await batch.done.wait()
    if job.claim():
        await run_in_thread(job.call)
    await job.wait()
    if job.error is not None:
        raise job.error
    return job.value


async def run_in_thread(function: Callable[..., T], *args: object) -> T:
    """Call `function` in a separate thread; cancellation abandons the call immediately."""
    return await anyio.to_thread.run_sync(partial(function, *args), abandon_on_cancel=True)


@define(eq=False)
class _Job(Generic[T]):
    function: Callable[[], T]
    error: Exception | None = None
    value: T = field(init=False)
    _claimed: threading.Lock = field(factory=threading.Lock)
    _finished: bool = False
    _notify: Callable[[], object] | None = None

    def claim(self) -> bool:
        """Return True to the first caller only, which must then call the job."""
        return self._claimed.acquire(blocking=False)

    def call(self) -> None:
        try:
            self.value = self.function()
        except Exception as error:  # noqa: BLE001 -- raised by run_in_batch
            self.error = error
        self._finished = True
        if self._notify is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed; no task waits
                self._notify()

    async def wait(self) -> None:
        """Wait until the job has been called."""
        if self._finished:
            return
        event = anyio.Event()
        self._notify = partial(asyncio.get_running_loop().call_soon_threadsafe, event.set)
        if not self._finished:  # the thread sets this before it reads `_notify`
            await event.wait()


@define(eq=False)
class _Batch:
    jobs: list[_Job[Any]]
    done: anyio.Event = field(factory=anyio.Event)
    """Set when the thread has returned or is late, or when the task that runs the batch is
    cancelled. Jobs not claimed by then run in parallel."""

    async def run(self) -> None:
        _open_batch.set(self)
        try:
            for _ in range(OPEN_ITERATIONS):
                await checkpoint()
            _open_batch.set(None)
            with anyio.move_on_after(BATCH_TIMEOUT):
                await run_in_thread(self._call)
        finally:
            if _open_batch.get(None) is self:
                _open_batch.set(None)
            self.done.set()

    def _call(self) -> None:
        until = time.monotonic() + BATCH_SECONDS
        for job in self.jobs:
            if job.claim():
                job.call()
            if time.monotonic() > until:
                return


_open_batch: RunVar[_Batch | None] = RunVar("_open_batch")
"""The batch that still accepts calls; one per event loop."""
