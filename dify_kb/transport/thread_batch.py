"""Run small blocking calls in a worker thread, batching those of one loop iteration."""

from __future__ import annotations

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
"""Seconds that a hop spends on its batch. A small file in the page cache takes 0.02 ms, a hop 0.1
to 0.2 (measured); what is slower than a hop is done in parallel instead."""

TURNS = 2
"""Turns of the loop that a batch stays open: replies that come together wake their tasks over two
of them (measured: with one, every other batch of 8 uploads holds a single file)."""


async def run_in_batch(do: Callable[..., T], *args: object) -> T:
    """Call `do` in a thread and give what it returns, or raise what it raises.

    When this is cancelled, `do` may still be called, and what it returns is dropped.
    """
    work = _Work(partial(do, *args))
    batch = _open.get(None)
    if batch is not None:
        batch.works.append(work)
    else:
        batch = _Batch([work])
        _open.set(batch)
        # The others wait for this one, whether it is cancelled or not.
        with anyio.CancelScope(shield=True):
            for _ in range(TURNS):
                await checkpoint()
            _open.set(None)
            await anyio.to_thread.run_sync(batch.run)
            batch.done.set()
    await batch.done.wait()
    if not work.called:
        await anyio.to_thread.run_sync(work.call)
    if work.error is not None:
        raise work.error
    return work.value


@define(eq=False)
class _Work(Generic[T]):
    do: Callable[[], T]
    called: bool = False
    error: Exception | None = None
    value: T = field(init=False)

    def call(self) -> None:
        self.called = True
        try:
            self.value = self.do()
        except Exception as error:  # noqa: BLE001 -- raised where it was asked for
            self.error = error


@define(eq=False)
class _Batch:
    works: list[_Work[Any]]
    done: anyio.Event = field(factory=anyio.Event)

    def run(self) -> None:
        until = time.monotonic() + PATIENCE
        for work in self.works:
            work.call()
            if time.monotonic() > until:
                return


_open: RunVar[_Batch | None] = RunVar("_open")
"""The batch that still takes work, one for each loop."""
