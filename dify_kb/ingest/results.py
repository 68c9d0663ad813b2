"""The results of a load, one by one, while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import anyio
from attrs import define, field

from .report import LoadReport

T = TypeVar("T")

AHEAD = 256
"""Results that may wait to be taken; the load pauses its sending meanwhile."""


@define
class ResultBuffer(Generic[T]):
    """Results on their way from a load to whoever takes them."""

    _results: deque[T] = field(factory=deque)
    _filled: anyio.Event = field(factory=anyio.Event)
    _taken: anyio.Event = field(factory=anyio.Event)

    def put(self, result: T) -> None:
        """Add one."""
        self._results.append(result)
        self._filled.set()

    async def room(self) -> None:
        """Wait while there are too many."""
        while len(self._results) >= AHEAD:
            await self._taken.wait()

    def end(self) -> None:
        """Wake whoever waits for results, as there will be none."""
        self._filled.set()

    def __bool__(self) -> bool:
        return bool(self._results)

    async def take(self) -> Sequence[T]:
        """Wait for results and take all there are; none at the end."""
        await self._filled.wait()
        self._filled = anyio.Event()
        results = tuple(self._results)
        self._results.clear()
        taken, self._taken = self._taken, anyio.Event()
        taken.set()
        return results


@define
class Results(Generic[T]):
    """Every result of a load as it ends: `async for result in client.load_iter(…)`.

    The load runs while it is gone through. Leaving it early, by `break` or an error, ends the load
    as a cancellation does: requests under way may finish, what was sent stands in the journal.
    `report` is there once it is at its end.
    """

    _begin: Callable[[ResultBuffer[T]], Coroutine[Any, Any, LoadReport]]
    report: LoadReport | None = field(default=None, init=False)

    async def pages(self) -> AsyncGenerator[Sequence[T], None]:
        """Give the results that have gathered, some at a time."""
        water: ResultBuffer[T] = ResultBuffer()
        # A task of its own: a generator may be closed by another task than the one that went
        # through it, and then could not leave the scopes of a load that it had entered.
        task = asyncio.get_running_loop().create_task(self._begin(water))
        task.add_done_callback(lambda _: water.end())
        try:
            while not (task.done() and not water):
                if results := await water.take():
                    yield results
            self.report = task.result()
        finally:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])

    async def __aiter__(self) -> AsyncIterator[T]:
        async with aclosing(self.pages()) as pages:
            async for results in pages:
                for result in results:
                    yield result
