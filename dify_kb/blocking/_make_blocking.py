"""Convert async methods to blocking methods.

A blocking method has the parameters, defaults, overloads, return type and docstring of the async
method, at run time as well as for type checkers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
)

import anyio
from attrs import frozen

from dify_kb.argument_checks import check_call
from dify_kb.errors import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from dify_kb.ingest import LoadReport

    from ._loop_thread import LoopThread

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

_CLEANUP_TIMEOUT: Final = 1.0
"""Seconds that a generator gets to close its resources before it is cancelled."""


class SupportsPages(Protocol[R_co]):
    """An object that can be iterated page by page."""

    def pages(self) -> AsyncIterator[Sequence[R_co]]:
        """Yield each page as a sequence of rows."""
        ...


class SupportsReport(SupportsPages[R_co], Protocol[R_co]):
    """The results of a load, page by page, with a report at the end."""

    @property
    def report(self) -> LoadReport | None: ...


class BlockingObject(Protocol):
    """The attributes that a blocking method needs on its object."""

    @property
    def _loop(self) -> LoopThread: ...

    @property
    def _target(self) -> Any: ...


def make_blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[BlockingObject, P], R]:
    """Return a method that runs `method` in the loop thread and waits for its result."""

    def blocking_method(self: BlockingObject, /, *args: P.args, **kwargs: P.kwargs) -> R:
        unchecked = check_call(method, self, args, kwargs)
        return self._loop.run(functools.partial(unchecked, self._target, *args, **kwargs))

    return _copy_signature(method, blocking_method, inspect.signature(method))


def make_blocking_iterator(
    method: Callable[Concatenate[S, P], SupportsPages[R]],
) -> Callable[Concatenate[BlockingObject, P], Iterator[R]]:
    """Return a method that iterates over the pages of `method`; waits once per page, not row."""

    def blocking_method(self: BlockingObject, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        unchecked = check_call(method, self, args, kwargs)
        return BlockingIterator(
            _iter_rows(self._loop, unchecked(self._target, *args, **kwargs).pages())
        )

    return _copy_signature(method, blocking_method, _replace_return_type(method, "Iterator"))


def make_blocking_results(
    method: Callable[Concatenate[S, P], SupportsReport[R]],
) -> Callable[Concatenate[BlockingObject, P], BlockingResults[R]]:
    """Return a method that iterates over the results of a load or sync, and has its report."""

    def blocking_method(
        self: BlockingObject, /, *args: P.args, **kwargs: P.kwargs
    ) -> BlockingResults[R]:
        unchecked = check_call(method, self, args, kwargs)
        results = unchecked(self._target, *args, **kwargs)
        return BlockingResults(results, BlockingIterator(_iter_rows(self._loop, results.pages())))

    return _copy_signature(method, blocking_method, _replace_return_type(method, "BlockingResults"))


def _replace_return_type(method: Callable[..., object], name: str) -> inspect.Signature:
    """Return the signature of a method that returns another type of the same rows."""
    signature = inspect.signature(method)
    _, bracket, rest = str(signature.return_annotation).partition("[")
    return signature.replace(return_annotation=f"{name}{bracket}{rest}")


@frozen
class BlockingIterator(Generic[R]):
    """An iterator over rows, which are requested while they are iterated."""

    _rows: Generator[R, None, None]

    def __iter__(self) -> Iterator[R]:
        return self._rows

    def __next__(self) -> R:
        return next(self._rows)

    def close(self) -> None:
        """End the requests before all rows were iterated."""
        self._rows.close()

    if not TYPE_CHECKING:  # type checkers report the missing method

        def __aiter__(self) -> NoReturn:
            raise TypeError("Iterate with 'for', or use AsyncClient instead of Client.")


@frozen
class BlockingResults(Generic[R]):
    """The results of a load or sync, one per file; leaving the iteration early cancels it."""

    _results: SupportsReport[R]
    _rows: BlockingIterator[R]

    @property
    def report(self) -> LoadReport | None:
        """The report, once the iteration has ended."""
        return self._results.report

    def __iter__(self) -> Iterator[R]:
        return iter(self._rows)

    def __next__(self) -> R:
        return next(self._rows)

    def close(self) -> None:
        """Cancel the load or sync."""
        self._rows.close()

    if not TYPE_CHECKING:  # type checkers report the missing method

        def __aiter__(self) -> NoReturn:
            self._rows.__aiter__()


def _iter_rows(loop: LoopThread, pages: AsyncIterator[Sequence[R]]) -> Generator[R, None, None]:
    fetcher = _PageFetcher(pages)
    task = loop.start_task(fetcher.run)
    try:
        while (rows := loop.run(fetcher.fetch_next)) is not None:
            yield from rows
    except GeneratorExit:
        # Fails if the client is closed, after a fork, or when collected in the loop's thread.
        with contextlib.suppress(KnowledgeError):
            loop.run(fetcher.close)
        raise
    finally:
        task.cancel()


class _PageFetcher(Generic[R]):
    """A task that fetches pages on demand.

    One task for all pages, as a generator with an open connection has entered cancel scopes, which
    only the same task may leave.
    """

    def __init__(self, pages: AsyncIterator[Sequence[R]]) -> None:
        self._pages = pages
        self._demand: asyncio.Queue[bool] = asyncio.Queue()
        self._results: asyncio.Queue[Sequence[R] | Exception | None] = asyncio.Queue()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Fetch a page for each call of `fetch_next`; close the generator at the end."""
        try:
            while await self._demand.get() and await self._fetch():
                pass
        finally:
            # Without a cancel scope: a new one could not enclose those of the generator.
            if isinstance(self._pages, AsyncGenerator):
                await self._pages.aclose()
            self._closed.set()

    async def fetch_next(self) -> Sequence[R] | None:
        """Return the next page, or None at the end."""
        self._demand.put_nowait(True)  # noqa: FBT003 -- the queue's own word
        page = await self._results.get()
        if isinstance(page, Exception):
            raise page
        return page

    async def close(self) -> None:
        """Close the generator at its current position."""
        self._demand.put_nowait(False)  # noqa: FBT003 -- likewise
        with anyio.move_on_after(_CLEANUP_TIMEOUT):
            await self._closed.wait()

    async def _fetch(self) -> bool:
        page: Sequence[R] | Exception | None
        try:
            page = await anext(self._pages, None)
        except Exception as error:  # noqa: BLE001 -- raised by fetch_next
            page = error
        self._results.put_nowait(page)
        return page is not None and not isinstance(page, Exception)


def _copy_signature(
    method: Callable[..., object],
    blocking_method: Callable[Concatenate[BlockingObject, P], R],
    signature: inspect.Signature,
) -> Callable[Concatenate[BlockingObject, P], R]:
    functools.update_wrapper(blocking_method, method)
    wrapper: Any = blocking_method
    # Frameworks unwrap functions to detect coroutine functions, which this one is not.
    del wrapper.__wrapped__
    wrapper.__signature__ = signature
    return blocking_method
