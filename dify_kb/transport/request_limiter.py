"""Limit the requests in flight, and pause them. Waiting here does not count as a timeout."""

from __future__ import annotations

import functools
import math

import anyio

from .clock import loop_time


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
        self._paused_until: float | None = None

    @functools.cached_property
    def _slots(self) -> anyio.CapacityLimiter:
        # Created by the first request: a blocking client may be created in a trio task.
        return anyio.CapacityLimiter(self.default_limit)

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

    @property
    def remaining_pause(self) -> float:
        """Seconds until requests may start again."""
        return max(0.0, (self._paused_until or -math.inf) - loop_time())

    async def acquire(self, deadline: float | None = None) -> bool:
        """Wait for the end of a pause and for a free slot, and occupy it.

        Return False at once, without a slot, if the pause ends after `deadline`, a time of the
        loop. Slots are only occupied by requests in flight, so the wait for one needs no limit.
        """
        while True:
            while self._paused_until is not None:  # may be extended while waiting
                if deadline is not None and self._paused_until > deadline:
                    return False
                if loop_time() >= self._paused_until:
                    self._paused_until = None
                else:
                    await anyio.sleep_until(self._paused_until)
            try:
                self._slots.acquire_nowait()
            except anyio.WouldBlock:
                await self._slots.acquire()
            if self._paused_until is None:
                return True
            self._slots.release()

    def release(self) -> None:
        """Return a slot."""
        self._slots.release()
