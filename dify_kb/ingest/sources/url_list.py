"""Files behind a list of URLs, downloaded only if they changed."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import tempfile
import threading
from pathlib import Path
from ssl import SSLContext  # noqa: TC003 -- the constructor is checked by it
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from attrs import evolve, frozen
from yarl import URL

from dify_kb.argument_checks import check_constructor
from dify_kb.arguments import check_type
from dify_kb.errors import ConfigError, SourceError
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE
from dify_kb.transport import choose_proxy
from dify_kb.transport.upload_body import BLOCK_SIZE

from .document_names import UNSTRUCTURED_EXTENSIONS, PathNormalizer, file_extension
from .file_source import FilePart, FileSource, OpenedEntry, SourceEntry, hide_user
from .found_file import describe_os_error
from .http_downloads import Download, HttpDownloads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

MAX_KEPT: Final = 256 * 1024 * 1024
"""Bytes of changed files that are kept after the comparison; others are downloaded again."""

_BATCH: Final = 64
"""URLs whose type is requested before the first of them is loaded."""

_EXTENSIONS: Final = {
    "application/epub+zip": "epub",
    "application/json": "json",
    "application/ld+json": "json",
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/xhtml+xml": "html",
    "application/xml": "xml",
    "message/rfc822": "eml",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/vtt": "vtt",
    "text/x-markdown": "md",
    "text/xml": "xml",
}
"""The extension of a file by its Content-Type."""

_KNOWN: Final = DOCUMENT_EXTENSIONS | UNSTRUCTURED_EXTENSIONS
_GENERIC: Final = frozenset({"txt", "xml", "json"})
"""Types as which servers also send files of other types, such as program code."""

_BINARY: Final = frozenset({"doc", "docx", "epub", "pdf", "ppt", "pptx", "xls", "xlsx"})
_HAS_EXTENSION: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}$")


@frozen
class _Link:
    """A line of the list; `key` may lack an extension."""

    key: str
    url: URL


@check_constructor
class UrlList(FileSource):
    """The files behind a list of `http://` and `https://` URLs.

    Each run sends conditional requests (ETag, Last-Modified), up to 8 at once, and downloads only
    what changed; a server that supports neither costs a download of each file. The key of a file is
    host and path of its URL, followed by a hash of the query; an extension that is missing, or not
    that of a document, is added by the file name of the Content-Disposition or by the Content-Type,
    which costs a HEAD request per run. Redirects are followed. A URL that fails fails its file
    alone. Pages are not searched for links.

    Args:
        urls: the path of a file with one URL per line, or the lines: `URL` or `KEY<tab>URL`. Empty
            lines and lines that begin with `#` are ignored.
        name: identifies the list in journals; default: its path, or a hash of its lines.
        proxy: URL of a proxy.
        trust_env: use the proxies (`HTTPS_PROXY`) and the netrc file of the environment.
        ssl: trusts certificate authorities other than those of the system.

    Raises:
        ConfigError: the address of the proxy is invalid.
        TypeError: an argument or a line has the wrong type.
    """

    def __init__(
        self,
        urls: str | os.PathLike[str] | Iterable[str],
        *,
        name: str | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
    ) -> None:
        self._path = Path(os.path.abspath(urls)) if isinstance(urls, str | os.PathLike) else None  # noqa: PTH100 -- resolve() would follow links
        self._lines = () if self._path else tuple(cast("Iterable[str]", urls))
        for index, line in enumerate(self._lines):
            check_type(line, str, f"urls[{index}]", "a string")
        self._name = name
        self._links: Sequence[_Link] | None = None
        self._lock = threading.Lock()
        self._http = HttpDownloads(choose_proxy(proxy, "", trust_env=False), trust_env, ssl)
        self._entries: dict[str, SourceEntry] = {}
        self._urls: dict[str, URL] = {}
        self._kept: dict[str, tuple[int, Download]] = {}
        self._spool: BinaryIO | None = None
        self._kept_size = 0

    @property
    def identity(self) -> str:
        """The path or name of the list, or a hash of its lines."""
        name = self._name
        if name is None and self._path is not None:
            name = PathNormalizer().normalize(str(self._path))
        joined = "\n".join(self._lines).encode(errors="surrogatepass")
        return f"urls:{name or hashlib.sha256(joined).hexdigest()[:16]}"

    @property
    def label(self) -> str:
        """The name of the list without its extension."""
        return self._name or (self._path.stem if self._path else "urls")

    def prepare(self) -> None:
        """Read the list.

        Raises:
            ConfigError: it cannot be read, or contains an invalid line.
        """
        with self._lock:
            if self._links is None:
                self._links = list(dict.fromkeys(self._parse_lines()))
                self._http = HttpDownloads(self._http.proxy, self._http.trust_env, self._http.ssl)

    def scan(self) -> Iterator[SourceEntry]:
        """Yield the files in the order of the list; requests the types of some."""
        if self._links is None:
            raise SourceError("The list of URLs was not read.", hint="Call prepare() first.")
        links = iter(self._links)
        while batch := list(itertools.islice(links, _BATCH)):
            with self._lock:
                new = [link for link in batch if link.key not in self._entries]
                found = self._http.map(self._find_type, new)
                self._entries.update(zip((link.key for link in new), found, strict=True))
                entries = [self._entries[link.key] for link in batch]
                for link, entry in zip(batch, entries, strict=True):
                    self._urls.setdefault(entry.key, link.url)
            yield from entries

    def find(self, key: str) -> SourceEntry | None:
        """Return None without a request: URLs have no common root."""
        del key
        return None

    def find_unchanged(self, known: Sequence[tuple[SourceEntry, str]]) -> AbstractSet[str]:
        """Return the keys of the files that have not changed, by conditional requests.

        What is downloaded because it changed is kept for `open`.
        """
        tokens = {entry.key: token for entry, token in known}
        return set(itertools.compress(tokens, self._http.map(self._is_unchanged, tokens.items())))

    def open(self, entry: SourceEntry) -> OpenedEntry:
        """Download a file.

        Raises:
            SourceError: it cannot be downloaded.
        """
        if kept := self._kept.get(entry.key):
            place, download = kept
            part = FilePart(cast("BinaryIO", self._spool), place, download.size or 0)
            return OpenedEntry(part, download.token, download.size)
        download = self._http.call(self._http.get, self._urls[entry.key])
        _require_type(entry.key, download)
        return OpenedEntry(self._http.stream(download), download.token, download.size)

    def close(self) -> None:
        """Close the connections, and delete what was kept."""
        self._http.close()
        with self._lock:
            if self._spool is not None:
                self._spool.close()
            self._links = self._spool = None
            self._kept.clear()
            self._kept_size = 0
            self._entries.clear()
            self._urls.clear()

    def _parse_lines(self) -> Iterator[_Link]:
        lines: Iterable[str] = self._lines
        if self._path is not None:
            try:
                lines = self._path.read_text("utf-8-sig").splitlines()
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"Cannot read the list of URLs {self._path}: {describe_os_error(error)}.",
                    hint="Pass a text file with one URL per line.",
                ) from error
        for number, line in enumerate(map(str.strip, lines), 1):
            if line and not line.startswith("#"):
                link = _parse_line(line)
                if link is None:
                    shown = hide_user(line).partition("?")[0]
                    raise ConfigError(
                        f"Invalid line {number} of {self._path or 'the list of URLs'}: {shown!r}.",
                        hint="Pass http:// or https:// URLs, one per line, or KEY<tab>URL with a"
                        " relative path as key.",
                    )
                yield link

    async def _find_type(self, link: _Link) -> SourceEntry:
        """Return the entry of a link, whose key has the extension of its type."""
        entry = SourceEntry(key=link.key, size=None)
        if file_extension(link.key) in _KNOWN:
            return entry
        try:
            found = await self._http.head(link.url)
        except SourceError as error:
            return evolve(entry, unreadable=error.summary)
        suggested = file_extension(found.file_name)
        if suggested in _KNOWN:
            return evolve(entry, key=f"{link.key}.{suggested}")
        extension = _EXTENSIONS.get(found.content_type, "")
        has_other = _HAS_EXTENSION.search(link.key) is not None
        if extension and not (has_other and (extension in _GENERIC or extension not in _KNOWN)):
            return evolve(entry, key=f"{link.key}.{extension}")
        return entry

    async def _is_unchanged(self, known: tuple[str, str]) -> bool:
        key, token = known
        try:
            download = await self._http.get(self._urls[key], token)
            if download.token == token:
                download.response.close()
                return True
            _require_type(key, download)
            await self._keep(key, download)
        except (SourceError, OSError):
            pass  # `open` reports it
        return False

    async def _keep(self, key: str, download: Download) -> None:
        """Keep a changed file for `open`, unless it is large and of unknown size."""
        block = await self._http.read(download, BLOCK_SIZE + 1)
        size = len(block) if len(block) <= BLOCK_SIZE else download.size
        if size is None or size > MAX_FILE_SIZE or self._kept_size + size > MAX_KEPT:
            download.response.close()
            return
        if self._spool is None:
            self._spool = cast(
                "BinaryIO",
                tempfile.TemporaryFile(prefix="dify-kb-"),  # noqa: SIM115 -- closed by `close`
            )
        place = self._kept_size
        self._kept_size += size
        written = 0
        while block:
            written += os.pwrite(self._spool.fileno(), block, place + written)
            block = await self._http.read(download, BLOCK_SIZE)
        self._kept[key] = place, evolve(download, size=written)


def _parse_line(line: str) -> _Link | None:
    key, tab, address = line.rpartition("\t")
    try:
        url = URL(address.strip()).with_fragment(None)
        if url.scheme not in {"http", "https"} or not url.host:
            return None
        key = key.strip() if tab else make_url_key(url)
    except ValueError:
        return None
    parts = key.split("/")
    is_valid = all(parts) and not any(part.startswith(".") for part in parts)
    return _Link(key, url) if is_valid else None


def make_url_key(url: URL) -> str:
    """Return the key of a URL: host and path, and a hash of the query.

    | URL | key |
    |---|---|
    | `https://example.org/docs/a.html` | `example.org/docs/a.html` |
    | `https://example.org/docs/` | `example.org/docs/index` |
    | `https://example.org/a.pdf?id=7` | `example.org/a-2d8df1a3.pdf` |
    """
    port = "" if url.is_default_port() else f"_{url.port}"
    host = f"{url.host}{port}".replace(":", "_").lstrip(".")
    parts = [part.lstrip(".") or "_" for part in url.path.split("/") if part]
    if url.path.endswith("/") or not parts:
        parts.append("index")
    if url.raw_query_string:
        query = hashlib.blake2b(url.raw_query_string.encode(), digest_size=4).hexdigest()
        found = _HAS_EXTENSION.search(parts[-1])
        place = found.start() if found else len(parts[-1])
        parts[-1] = f"{parts[-1][:place]}-{query}{parts[-1][place:]}"
    return "/".join([host, *parts])


def _require_type(key: str, download: Download) -> None:
    """Check that a document is not answered by a page, such as a login form."""
    extension = file_extension(key)
    if extension in _BINARY and _EXTENSIONS.get(download.content_type) == "html":
        download.response.close()
        raise SourceError(f"The server sent a page (text/html) instead of a .{extension} file.")
