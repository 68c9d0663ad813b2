"""The blocking client: the async one, run in a thread of its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

from dify_kb.client import AsyncClient
from dify_kb.errors import ConfigError

from ._loop_thread import LoopThread
from ._resources import BlockingClientBase

if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Mapping
    from types import TracebackType

    from dify_kb.config import Policy, Retry, Timeout
    from dify_kb.transport import OnAttempt

__all__ = ["Client"]


class Client(BlockingClientBase):
    """A blocking client of one Dify server: `with Client(url, key) as client`.

    Same names, parameters and results as `AsyncClient`, which runs in a thread of its own. That
    thread starts with the first call (or `with`) and ends with `close`, at the latest with the
    process. Any number of threads may share a client. A call costs some 0.2 ms more than the
    async one; `iter` pays that per 100 rows and `load` once. Ctrl-C cancels the call that waits.
    It works beside a running event loop, as in a notebook, which it blocks meanwhile.

    Args:
        base_url: with or without `/v1`. `emulator:` (in memory) or `emulator:PATH` (a file that
            stays) starts the embedded server for the life of the client. None reads
            `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: how long one attempt may take.
        retry: how often and when to try again.
        concurrency: requests in flight, and so connections, of all threads; None is 8.
        headers: sent with every request.
        proxy: address of an HTTP proxy.
        trust_env: whether proxies and credentials of the environment are used.
        ssl: for a certificate authority of your own.
        on_event: called in the client's own thread after each attempt; must return at once, and
            must not call the client.
        policy: every time that the client waits; `timeout` and `retry` replace their part of it.

    Raises:
        ConfigError: no address or key was found, or they are none.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._target = AsyncClient(
            base_url,
            api_key,
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            headers=headers,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            on_event=on_event,
            policy=policy,
        )
        self._loop = LoopThread(self._target)
        self._view = False

    def __enter__(self) -> Self:
        self._check_owner()
        self._loop.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._target).replace("AsyncClient", type(self).__name__, 1)

    @property
    def base_url(self) -> str:
        """The address, with `/v1`; that of an embedded server is known once the client is open."""
        return self._target.base_url

    @property
    def server_version(self) -> str | None:
        """The version that the server last sent; None before the first reply, or behind a proxy
        that takes the header away.
        """
        return self._open_target.server_version

    def with_options(self, *, timeout: Timeout | None = None, retry: Retry | None = None) -> Self:
        """Give a view of this client with other settings, over the same connections.

        It is open as long as this client is, and closed with it.
        """
        view = copy.copy(self)
        view._target = self._open_target.with_options(timeout=timeout, retry=retry)  # noqa: SLF001 -- our own class
        view._view = True  # noqa: SLF001 -- likewise
        return view

    def close(self) -> None:
        """Cancel what other threads still wait for, and leave no thread and no connection.

        May be repeated; afterwards every call raises `ConfigError`. In a forked process it does
        nothing, as the connections are its parent's.

        Raises:
            ConfigError: this is a view, or the caller is a callback in the client's own thread.
        """
        self._check_owner()
        self._loop.close()

    def _check_owner(self) -> None:
        if self._view:
            raise ConfigError(
                "This is a view of a client.", hint="Open and close the client it was made from."
            )
