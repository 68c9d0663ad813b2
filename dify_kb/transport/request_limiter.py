"""Limit the requests in flight, and pause them. Waiting here does not count as a timeout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from .clock import loop_time

if TYPE_CHECKING:
    from types import TracebackType


class RequestLimiter:
    """A limit on concurrent requests, and thus connections, that can be paused.

    Args:
        limit: maximum requests in flight by default.
        fixed: whether requested limits cannot exceed `limit`.
    """

    def __init__(self, limit: int, *, fixed: bool = False) -> None:
        self.fixed = fixed
        self.default_limit = limit
        """Maximum requests in flight if no other limit is requested."""
        self._requested_limits: dict[object, int] = {}
        self._slots = anyio.CapacityLimiter(limit)
        self._paused_until: float | None = None

    @property
    def limit(self) -> int:
        """The current maximum of requests in flight."""
        return int(self._slots.total_tokens)

    def set_requested_limit(self, requester: object, limit: int | None) -> None:
        """Allow `limit` requests in flight on behalf of `requester`; None withdraws the request.

        The largest requested limit applies, even if it is below the default: a server may have
        fewer connections.
        """
        if limit is None:
            self._requested_limits.pop(requester, None)
        else:
            self._requested_limits[requester] = limit
        self._update_limit()

    def pause(self, seconds: float) -> None:
        """Start no request for `seconds`; has no effect during a longer pause."""
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
        while self._paused_until is not None:  # may be extended while waiting
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
