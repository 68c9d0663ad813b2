"""Sources of files other than folders: their interface, and how an address selects one."""

from __future__ import annotations

import abc
import functools
import importlib
import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from attrs import define, frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

ENTRY_POINTS = "dify_kb.sources"
"""The entry point group of connectors: a URL scheme, and a function from a URL to a source."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_USER = re.compile(
    r"(?<![\w+.-])([a-z][a-z0-9+.-]+://)(?:[^/\s]*@|[^/\s:@\[]+:(?!\d*(?:/|\Z|\s))[^\s@]*\S*@)",
    re.IGNORECASE,
)
"""A user name, and a password that may contain `/`: no port."""


@frozen(kw_only=True)
class SourceEntry:
    """A file of a source.

    `key` is its path in the source, with `/`. `size` is in bytes, None if unknown before it is
    read. `token` changes with the content, such as an ETag, a version or a blob id; None if the
    content must be read to detect a change. `mtime_ns` is the modification time in nanoseconds
    since the epoch. `refused` is the reason why the file is skipped, such as a link; `unreadable`
    is the reason why it fails, such as encryption.
    """

    key: str
    size: int | None
    token: str | None = None
    mtime_ns: int | None = None
    refused: str | None = None
    unreadable: str | None = None


class ByteStream(Protocol):
    """A stream of bytes that is read once, such as a file object or a response."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Release the stream."""
        ...


@define
class FilePart:
    """A part of a file as a stream, which is independent of the position of the file."""

    _file: BinaryIO
    _place: int
    _left: int

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end.

        Raises:
            EOFError: the file ends before the part does.
        """
        data = os.pread(self._file.fileno(), min(size, self._left), self._place)
        if self._left and not data:
            raise EOFError("unexpected end of the file")
        self._place += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Release the stream; the file stays open."""
        self._left = 0


@frozen
class OpenedEntry:
    """The current content of an entry.

    `token` belongs to exactly this content, and may differ from that of the scan; `size` is its
    length in bytes, None if unknown.
    """

    stream: ByteStream
    token: str | None
    size: int | None = None


class FileSource(abc.ABC):
    """A source of files: a bucket, a repository, an archive or a list of URLs.

    Subclass it to load files from another system, and register the subclass, or a function that
    returns an instance, as an entry point in the group `dify_kb.sources` under a URL scheme:
    `dify-kb load scheme://…` then uses it. All methods are called in worker threads and may block;
    `scan` and `open` are called from several threads at the same time.

    Errors that concern all files are raised as `ConfigError` or `SourceError` with advice, and end
    the load. A `SourceError` of `open` fails its file.
    """

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """An identifier that names the source in journals, without credentials."""

    @property
    def label(self) -> str:
        """The name that begins the keys if several sources are loaded together."""
        return self.identity.rstrip("/").rpartition("/")[2]

    def prepare(self) -> None:  # noqa: B027 -- few sources have something to prepare
        """Download what `scan` needs, such as a clone; called before anything is sent.

        Raises:
            ConfigError: the source does not exist.
            SourceError: it cannot be read.
        """

    @abc.abstractmethod
    def scan(self) -> Iterator[SourceEntry]:
        """Yield the files, each time anew."""

    @abc.abstractmethod
    def open(self, entry: SourceEntry) -> OpenedEntry:
        """Open a file for reading, as it is now.

        Raises:
            SourceError: the file was deleted, or cannot be read.
        """

    def find(self, key: str) -> SourceEntry | None:
        """Return the file with this key, None if there is none. The default scans for it."""
        return next((entry for entry in self.scan() if entry.key == key), None)

    def find_unchanged(self, known: Sequence[tuple[SourceEntry, str]]) -> AbstractSet[str]:
        """Return the keys of the files that still have these tokens.

        The default compares tokens. Override it if the scan does not return them.
        """
        return {entry.key for entry, token in known if entry.token == token}

    def close(self) -> None:  # noqa: B027 -- few sources have something to release
        """Release connections and temporary files; end a `prepare` in another thread."""


_BUILT_IN: Mapping[str, str] = {
    **dict.fromkeys(
        ("git+https", "git+http", "git+ssh", "git+file"),
        "dify_kb.ingest.sources.git_source:GitSource",
    ),
    "s3": "dify_kb.ingest.sources.cloud_source:CloudSource",
    "gs": "dify_kb.ingest.sources.cloud_source:CloudSource",
    "az": "dify_kb.ingest.sources.cloud_source:CloudSource",
}
"""Module and class of each scheme that the package serves itself."""

_ARCHIVE = "dify_kb.ingest.sources.archive_source:ArchiveSource"
_ARCHIVE_NAME = re.compile(r".\.(zip|tar|t(ar\.)?(gz|bz2|xz|zst))$", re.IGNORECASE)


def parse_scheme(source: object) -> str | None:
    """Return the URL scheme of a source in lower case; None for a path or an item."""
    found = _SCHEME.match(source) if isinstance(source, str) else None
    return found[1].lower() if found else None


def open_file_source(url: str) -> FileSource:
    """Create the source of a URL by its scheme.

    Raises:
        ConfigError: the scheme is unknown, its libraries are not installed, or the URL is invalid.
    """
    scheme = parse_scheme(url) or ""
    try:
        create = _find_connector(scheme)
    except ImportError as error:
        raise ConfigError(
            f"Cannot load from {scheme}://: {error}.",
            hint="Install the libraries: pip install 'dify-kb[cloud]'.",
        ) from error
    if create is None:
        known = sorted({*_BUILT_IN, *_list_connectors()})
        raise ConfigError(
            f"Unknown scheme of a source: {scheme}://.",
            hint=f"Pass a folder, a file, or a URL that begins with {', '.join(known)}.",
        )
    source = create(url)
    if not isinstance(source, FileSource):
        raise ConfigError(
            f"The connector of {scheme}:// returned {type(source).__name__}, not a FileSource.",
            hint=f"Check its entry point in the group {ENTRY_POINTS}.",
        )
    return source


def open_file_sources(elements: Sequence[object]) -> list[FileSource] | None:
    """Return the sources that the elements of a source stand for; None for folders and files.

    Blocking. An archive among folders and files is a file like others.

    Raises:
        ConfigError: a URL is invalid, or is mixed with folders, files or items.
    """
    if elements and all(_is_file_source(element) for element in elements):
        return [_open_element(element) for element in elements]
    for element in elements:
        if isinstance(element, FileSource) or parse_scheme(element):
            name = element.identity if isinstance(element, FileSource) else hide_user(str(element))
            raise ConfigError(
                f"Cannot load {name} together with folders, files or items.",
                hint="Load it in a call of its own.",
            )
    return None


def hide_user(address: str) -> str:
    """Return an address without the user name and password of a URL."""
    return _USER.sub(r"\1", address)


def _is_file_source(element: object) -> bool:
    if isinstance(element, FileSource) or parse_scheme(element):
        return True
    if not isinstance(element, str | os.PathLike):
        return False
    path = os.fspath(element)
    try:
        return bool(_ARCHIVE_NAME.search(path)) and Path(path).is_file()
    except (OSError, ValueError):
        return False


def _open_element(element: object) -> FileSource:
    if isinstance(element, FileSource):
        return element
    if isinstance(element, str) and parse_scheme(element):
        return open_file_source(element)
    return cast("FileSource", _import(_ARCHIVE)(element))


def _import(name: str) -> Callable[[object], object]:
    module, _, attribute = name.partition(":")
    return cast("Callable[[object], object]", getattr(importlib.import_module(module), attribute))


def _find_connector(scheme: str) -> Callable[[str], object] | None:
    if scheme in _BUILT_IN:
        return _import(_BUILT_IN[scheme])
    connector = _list_connectors().get(scheme)
    return None if connector is None else cast("Callable[[str], object]", connector.load())


@functools.cache
def _list_connectors() -> Mapping[str, importlib.metadata.EntryPoint]:
    return {one.name: one for one in importlib.metadata.entry_points(group=ENTRY_POINTS)}
