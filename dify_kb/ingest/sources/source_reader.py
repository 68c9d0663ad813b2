"""Read a source in batches of checked files; blocking sources are read in a thread."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import unicodedata
from collections import Counter
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from functools import partial
from typing import TypeVar

from attrs import evolve, frozen

from dify_kb.errors import ConfigError
from dify_kb.ingest.report import ItemResult
from dify_kb.transport.thread_batch import run_in_thread

from .document_names import PathNormalizer
from .file_content import read_stream
from .file_source import FileSource, open_file_sources
from .found_file import FoundFile
from .ignore_files import IGNORE_FILE, IgnoredPaths
from .items import Element, Item, NamedSource, Source
from .iter_in_thread import iter_in_thread
from .scan import Scanner, ScanRules, SeenKeys, scan
from .scan_roots import ScanRoot, identify_roots, resolve_roots


@frozen
class SourceTotals:
    """The size of a source: `files` that can be loaded, their `bytes`, and `refused` files."""

    files: int = 0
    bytes: int = 0
    refused: int = 0


def count_source(
    roots: Sequence[ScanRoot], rules: ScanRules, stop: Callable[[], bool]
) -> SourceTotals | None:
    """Return the totals of a scan of `roots`; None if `stop()` ended it early. Blocking.

    Reads no file: 10,000 files take about 0.1 s of CPU.
    """
    return _sum(scan(roots, rules, stop=stop), stop)


def count_items(
    items: Iterable[Item], rules: ScanRules, stop: Callable[[], bool], *, explicit: bool = False
) -> SourceTotals | None:
    """Return the totals of a collection of items; None if `stop()` ended it early. Blocking."""
    scanner, seen = Scanner.from_rules(rules), SeenKeys()
    checked = (scanner.check_item(item, explicit=explicit) for item in items)
    return _sum((seen.reject_repeated(one) for one in checked if one is not None), stop)


def _sum(
    checked: Iterable[FoundFile | ItemResult], stop: Callable[[], bool]
) -> SourceTotals | None:
    files = size = refused = 0
    for one in checked:
        if stop():
            return None
        if isinstance(one, FoundFile):
            files += 1
            size += one.size
        else:
            refused += 1
    return None if stop() else SourceTotals(files, size, refused)


T = TypeVar("T")

MAX_IGNORE_FILE = 2**20
"""Bytes read of an ignore file."""

MIN_BATCH, MAX_BATCH = 200, 5000
"""Files in a batch. Large batches are faster, because a thread switch costs more than checking a
file. But files may change before they are sent: only fast servers get large batches."""

CheckedFile = FoundFile | ItemResult
Batches = Callable[[ScanRules], AsyncIterator[Sequence[CheckedFile]]]
CountTotals = Callable[[ScanRules, Callable[[], bool]], SourceTotals | None]


@frozen
class SourceReader:
    """A source that is ready to be read.

    `identity` distinguishes the source in the names of journals; None for items and iterables.
    `counted` is True if the source is read to its end even after the run has stopped, to count its
    files. `totals` counts the files in advance, blocking, until its second argument returns True;
    None if the length of the source is unknown.
    """

    identity: str | None
    batches: Batches
    counted: bool = False
    totals: CountTotals | None = None
    exists: Callable[[ScanRules, Collection[str]], Collection[str]] = lambda _, __: ()
    """Returns which of these keys the source contains although the rules leave them out.
    Blocking."""

    prepare: Callable[[], object] = lambda: None
    """Downloads what a scan needs, before anything is sent. Blocking."""

    close: Callable[[], object] = lambda: None
    """Releases connections and temporary files; ends `prepare`. Blocking."""


async def create_source_reader(source: Source) -> SourceReader:
    """Create the reader of a source; reads the first element of a generator to determine its type.

    Raises:
        ConfigError: a path is empty or does not exist, or paths and items are mixed.
    """
    if isinstance(source, NamedSource):
        reader = await _reader(source.elements, explicit=True)
        normalizer = PathNormalizer()
        name = await run_in_thread(normalizer.normalize, source.name)
        return evolve(reader, identity=name)
    return await _reader(source, explicit=False)


async def _reader(
    source: Element | Iterable[Element] | AsyncIterable[Element], *, explicit: bool
) -> SourceReader:
    if isinstance(source, str | os.PathLike | Item | FileSource):
        source = [source]
    if isinstance(source, AsyncIterable):
        return await _stream_reader(aiter(source))
    elements = iter(source)
    first = await run_in_thread(_take_elements, elements, 1)
    everything = itertools.chain(first, elements)
    if not first or not isinstance(first[0], Item):
        has_identity = isinstance(source, Sequence)
        return await run_in_thread(_path_reader, everything, explicit, has_identity)
    known = source if isinstance(source, Collection) else None
    return SourceReader(
        None,
        lambda rules: _check_items(_iter_blocking(everything), rules, explicit=explicit),
        totals=None if known is None else partial(_count_items, known, explicit),
        exists=_find_excluded,
    )


def _file_source_reader(sources: Sequence[FileSource]) -> SourceReader:
    """Return the reader of buckets, repositories, archives and lists of URLs."""
    ignored: list[IgnoredPaths] = []
    return SourceReader(
        "\n".join(sorted(source.identity for source in sources)),
        lambda rules: iter_in_thread(_iter_entries(sources, ignored, rules), lambda _: 0),
        counted=True,
        totals=lambda rules, stop: _sum(_iter_entries(sources, ignored, rules), stop),
        exists=lambda _, keys: _find_entries(sources, keys),
        prepare=partial(_prepare_sources, sources, ignored),
        close=partial(_close_sources, sources),
    )


def _prepare_sources(sources: Sequence[FileSource], ignored: list[IgnoredPaths]) -> None:
    """Prepare the sources, and read the ignore file at the root of each."""
    ignored.clear()
    for source in sources:
        source.prepare()
        ignored.append(IgnoredPaths.from_content(_read_ignore_file(source)))


def _read_ignore_file(source: FileSource) -> bytes:
    entry = source.find(IGNORE_FILE)
    if entry is None or entry.refused:
        return b""
    stream = source.open(entry).stream
    try:
        return read_stream(stream, MAX_IGNORE_FILE)
    finally:
        stream.close()


def _close_sources(sources: Sequence[FileSource]) -> None:
    for source in sources:
        source.close()


def _iter_entries(
    sources: Sequence[FileSource], ignored: Sequence[IgnoredPaths], rules: ScanRules
) -> Iterator[FoundFile | ItemResult]:
    scanner, seen = Scanner.from_rules(rules), SeenKeys()
    for source, paths, label in zip(sources, ignored, _label_sources(sources), strict=True):
        for entry in source.scan():
            checked = scanner.check_entry(source, entry, label)
            if checked is not None and not paths.contains(entry.key):
                yield seen.reject_repeated(checked)


def _find_entries(sources: Sequence[FileSource], keys: Collection[str]) -> Collection[str]:
    wanted = set(keys)
    return {
        key
        for source, label in zip(sources, _label_sources(sources), strict=True)
        for entry in source.scan()
        if (key := f"{label}{entry.key}") in wanted
    }


def _label_sources(sources: Sequence[FileSource]) -> Sequence[str]:
    """Return the prefix of the keys of each source; equal labels get a hash of the identity."""
    if len(sources) == 1:
        return [""]
    count = Counter(source.label for source in sources)
    return [
        f"{source.label}/" if count[source.label] == 1 else f"{source.label}-{_hash(source)}/"
        for source in sources
    ]


def _hash(source: FileSource) -> str:
    identity = source.identity.encode(errors="surrogatepass")
    return hashlib.blake2b(identity, digest_size=4).hexdigest()


async def _stream_reader(elements: AsyncIterator[Element]) -> SourceReader:
    first = [element async for element in _first(elements)]
    if first and isinstance(first[0], Item):
        return SourceReader(
            None,
            lambda rules: _check_items(_chain(first, elements), rules, explicit=False),
            exists=_find_excluded,
        )
    paths = [*first, *[element async for element in elements]]
    return await run_in_thread(_path_reader, paths)


def _path_reader(
    paths: Iterable[Element],
    explicit: bool = False,  # noqa: FBT001, FBT002 -- bound by position
    has_identity: bool = False,  # noqa: FBT001, FBT002 -- bound by position
) -> SourceReader:
    """Return the reader of paths, URLs and sources. Blocking."""
    elements = list(paths)
    if not explicit and (sources := open_file_sources(elements)):
        return _file_source_reader(sources)
    roots = resolve_roots(elements)
    return SourceReader(
        identify_roots(roots) if has_identity else None,
        lambda rules: _scan_batches(roots, rules),
        counted=True,
        totals=partial(count_source, roots),
        exists=lambda _, keys: [key for key in keys if _exists_below(roots, key)],
    )


def _find_excluded(rules: ScanRules, keys: Collection[str]) -> Collection[str]:
    """Return the keys that the patterns exclude: a collection has no other files to look for."""
    scanner = Scanner.from_rules(rules)
    return [key for key in keys if scanner.excludes(key)]


def _exists_below(roots: Sequence[ScanRoot], key: str) -> bool:
    for root in roots:
        if root.key is not None:
            paths = [root.path] if root.key == key else []
        else:
            below = key.removeprefix(root.label) if key.startswith(root.label) else None
            # On disk, a name may have another Unicode form than its key.
            paths = [
                root.path / unicodedata.normalize(form, below)
                for form in ("NFC", "NFD")
                if below is not None
            ]
        if any(os.path.lexists(path) for path in paths):
            return True
    return False


async def _scan_batches(
    roots: Sequence[ScanRoot], rules: ScanRules
) -> AsyncIterator[Sequence[CheckedFile]]:
    checked, size = scan(roots, rules), MIN_BATCH
    while batch := await run_in_thread(_take_elements, checked, size):
        started = time.monotonic()
        yield batch
        size = next_batch_size(size, time.monotonic() - started)


async def _check_items(
    elements: AsyncIterator[Sequence[Element]], rules: ScanRules, *, explicit: bool
) -> AsyncIterator[Sequence[CheckedFile]]:
    scanner, seen = Scanner.from_rules(rules), SeenKeys()

    def check(batch: Sequence[Element]) -> Sequence[CheckedFile]:
        checked = (
            scanner.check_item(_require_item(element), explicit=explicit) for element in batch
        )
        return [seen.reject_repeated(one) for one in checked if one is not None]

    async for batch in elements:
        if checked := await run_in_thread(check, batch):
            yield checked


def _count_items(
    elements: Iterable[Element],
    explicit: bool,  # noqa: FBT001 -- bound by position
    rules: ScanRules,
    stop: Callable[[], bool],
) -> SourceTotals | None:
    items = (_require_item(element) for element in elements)
    return count_items(items, rules, stop, explicit=explicit)


def next_batch_size(size: int, seconds: float) -> int:
    """Return the size of the next batch: the files of the last batch sent per second."""
    rate = size / max(seconds, 1e-6)
    return int(max(MIN_BATCH, min(rate, 2 * size, MAX_BATCH)))


def _iter_blocking(elements: Iterable[Element]) -> AsyncIterator[Sequence[Element]]:
    return iter_in_thread(
        elements, lambda element: element.weight if isinstance(element, Item) else 0
    )


async def _chain(
    first: Sequence[Element], elements: AsyncIterator[Element]
) -> AsyncIterator[Sequence[Element]]:
    yield first
    async for element in elements:
        yield [element]


async def _first(elements: AsyncIterator[T]) -> AsyncIterator[T]:
    async for element in elements:
        yield element
        return


def _require_item(element: Element) -> Item:
    if not isinstance(element, Item):
        raise ConfigError(
            "The source mixes paths and items.", hint="Pass paths as Item(key, path=…), too."
        )
    return element


def _take_elements(elements: Iterator[T], number: int) -> list[T]:
    return list(itertools.islice(elements, number))
