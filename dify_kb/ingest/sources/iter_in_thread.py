"""A blocking iterable gone through in a thread of its own, so that its silence holds nobody."""

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

AT_ONCE = 200
"""Elements that wait to be taken."""

HEAVY = 1024 * 1024
"""Bytes of elements that wait to be taken, above which none is added."""


async def iter_in_thread(
    elements: Iterable[T], weigh: Callable[[T], int]
) -> AsyncIterator[Sequence[T]]:
    """Give what is there as soon as it is there.

    The thread is a daemon: who leaves early does not wait for an iterable that says nothing.
    """
    pump = _ThreadedIteration(elements, weigh)
    threading.Thread(target=pump.run, name="dify-kb-source", daemon=True).start()
    try:
        while (gathered := await pump.take()) is not None:
            yield gathered
    finally:
        pump.close()


class _ThreadedIteration(Generic[T]):
    def __init__(self, elements: Iterable[T], weigh: Callable[[T], int]) -> None:
        self._elements = elements
        self._weigh = weigh
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._filled = anyio.Event()
        self._room = threading.Condition()
        self._gathered: list[T] = []
        self._weight = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Go through all of it; in the thread."""
        try:
            self._context.run(self._fill)
        except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for
            self._error = error
        with self._room:
            self._ended = True
        self._tell()

    async def take(self) -> Sequence[T] | None:
        """Wait for elements and take all there are; None at the end."""
        await self._filled.wait()
        with self._room:
            self._filled = anyio.Event()
            gathered, self._gathered, self._weight = self._gathered, [], 0
            if self._ended:
                self._filled.set()
            self._room.notify()
        if gathered or not self._ended:
            return gathered
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Let the thread end, once it is heard of again."""
        with self._room:
            self._closed = True
            self._room.notify()

    def _fill(self) -> None:
        for element in self._elements:
            with self._room:
                while len(self._gathered) >= AT_ONCE or self._weight > HEAVY:
                    if self._closed:
                        return
                    self._room.wait()
                if self._closed:
                    return
                self._gathered.append(element)
                self._weight += self._weigh(element)
                first = len(self._gathered) == 1
            if first:
                self._tell()

    def _fill_told(self) -> None:
        self._filled.set()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._fill_told)
