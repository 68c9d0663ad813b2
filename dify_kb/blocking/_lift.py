"""Turn an async method into a blocking one.

Parameters, defaults, overloads, return type and docstring are those of the async method, for the
type checker as at run time: nothing is written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

import anyio

from dify_kb.errors import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from ._loop import Loop

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

_CLEANUP: Final = 1.0
"""Seconds that a generator gets to close what it holds, before it is cancelled."""


class Paged(Protocol[R_co]):
    """What can be gone through page by page."""

    def pages(self) -> AsyncIterator[Sequence[R_co]]:
        """Give the rows of each page."""
        ...


class Lifted(Protocol):
    """What a blocking method needs from the object that it sits on."""

    @property
    def _loop(self) -> Loop: ...

    @property
    def _target(self) -> Any: ...


def lift(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Lifted, P], R]:
    """Make `method` run in the loop thread while the caller waits."""

    def call(self: Lifted, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.wait(functools.partial(method, self._target, *args, **kwargs))

    return _like(method, call, inspect.signature(method))


def lift_pager(
    method: Callable[Concatenate[S, P], Paged[R]],
) -> Callable[Concatenate[Lifted, P], Iterator[R]]:
    """Make what `method` goes through come from the loop thread: a wait per page, not per row."""

    def call(self: Lifted, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        return _rows(self._loop, method(self._target, *args, **kwargs).pages())

    signature = inspect.signature(method)
    _, bracket, rest = str(signature.return_annotation).partition("[")
    told = f"Iterator{bracket}{rest}"
    return _like(method, call, signature.replace(return_annotation=told))


def _rows(loop: Loop, pages: AsyncIterator[Sequence[R]]) -> Iterator[R]:
    feed = _Feed(pages)
    task = loop.begin(feed.run)
    try:
        while (rows := loop.wait(feed.following)) is not None:
            yield from rows
    except GeneratorExit:
        # Closed with the client, lost by a fork, or collected in the loop's own thread.
        with contextlib.suppress(KnowledgeError):
            loop.wait(feed.close)
        raise
    finally:
        task.cancel()


class _Feed(Generic[R]):
    """Goes through pages in one task, as far as they are wanted.

    A generator that holds a connection has entered scopes, which only that task may leave.
    """

    def __init__(self, pages: AsyncIterator[Sequence[R]]) -> None:
        self._pages = pages
        self._wanted: asyncio.Queue[bool] = asyncio.Queue()
        self._found: asyncio.Queue[Sequence[R] | Exception | None] = asyncio.Queue()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Fetch a page whenever `following` is called, and close the generator in the end."""
        try:
            while await self._wanted.get() and await self._next():
                pass
        finally:
            # Under no scope: one that is entered now cannot enclose those of the generator.
            if isinstance(self._pages, AsyncGenerator):
                await self._pages.aclose()
            self._closed.set()

    async def following(self) -> Sequence[R] | None:
        """Wait for the next page; None is the end."""
        self._wanted.put_nowait(True)  # noqa: FBT003 -- the queue's own word
        found = await self._found.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """Close the generator where it stands."""
        self._wanted.put_nowait(False)  # noqa: FBT003 -- likewise
        with anyio.move_on_after(_CLEANUP):
            await self._closed.wait()

    async def _next(self) -> bool:
        found: Sequence[R] | Exception | None
        try:
            found = await anext(self._pages, None)
        except Exception as error:  # noqa: BLE001 -- raised again where it is waited for
            found = error
        self._found.put_nowait(found)
        return found is not None and not isinstance(found, Exception)


def _like(
    method: Callable[..., object],
    call: Callable[Concatenate[Lifted, P], R],
    signature: inspect.Signature,
) -> Callable[Concatenate[Lifted, P], R]:
    functools.update_wrapper(call, method)
    dressed: Any = call
    # Frameworks unwrap a function to ask whether it is a coroutine function; this one is not.
    del dressed.__wrapped__
    dressed.__signature__ = signature
    return call
