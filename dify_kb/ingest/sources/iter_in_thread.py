"""Iterate over a blocking iterable in a separate thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

T = TypeVar("T")

MAX_ELEMENTS = 200
"""Maximum number of elements in the buffer."""

MAX_WEIGHT = 1024 * 1024
"""Bytes in the buffer above which the thread adds no elements."""


async def iter_in_thread(
    elements: Iterable[T], weigh: Callable[[T], int]
) -> AsyncIterator[Sequence[T]]:
    """Yield batches of the elements available so far, at least one each.

    The thread is a daemon: ending the iteration early does not wait for a blocked iterable.
    """
    iteration = _ThreadedIteration(elements, weigh)
    threading.Thread(target=iteration.run, name="dify-kb-source", daemon=True).start()
    try:
        while (taken := await iteration.take()) is not None:
            yield taken
    finally:
        iteration.close()


class _ThreadedIteration(Generic[T]):
    def __init__(self, elements: Iterable[T], weigh: Callable[[T], int]) -> None:
        self._elements = elements
        self._weigh = weigh
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._filled = anyio.Event()
        self._condition = threading.Condition()
        self._buffer: list[T] = []
        self._weight = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Iterate to the end. Runs in the thread."""
        try:
            self._context.run(self._fill)
        except BaseException as error:  # noqa: BLE001 -- raised again by `take`
            self._error = error
        with self._condition:
            self._ended = True
        self._notify()

    async def take(self) -> Sequence[T] | None:
        """Wait for elements and return all buffered ones; None at the end."""
        await self._filled.wait()
        with self._condition:
            self._filled = anyio.Event()
            taken, self._buffer, self._weight = self._buffer, [], 0
            if self._ended:
                self._filled.set()
            self._condition.notify()
        if taken or not self._ended:
            return taken
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Stop the thread at its next element."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _fill(self) -> None:
        for element in self._elements:
            with self._condition:
                while len(self._buffer) >= MAX_ELEMENTS or self._weight > MAX_WEIGHT:
                    if self._closed:
                        return
                    self._condition.wait()
                if self._closed:
                    return
                self._buffer.append(element)
                self._weight += self._weigh(element)
                first = len(self._buffer) == 1
            if first:
                self._notify()

    def _set_filled(self) -> None:
        self._filled.set()

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._set_filled)
