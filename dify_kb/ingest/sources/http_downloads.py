"""Download files by HTTP in a thread with an event loop, on behalf of other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from http import HTTPStatus
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import anyio
from attrs import define, field, frozen

from dify_kb.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from yarl import URL

MAX_CONCURRENT: Final = 8
"""Requests at a time."""

MAX_REDIRECTS: Final = 10
CONNECT_TIMEOUT: Final = 30.0
READ_TIMEOUT: Final = 60.0
"""Seconds without data after which a download fails."""

RETRY_DELAYS: Final = (1.0, 4.0)
"""Seconds before the second and the third attempt, unless the server sends Retry-After."""

MAX_RETRY_AFTER: Final = 30.0

_TEMPORARY: Final = frozenset({429, 502, 503, 504})
_NO_HEAD: Final = frozenset({400, 401, 403, 404, 405, 406, 500, 501})
"""Statuses with which some servers answer any HEAD request."""

T = TypeVar("T")
R = TypeVar("R")


@frozen
class Download:
    """A response; `token` joins its validators and is None if it has none."""

    response: aiohttp.ClientResponse = field(repr=False)
    token: str | None
    size: int | None
    """In bytes; None if unknown."""

    @property
    def content_type(self) -> str:
        """The type in lower case, without parameters."""
        return self.response.content_type

    @property
    def file_name(self) -> str:
        """The file name that the server suggests; "" if it suggests none."""
        disposition = self.response.content_disposition
        return (disposition and disposition.filename) or ""


@define
class HttpDownloads:
    """Downloads files in an event loop of its own thread, which the first call starts.

    Args:
        proxy: URL of a proxy.
        trust_env: use the proxies and the netrc file of the environment.
        ssl: the certificate authorities to trust; None for those of the system.
    """

    proxy: str | None = None
    trust_env: bool = False
    ssl: SSLContext | None = None
    _is_closed: bool = field(default=False, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    def call(self, function: Callable[..., Coroutine[Any, Any, R]], *arguments: object) -> R:
        """Run a coroutine function in the loop, and wait for its result. Blocking.

        Raises:
            SourceError: as `function`, or because `close` was called.
        """
        with self._lock:
            if self._is_closed:
                raise SourceError("The source was closed.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="dify-kb-downloads", daemon=True
                )
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise SourceError("The source was closed during a download.") from None

    def map(self, function: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
        """Return the results of a function for all items, some at a time. Blocking."""
        return self.call(self._map, function, list(items))

    async def _map(self, function: Callable[[T], Awaitable[R]], items: list[T]) -> list[R]:
        results: dict[int, R] = {}
        limiter = anyio.CapacityLimiter(MAX_CONCURRENT)

        async def run(place: int, item: T) -> None:
            async with limiter:
                results[place] = await function(item)

        async with anyio.create_task_group() as tasks:
            for place, item in enumerate(items):
                tasks.start_soon(run, place, item)
        return [results[place] for place in range(len(items))]

    def close(self) -> None:
        """Cancel all requests, and end the thread; no other request is possible."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._is_closed, self._loop, self._thread = True, None, None
            if loop is None or thread is None:
                return
            closing = asyncio.run_coroutine_threadsafe(self._shut_down(), loop)
        closing.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _shut_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, url: URL, token: str = "") -> Download:
        """Request a file; if `token` is given, only if it changed.

        The response has the same token if it did not.

        Raises:
            SourceError: the request failed, or the status is not 200.
        """
        etag, _, modified = token.partition("\n")
        validators = {"If-None-Match": etag, "If-Modified-Since": modified}
        response = await self._request("GET", url, {k: v for k, v in validators.items() if v})
        if token and response.status == HTTPStatus.NOT_MODIFIED:
            return Download(response, token, None)
        _require_ok(response)
        headers = response.headers
        found = headers.get("ETag", ""), headers.get("Last-Modified", "")
        is_encoded = headers.get("Content-Encoding", "identity") != "identity"
        size = None if is_encoded else response.content_length
        return Download(response, "\n".join(found) if any(found) else None, size)

    async def head(self, url: URL) -> Download:
        """Request the headers of a file, by GET if the server does not support HEAD.

        Raises:
            SourceError: the request failed, or the status is not 200.
        """
        response = await self._request("HEAD", url, {})
        response.close()
        if response.status not in _NO_HEAD:
            _require_ok(response)
            return Download(response, None, None)
        download = await self.get(url)
        download.response.close()
        return download

    async def read(self, download: Download, size: int) -> bytes:
        """Read `size` bytes of a file, or what is left of it.

        Raises:
            SourceError: the connection failed.
        """
        data = await self._read(download, size)
        while 0 < len(data) < size and (block := await self._read(download, size - len(data))):
            data += block
        return data

    def stream(self, download: Download) -> _DownloadStream:
        """Return the content as a blocking stream."""
        return _DownloadStream(self, download)

    async def _read(self, download: Download, size: int) -> bytes:
        try:
            return await download.response.content.read(size)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SourceError(_describe(error)) from error

    async def _request(
        self, method: str, url: URL, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a request, again after a temporary failure."""
        for delay in (*RETRY_DELAYS, None):
            try:
                response = await self._open_session().request(
                    method, url, headers=headers, max_redirects=MAX_REDIRECTS, allow_redirects=True
                )
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                is_temporary = isinstance(error, aiohttp.ClientConnectionError) and not isinstance(
                    error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError
                )
                if delay is None or not is_temporary:
                    raise SourceError(_describe(error)) from error
            else:
                if delay is None or response.status not in _TEMPORARY:
                    return response
                delay = _parse_delay(response.headers.get("Retry-After"), delay)  # noqa: PLW2901
                response.close()
            await anyio.sleep(delay)
        raise AssertionError  # the last attempt returns or raises

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONCURRENT, ssl=True if self.ssl is None else self.ssl
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
                ),
                # A compressed response has no size that could be checked.
                headers={"Accept-Encoding": "identity", "User-Agent": "dify-kb"},
                proxy=self.proxy,
                trust_env=self.trust_env,
            )
        return self._session


@frozen
class _DownloadStream:
    """The content of a response, read from any thread."""

    _http: HttpDownloads
    _download: Download

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        return self._http.call(self._http._read, self._download, size)  # noqa: SLF001 -- ours

    def close(self) -> None:
        """Close the connection, unless the response was read to its end."""
        with contextlib.suppress(SourceError):
            self._http.call(self._close)

    async def _close(self) -> None:
        self._download.response.close()


def _require_ok(response: aiohttp.ClientResponse) -> None:
    if response.status != HTTPStatus.OK:
        response.close()
        place = f" from {response.url.host}{response.url.path}" if response.history else ""
        raise SourceError(f"HTTP {response.status} {response.reason or ''}".rstrip() + place)


def _describe(error: Exception) -> str:
    """Describe an error without the address, whose query may contain a signature."""
    match error:
        case aiohttp.TooManyRedirects():
            return f"more than {MAX_REDIRECTS} redirects"
        case aiohttp.InvalidURL():
            return "redirect to an invalid address"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {error.host}:{error.port}: {error.os_error}"
        case TimeoutError():
            return "no response in time"
        case _:
            return f"download failed: {type(error).__name__}"


def _parse_delay(retry_after: str | None, default: float) -> float:
    is_number = retry_after is not None and retry_after.isdecimal()
    return min(float(retry_after or 0), MAX_RETRY_AFTER) if is_number else default
