"""What holds a run while the server fails: no file fails with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from attrs import define, field

from dify_kb.config import Loading
from dify_kb.errors import (
    ConnectError,
    KnowledgeError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

GOOD = 2
"""Probes in a row that have to go well."""


def passing(error: KnowledgeError) -> bool:
    """Tell whether an error is the server's and may pass."""
    return isinstance(
        error,
        ConnectError | RequestTimeoutError | TransportError | ServerError | RateLimitedError,
    )


@define
class Gate:
    """Open while the server is well. Closed, it probes at growing intervals until it is back."""

    _probe: Callable[[], Awaitable[object]]
    _times: Loading
    _closing: Callable[[], None]
    _reopened: Callable[[], None]
    _given_up: Callable[[KnowledgeError], None]
    error: KnowledgeError | None = None
    """What closed it; None while it is open."""

    _closed: anyio.Event = field(factory=anyio.Event)
    _opened: anyio.Event = field(factory=anyio.Event)

    def close(self, error: KnowledgeError) -> None:
        """Hold everybody from now on."""
        if self.error is None:
            self.error = error
            self._opened = anyio.Event()
            self._closed.set()
            self._closing()

    async def passed(self) -> None:
        """Wait until it is open."""
        while self.error is not None:  # it may close again before all who waited are through
            await self._opened.wait()

    async def run(self) -> None:
        """Probe while it is closed, until cancelled."""
        while True:
            await self._closed.wait()
            self._closed = anyio.Event()
            await self._mend()

    async def _mend(self) -> None:
        wait, good, since = self._times.probe, 0, anyio.current_time()
        while good < GOOD:
            await anyio.sleep(wait)
            try:
                await self._probe()
            except KnowledgeError as error:
                good, wait = 0, min(2 * wait, self._times.probe_longest)
                late = anyio.current_time() - since > self._times.outage
                if late or not passing(error):
                    self._given_up(error)
                    break
            else:
                good, wait = good + 1, self._times.probe
        self.error = None
        self._reopened()
        self._opened.set()
