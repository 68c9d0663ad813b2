"""Iteration over the results of a running load."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import anyio
from attrs import define, field

from .report import ItemResult, LoadReport

if TYPE_CHECKING:
    from .progress import LoadEvent

T = TypeVar("T")
Opt = TypeVar("Opt")

MAX_BUFFERED = 256
"""Unconsumed results at which the load pauses sending."""


@define
class ResultBuffer(Generic[T]):
    """The results that the iteration has not consumed yet."""

    _results: deque[T] = field(factory=deque)
    _filled: anyio.Event = field(factory=anyio.Event)
    _consumed: anyio.Event = field(factory=anyio.Event)

    def put(self, result: T) -> None:
        """Add a result."""
        self._results.append(result)
        self._filled.set()

    async def wait_for_space(self) -> None:
        """Wait while the buffer is full."""
        while len(self._results) >= MAX_BUFFERED:
            await self._consumed.wait()

    def close(self) -> None:
        """Wake the consumer: no results will follow."""
        self._filled.set()

    def __bool__(self) -> bool:
        return bool(self._results)

    async def get_all(self) -> Sequence[T]:
        """Wait for results and remove all of them; return none at the end."""
        await self._filled.wait()
        self._filled = anyio.Event()
        results = tuple(self._results)
        self._results.clear()
        consumed, self._consumed = self._consumed, anyio.Event()
        consumed.set()
        return results


_Begin = Callable[[ResultBuffer[T]], Coroutine[Any, Any, LoadReport]]


@define
class Results(Generic[T]):
    """The results of a load, one per file: `async for result in client.load_iter(…)`.

    The load runs during the iteration. Leaving the iteration early, by `break` or an error, cancels
    the load: requests in flight may finish, and the journal records the files sent. `report` is
    set once the iteration has ended.
    """

    _begin: _Begin[T]
    report: LoadReport | None = field(default=None, init=False)

    def pages(self) -> AsyncGenerator[Sequence[T], None]:
        """Return an iterator over batches of results."""
        task = _LoadTask(self._begin)
        return _cancel_when_dropped(self._pages(task), task)

    if not TYPE_CHECKING:  # type checkers report the missing method

        def __iter__(self) -> NoReturn:
            raise TypeError("Iterate with 'async for', or use Client instead of AsyncClient.")

    def __aiter__(self) -> AsyncIterator[T]:
        task = _LoadTask(self._begin)
        return _cancel_when_dropped(self._rows(task), task)

    async def _pages(self, task: _LoadTask[T]) -> AsyncGenerator[Sequence[T], None]:
        task.start()
        try:
            while not (task.done() and not task.buffer):
                if results := await task.buffer.get_all():
                    yield results
            self.report = task.result()
        finally:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await task.wait()

    async def _rows(self, task: _LoadTask[T]) -> AsyncGenerator[T, None]:
        async with aclosing(self._pages(task)) as pages:
            async for results in pages:
                for result in results:
                    yield result


def iter_results(
    start_load: Callable[[Opt], Coroutine[Any, Any, LoadReport]],
    arguments: Mapping[str, Any],
    create_options: Callable[[Mapping[str, Any]], Opt],
) -> Results[ItemResult]:
    """Return the results of a load, which starts with the iteration.

    Args:
        start_load: runs the load or sync with the options.
        create_options: creates these from `arguments`.
    """

    async def run_load(buffer: ResultBuffer[ItemResult]) -> LoadReport:
        def put(event: LoadEvent) -> None:
            if isinstance(event, ItemResult):
                buffer.put(event)

        return await start_load(
            create_options({**arguments, "on_event": put, "pause": buffer.wait_for_space})
        )

    return Results(run_load)


class _LoadTask(Generic[T]):
    """The task in which a load runs.

    A separate task, because a generator may be closed by a task other than the one that iterated,
    which cannot leave the cancel scopes of the load.
    """

    def __init__(self, begin: _Begin[T]) -> None:
        self.buffer: ResultBuffer[T] = ResultBuffer()
        self._begin = begin
        self._task: asyncio.Task[LoadReport] | None = None

    def start(self) -> None:
        """Start the load."""
        self._task = asyncio.get_running_loop().create_task(self._begin(self.buffer))
        _tasks.add(self._task)
        self._task.add_done_callback(self._finish)

    def done(self) -> bool:
        """Return whether the load has ended."""
        return self._task is not None and self._task.done()

    def result(self) -> LoadReport:
        """Return the report of the load that has ended, or raise its error."""
        assert self._task is not None  # noqa: S101 -- for the type checker
        return self._task.result()

    async def wait(self) -> None:
        """Wait until the load has ended."""
        assert self._task is not None  # noqa: S101 -- for the type checker
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """Cancel the load if it is running. Thread-safe."""
        task = self._task
        if task is None or task.done():
            return
        loop = task.get_loop()
        if _running_loop() is loop:
            task.cancel()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(task.cancel)

    def _finish(self, task: asyncio.Task[LoadReport]) -> None:
        _tasks.discard(task)
        if not task.cancelled():
            task.exception()  # mark as retrieved: the consumer may have left
        self.buffer.close()


_tasks: set[asyncio.Task[LoadReport]] = set()
"""The running loads: event loops keep only weak references to tasks."""


_G = TypeVar("_G", bound=AsyncGenerator[Any, None])


def _cancel_when_dropped(generator: _G, task: _LoadTask[Any]) -> _G:
    """Cancel the load as soon as the generator is unreferenced, as after `break`.

    The event loop closes such a generator later: the next load would find the journal in use.
    """
    weakref.finalize(generator, task.cancel).atexit = False
    return generator


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
