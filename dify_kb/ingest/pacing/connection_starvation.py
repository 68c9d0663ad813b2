"""Detect connection starvation: the server accepts fewer connections than the client has open.

A default pod accepts 10 connections. An 11th waits about 5 s until an idle one is closed, while
requests on the others are as fast as before (measured on 1.4.3), so that the median stays the same.
"""

from __future__ import annotations

import math
from collections import deque

STARVED_SECONDS = 3.0
"""Seconds. A slower reply among fast ones came from a starved connection, which waits 5 s."""

STARVED_RATIO = 20
"""Minimum latency of such a reply, as a multiple of the unloaded one."""

CEILING_SECONDS = 600.0
"""Seconds for which the ceiling holds after connections starved."""

MIN_CEILING = 4
"""Lowest ceiling: every pod has 10 connections, so that slow replies with so few in flight have
another cause, such as large files on slow storage.
"""

SMALL_LIMIT, CUT_FACTOR = 12, 0.8
"""The ceiling is the limit less 2 up to `SMALL_LIMIT`, and `CUT_FACTOR` of the limit beyond."""

START_DELAY = 0.001
"""Seconds between a new limit and the start of the requests that it admits."""


class ConnectionStarvation:
    """Ceiling of a concurrency limit after connections starved. Methods take the current time."""

    def __init__(self) -> None:
        self._ceiling: int | None = None
        self._until = -math.inf
        self._ignored_until = -math.inf
        self._since = -math.inf
        self._limits: deque[tuple[float, int]] = deque(maxlen=32)

    def ceiling(self, now: float) -> int | None:
        """Return the ceiling; None if no connection starved in the last 10 minutes."""
        return self._ceiling if now < self._until else None

    def cap(self, now: float, low: int, high: int) -> float:
        """Return the highest level between `low` and `high` at which no connection starves."""
        ceiling = self.ceiling(now)
        return float(high if ceiling is None else max(low, min(high, ceiling)))

    def record_limit(self, now: float, limit: int) -> None:
        """Record a new limit."""
        self._limits.append((now, limit))

    def is_starved(self, seconds: float, median: float, base: float) -> bool:
        """Return whether a reply was starved: it took seconds while the median is low."""
        return (
            seconds > STARVED_SECONDS
            and seconds > STARVED_RATIO * base
            and median < min(1.0, 5 * base)
        )

    def record_starved(self, now: float, began: float) -> None:
        """Record a starved reply to a request that began at `began`."""
        # A request from before the last cut says nothing about the current ceiling.
        if began < self._since or now < self._ignored_until:
            return
        limit = self._limit(began)
        if limit <= MIN_CEILING:
            self._ignored_until, self._until = now + CEILING_SECONDS, -math.inf
            return
        self._ceiling = max(
            MIN_CEILING, limit - 2 if limit <= SMALL_LIMIT else int(CUT_FACTOR * limit)
        )
        self._until = now + CEILING_SECONDS
        self._since = now

    def _limit(self, when: float) -> int:
        """Return the limit that admitted a request that began at `when`."""
        past = (limit for since, limit in reversed(self._limits) if since <= when + START_DELAY)
        return next(past, self._limits[0][1] if self._limits else 0)
