"""How many requests may be in flight, and when none may start. Waiting here is never a timeout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from types import TracebackType


class Pace:
    """A limit on requests, and so on connections, that the server's hints close for a while."""

    def __init__(self, limit: int) -> None:
        self._slots = anyio.CapacityLimiter(limit)
        self._closed_until = -math.inf

    def widen(self, limit: int) -> None:
        """Let at least `limit` requests be in flight from now on."""
        self._slots.total_tokens = max(self._slots.total_tokens, limit)

    def pause(self, seconds: float) -> None:
        """Let no request start for `seconds`, unless a longer pause is on."""
        self._closed_until = max(self._closed_until, anyio.current_time() + seconds)

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        try:
            while anyio.current_time() < self._closed_until:  # noqa: ASYNC110 -- it may move on
                await anyio.sleep_until(self._closed_until)
        except BaseException:
            self._slots.release()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slots.release()
