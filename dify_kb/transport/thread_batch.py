"""Run small blocking calls in a worker thread, batching those of one loop iteration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar, checkpoint, checkpoint_if_cancelled
from attrs import define, field

T = TypeVar("T")

BATCH_SECONDS = 0.002
"""Seconds that a thread spends on its batch. Reading a small cached file takes 0.02 ms, a thread
switch 0.1 to 0.2 ms (measured). Calls queued behind a slower one run in parallel instead."""

IDLE_SECONDS = 10.0
"""Seconds after which an idle thread ends."""

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
    """Call `function` in a separate thread; cancellation abandons the call immediately.

    The threads are daemons: a read on a file system that hangs must not keep the process from
    ending, as it would in a thread of `anyio.to_thread`.
    """
    await checkpoint_if_cancelled()
    context = copy_context()
    job = _Job(lambda: context.run(function, *args))
    try:
        worker = _idle_workers.pop()
    except IndexError:
        worker = _Worker()
    worker.jobs.put(job)
    await job.wait()
    if job.error is not None:
        raise job.error
    return job.value


class _Worker:
    """A daemon thread that calls jobs one by one, and ends when it is idle for a while."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="dify-kb reader", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                try:
                    _idle_workers.remove(self)
                except ValueError:  # a caller has just chosen this worker
                    continue
                return
            job.call(self)


_idle_workers: deque[_Worker] = deque()
"""The workers without a job; in all event loops."""

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_idle_workers.clear)


@define(eq=False)
class _Job(Generic[T]):
    function: Callable[[], T]
    error: BaseException | None = None
    value: T = field(init=False)
    _claimed: threading.Lock = field(factory=threading.Lock)
    _finished: bool = False
    _notify: Callable[[], object] | None = None

    def claim(self) -> bool:
        """Return True to the first caller only, which must then call the job."""
        return self._claimed.acquire(blocking=False)

    def call(self, worker: _Worker | None = None) -> None:
        """Call the function and wake its caller; `worker` is idle from then on."""
        try:
            self.value = self.function()
        except BaseException as error:  # noqa: BLE001 -- raised in the caller
            self.error = error
        self._finished = True
        if worker is not None:
            _idle_workers.append(worker)
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
