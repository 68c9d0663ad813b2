"""Open the session of a client with its first request, and use it in one event loop only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import anyio
import anyio.to_thread
import attrs
from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.event_loops import check_loop, exiting_error, is_exiting, running_loop

from .http_session import HTTPSession

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from dify_kb.config import Config, Timeout
    from dify_kb.event_loops import EventLoopName
    from dify_kb.wire.decode_response import Response
    from dify_kb.wire.endpoint import Call

    from .upload_body import UploadBody


class LocalServer(Protocol):
    """A server that runs while its client is open. Methods block."""

    def start(self) -> str:
        """Start the server and return its base URL."""
        ...

    def stop(self) -> None:
        """Stop the server."""
        ...


@frozen
class _OpenSession:
    session: HTTPSession
    http: aiohttp.ClientSession
    loop: asyncio.AbstractEventLoop
    process: int


class Connection:
    """The connection of a client to its server; opened by the first request or `open`.

    Args:
        open_http: opens the aiohttp session, in the running event loop.
        owned: whether `close` closes the aiohttp session.
        server: a server to start before and stop after; the URL of `config` is then its own.
        loop_name: the event loop that must be running; None accepts any.
    """

    def __init__(
        self,
        config: Config,
        headers: Mapping[str, str],
        *,
        open_http: Callable[[], aiohttp.ClientSession],
        owned: bool,
        server: LocalServer | None,
        loop_name: EventLoopName | None,
    ) -> None:
        self.config = config
        self._headers = headers
        self._open_http = open_http
        self._owned = owned
        self._server = server
        self._loop_name = loop_name
        self._opened: _OpenSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def attempt(
        self, call: Call[Any], body: UploadBody | None, allowed: Timeout, version: str | None = None
    ) -> Response:
        """Send one request; see `HTTPSession.attempt`.

        Raises:
            ConfigError: as `open`; or a thread is needed while the interpreter exits.
        """
        session = await self.open()
        try:
            return await session.attempt(call, body, allowed, version)
        except RuntimeError as error:
            if is_exiting():
                raise exiting_error() from error
            raise

    async def stream(
        self, call: Call[Any], allowed: Timeout, version: str | None = None
    ) -> AsyncGenerator[Response, None]:
        """Send one request and yield its response in parts; see `HTTPSession.stream`.

        Raises:
            ConfigError: as `open`.
        """
        session = await self.open()
        async with contextlib.aclosing(session.stream(call, allowed, version)) as responses:
            async for response in responses:
                yield response

    async def download(self, url: str, allowed: Timeout) -> bytes | None:
        """Return the file at a signed link; see `HTTPSession.download`.

        Raises:
            ConfigError: as `open`.
        """
        return await (await self.open()).download(url, allowed)

    async def open(self) -> HTTPSession:
        """Return the session; open it first if necessary.

        Raises:
            ConfigError: the connection was closed, or was opened in another event loop or process;
                or the server cannot be started.
        """
        loop = running_loop()
        if self._opened is None:
            async with self._opening:
                if self._closed:
                    raise ConfigError("The client is closed.", hint="Create a new client.")
                if self._opened is None:
                    self._opened = await self._connect(loop)
        opened = self._opened
        if opened.loop is not loop:
            raise _other_loop_error(opened)
        if opened.http.closed:
            raise ConfigError(
                "The aiohttp session of the client is closed.",
                hint="Keep the session that was passed as session= open while it is used.",
            )
        return opened.session

    async def close(self) -> None:
        """Close the session and stop the server. Safe to repeat.

        Raises:
            ConfigError: another event loop, which is not closed, uses the session.
        """
        opened = self._opened
        if opened is not None and opened.process != os.getpid():
            return
        if opened is not None and opened.loop is not running_loop() and not opened.loop.is_closed():
            raise _other_loop_error(opened)
        with anyio.CancelScope(shield=True):
            async with self._opening:
                self._closed = True
                opened, self._opened = self._opened, None
                if opened is not None and self._owned:
                    if opened.loop.is_closed():
                        _discard(opened)
                    else:
                        await opened.http.close()
                if self._server is not None:
                    await anyio.to_thread.run_sync(self._server.stop)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _OpenSession:
        check_loop(loop, self._loop_name)
        if self._server is not None:
            with anyio.CancelScope(shield=True):  # a server that has started must be stopped
                url = await anyio.to_thread.run_sync(self._server.start)
                self.config = attrs.evolve(self.config, base_url=url)
        http = self._open_http()
        session = HTTPSession(http, self.config, self._headers)
        return _OpenSession(session, http, loop, os.getpid())

    def __del__(self) -> None:
        opened: _OpenSession | None = getattr(self, "_opened", None)
        if opened is None:
            return
        if opened.process != os.getpid():
            _forget(opened.http)
            return
        if self._owned:
            warnings.warn(
                f"A client of {self.config.base_url} was not closed: use `async with` or aclose().",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            _discard(opened)
        if self._server is not None:
            # Stopping waits for the server's thread, which may be the one that collects garbage.
            with contextlib.suppress(RuntimeError):  # no threads at exit
                threading.Thread(target=self._server.stop, daemon=True).start()


def _forget(http: aiohttp.ClientSession) -> None:
    """Keep the session of a parent process from being closed by its garbage collection.

    A child that closes a connection removes it from the parent's event loop, as both share it.
    """
    connector = http.connector
    http.detach()
    if connector is not None:
        connector._closed = True  # noqa: SLF001 -- there is no public way


def _discard(opened: _OpenSession) -> None:
    """Close a session without waiting, in any thread, also after its event loop."""
    loop = opened.loop
    if loop.is_closed() or asyncio._get_running_loop() is loop:  # noqa: SLF001 -- documented
        _close_now(opened.http)
        return
    with contextlib.suppress(RuntimeError):  # the loop was closed just now
        loop.call_soon_threadsafe(_close_now, opened.http)


def _close_now(http: aiohttp.ClientSession) -> None:
    closing = http.close()
    with contextlib.suppress(StopIteration, RuntimeError):
        closing.send(None)  # closes the connections, then waits for the loop to notice
    closing.close()


def _other_loop_error(opened: _OpenSession) -> ConfigError:
    if opened.process != os.getpid():
        return ConfigError(
            "The client was opened before the process was forked.",
            hint="Create a client in each process, or first use it after the fork.",
        )
    return ConfigError(
        "The client was opened in another event loop.",
        hint="Create a client in each event loop, or use the blocking Client in all threads.",
    )
