"""A source as callers give it becomes batches of files; blocking ones are pulled in a thread."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import anyio.to_thread
from attrs import evolve, frozen

from dify_kb.errors import ConfigError
from dify_kb.ingest.report import ItemResult

from .items import Element, Item, NamedSource, Source
from .iter_in_thread import iter_in_thread
from .scan import FoundFile, Root, Rules, Scanner, SeenKeys, roots_of, scan

T = TypeVar("T")

AT_ONCE, MOST = 200, 5000
"""Files that cross between threads at a time: a hop costs more than a file. The second is for a
server that takes them as fast as they are found; for others it would be long until they are sent,
and they may change meanwhile."""

Judged = FoundFile | ItemResult
Batches = Callable[[Rules], AsyncIterator[Sequence[Judged]]]


@frozen
class SourceReader:
    """A source. `identity` tells it from others in the names of journals; None has none.

    `counted` tells that all of it is to be gone through, also when nothing more is sent of it.
    """

    identity: str | None
    batches: Batches
    counted: bool = False


async def source_reader(source: Source) -> SourceReader:
    """Take a source; of a generator, as much as tells whether it gives paths or items.

    Raises:
        ConfigError: a path does not exist, or paths and items are mixed.
    """
    if isinstance(source, NamedSource):
        return evolve(await source_reader(source.elements), identity=source.name)
    if isinstance(source, str | os.PathLike):
        return await _paths([source], named=True)
    if isinstance(source, Item):
        return SourceReader(None, lambda rules: _judged(_each([source]), rules))
    if isinstance(source, AsyncIterable):
        return await _of_stream(aiter(source))
    elements = iter(source)
    first = await anyio.to_thread.run_sync(_some, elements, 1)
    everything = itertools.chain(first, elements)
    if first and isinstance(first[0], Item):
        return SourceReader(None, lambda rules: _judged(_each(everything), rules))
    return await _paths(everything, named=isinstance(source, Sequence))


async def _of_stream(elements: AsyncIterator[Element]) -> SourceReader:
    first = [element async for element in _first(elements)]
    if first and isinstance(first[0], Item):
        return SourceReader(None, lambda rules: _judged(_chained(first, elements), rules))
    return await _paths([*first, *[element async for element in elements]], named=False)


async def _paths(paths: Iterable[Element], *, named: bool) -> SourceReader:
    roots = await anyio.to_thread.run_sync(roots_of, paths)
    identity = "\n".join(str(root.path) for root in roots) if named and roots else None
    return SourceReader(identity, lambda rules: _scanned(roots, rules), counted=True)


async def _scanned(roots: Sequence[Root], rules: Rules) -> AsyncIterator[Sequence[Judged]]:
    judged, number = scan(roots, rules), AT_ONCE
    while batch := await anyio.to_thread.run_sync(_some, judged, number):
        began = time.monotonic()
        yield batch
        number = next_size(number, time.monotonic() - began)


async def _judged(
    elements: AsyncIterator[Sequence[Element]], rules: Rules
) -> AsyncIterator[Sequence[Judged]]:
    scanner, seen = Scanner.of(rules), SeenKeys()

    def judge(batch: Sequence[Element]) -> Sequence[Judged]:
        judged = (scanner.item(_item(element)) for element in batch)
        return [seen.once(one) for one in judged if one is not None]

    async for batch in elements:
        if judged := await anyio.to_thread.run_sync(judge, batch):
            yield judged


def next_size(number: int, seconds: float) -> int:
    """Tell how many to take next, after so many were gone in this time: those of a second."""
    taken = number / max(seconds, 1e-6)
    return int(max(AT_ONCE, min(taken, 2 * number, MOST)))


def _each(elements: Iterable[Element]) -> AsyncIterator[Sequence[Element]]:
    return iter_in_thread(
        elements, lambda element: element.weight if isinstance(element, Item) else 0
    )


async def _chained(
    first: Sequence[Element], elements: AsyncIterator[Element]
) -> AsyncIterator[Sequence[Element]]:
    yield first
    async for element in elements:
        yield [element]


async def _first(elements: AsyncIterator[T]) -> AsyncIterator[T]:
    async for element in elements:
        yield element
        return


def _item(element: Element) -> Item:
    if not isinstance(element, Item):
        raise ConfigError(
            "Paths and items are mixed in one source.", hint="Give files as Item(key, path=…) too."
        )
    return element


def _some(items: Iterator[T], number: int) -> list[T]:
    return list(itertools.islice(items, number))
