"""The asynchronous client: open the session, provide the resources, load files."""

from __future__ import annotations

import copy
import functools
import os
import ssl as _ssl  # noqa: TC003 -- for check_arguments
from typing import TYPE_CHECKING, NoReturn, Self

import aiohttp  # noqa: TC002 -- for check_arguments
import attrs

from .argument_checks import check_arguments
from .client_archive_methods import ClientArchiveMethods
from .client_methods import ClientMethods
from .client_sync_methods import ClientSyncMethods
from .config import (
    DEFAULT_CONCURRENCY,
    Config,
    Policy,
    Retry,
    Timeout,
    check_headers,
)
from .errors import ConfigError
from .event_loops import EventLoopName, check_loop_name
from .profiles import require_profile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .arguments import Duration
    from .emulator import Emulator
    from .transport import OnAttempt

EMULATOR_PREFIX = "emulator:"


@check_arguments
class AsyncClient(ClientMethods, ClientSyncMethods, ClientArchiveMethods):
    """An asynchronous client of one Dify server.

    Use it as a context manager, `async with AsyncClient(url, key) as client`, or call `aclose` at
    the end. It opens with `async with` or its first request, and belongs to the event loop that is
    running then. Requires asyncio, or uvloop; trio is not supported.

    Args:
        base_url: address of the server, with or without `/v1`. `emulator:` (in memory) or
            `emulator:FILE` (persistent, in a file) starts the embedded server while the client is
            open; append `?version=…` for another Dify version than 1.16. None reads
            `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge API key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: timeouts of one attempt; a single duration, such as `30` (seconds) or `"2m"`, sets
            all of them.
        retry: number of attempts, and the backoff between them.
        concurrency: maximum requests in flight, which is also the number of connections; None is 8.
        headers: additional headers of every request.
        proxy: address of an HTTP proxy, such as `http://proxy.example:3128`; SOCKS is not
            supported. Ignored by the embedded server.
        trust_env: whether to use the proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
            and NO_PROXY, which lists host names, ports, addresses and networks (10.0.0.0/8).
            Credentials of a netrc file are never used.
        ssl: SSL context, for a private certificate authority.
        session: an aiohttp session to use instead of a new one. It is not closed, and its own
            proxy and SSL settings apply.
        on_event: callback after each attempt; called in the loop thread, must not block.
        policy: all timeouts, retry limits and intervals; `timeout` and `retry` override its parts.
        loop: event loop that must be running, `asyncio` or `uvloop`; None accepts both.

    Raises:
        ConfigError: the address or the key is missing or invalid, or another argument is invalid.
        TypeError: an argument has the wrong type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
    ) -> None:
        from .transport import Connection, RequestLimiter, Sender, choose_proxy, open_session

        address = base_url or os.environ.get("DIFY_BASE_URL", "")
        self._emulator: Emulator | None = None
        if address.startswith(EMULATOR_PREFIX):
            from .emulator.embedded_server import create_emulator

            self._emulator = create_emulator(address.removeprefix(EMULATOR_PREFIX))
        # DIFY_API_KEY belongs to a real server: the embedded one ignores it.
        config = (
            Config(base_url=address, api_key=api_key or self._emulator.api_key)
            if self._emulator
            else Config.from_environment(base_url, api_key)
        )
        limit = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        if limit < 1:
            raise ConfigError(f"Invalid concurrency: {limit}.", hint="Use 1 or more.")
        check_loop_name(loop)
        # The embedded server is on this machine.
        chosen_proxy = (
            None if self._emulator else choose_proxy(proxy, config.base_url, trust_env=trust_env)
        )
        self._connection = Connection(
            config,
            check_headers(headers),
            open_http=functools.partial(open_session, proxy=chosen_proxy, ssl=ssl)
            if session is None
            else lambda: session,
            owned=session is None,
            server=self._emulator,
            loop_name=loop,
        )
        self._sender = Sender(
            session=self._connection,
            limiter=RequestLimiter(limit, fixed=concurrency is not None),
            policy=(policy or Policy()).merge(timeout, retry),
            on_attempt=on_event,
        )
        self._entered = self._view = False

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
    ) -> Self:
        """Create a client with the address and key of a profile in `~/.config/dify-kb/config.toml`.

        Blocks while the `key_command` of the profile runs, for 60 s at most. A profile without a
        key uses `DIFY_API_KEY`.

        Args:
            name: None uses `DIFY_PROFILE`, or the file's `default_profile`.

        Raises:
            ConfigError: the profile does not exist, or its configuration, key or `ca` is invalid.
        """
        profile = require_profile(name)
        return cls(
            profile.url,
            profile.read_key(),
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            headers=headers,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl or profile.create_ssl_context(),
            on_event=on_event,
            policy=policy,
            loop=loop,
        )

    async def __aenter__(self) -> Self:
        self._check_owner()
        if self._entered:
            raise ConfigError(
                "The client is already open.", hint="Open each client once, in one event loop."
            )
        await self._connection.open()
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # type checkers report the missing methods

        def __enter__(self) -> NoReturn:
            raise TypeError("AsyncClient requires 'async with', or use Client with 'with'.")

        def __exit__(self, *_: object) -> None:
            pass

    async def aclose(self) -> None:
        """Close all connections, and stop an embedded server. Safe to repeat.

        All later calls raise `ConfigError`. Has no effect in a forked process, as the connections
        belong to its parent.

        Raises:
            ConfigError: the client was returned by `with_options`, or is open in another event
                loop.
        """
        self._check_owner()
        self._entered = False
        await self._connection.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    @property
    def base_url(self) -> str:
        """The address, with `/v1`. An embedded server has one only while the client is open."""
        return self._connection.config.base_url

    @property
    def server_version(self) -> str | None:
        """The version in the server's last response.

        None before the first response, or behind a proxy that removes the header.
        """
        return self._sender.server.version

    def with_options(
        self, *, timeout: Timeout | Duration | None = None, retry: Retry | None = None
    ) -> Self:
        """Return a client with other settings that shares the connections of this client.

        The returned client is closed together with this client.
        """
        view = copy.copy(self)
        policy = self._sender.policy.merge(timeout, retry)
        view._sender = attrs.evolve(self._sender, policy=policy)  # noqa: SLF001 -- our own class
        view._view = True  # noqa: SLF001 -- likewise
        return view

    def _check_owner(self) -> None:
        if self._view:
            raise ConfigError(
                "A client of with_options cannot be opened or closed.",
                hint="Open and close the client whose with_options returned it.",
            )
