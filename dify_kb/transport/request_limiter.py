"""How many requests may be in flight, and when none may start. Waiting here is never a timeout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from .clock import loop_time

if TYPE_CHECKING:
    from types import TracebackType


class RequestLimiter:
    """A limit on requests, and so on connections, that the server's hints close for a while.

    Args:
        limit: requests in flight while nobody asks for another number.
        fixed: whether `limit` is also the most that anybody gets.
    """

    def __init__(self, limit: int, *, fixed: bool = False) -> None:
        self.fixed = fixed
        self.default_limit = limit
        """Requests in flight while nobody asks for another number."""
        self._requested_limits: dict[object, int] = {}
        self._slots = anyio.CapacityLimiter(limit)
        self._paused_until: float | None = None

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._slots.total_tokens)

    def set_requested_limit(self, requester: object, limit: int | None) -> None:
        """Let `limit` requests be in flight for `requester`, until it asks for None.

        The largest number asked for counts, also where it is below the usual one: a server may
        have fewer connections than that.
        """
        if limit is None:
            self._requested_limits.pop(requester, None)
        else:
            self._requested_limits[requester] = limit
        self._update_limit()

    def pause(self, seconds: float) -> None:
        """Let no request start for `seconds`, unless a longer pause is on."""
        self._paused_until = max(self._paused_until or -math.inf, loop_time() + seconds)

    def _update_limit(self) -> None:
        limit = max(self._requested_limits.values(), default=self.default_limit)
        limit = max(1, min(limit, self.default_limit) if self.fixed else limit)
        if limit != self._slots.total_tokens:
            self._slots.total_tokens = limit

    async def __aenter__(self) -> None:
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            await self._slots.acquire()
        try:
            await self._wait_until_resumed()
        except BaseException:
            self._slots.release()
            raise

    async def _wait_until_resumed(self) -> None:
        while self._paused_until is not None:  # it may move on
            if loop_time() < self._paused_until:
                await anyio.sleep_until(self._paused_until)
            else:
                self._paused_until = None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slots.release()
