"""Detect that a server has fewer connections than are open to it.

A default pod takes 10 connections. An 11th waits about 5 s, until an idle one is closed, while the
requests on the others are as quick as ever (measured on 1.4.3): the median shows nothing.
"""

from __future__ import annotations

import math
from collections import deque

STARVED_SECONDS = 3.0
"""Seconds after which a reply among quick ones is that of a starved connection (they wait 5 s)."""

STARVED_RATIO = 20
"""Times the unloaded time, of the same."""

CEILING_SECONDS = 600.0
"""Seconds for which a limit that starved connections is not reached again."""

MIN_CEILING = 4
"""At so many, no connection starves: every pod has 10. Such tails are then the server's own, of
large files on slow storage for example, and show nothing.
"""

SMALL_LIMIT, CUT_FACTOR = 12, 0.8
"""Up to so many in flight two fewer are enough; beyond, this part of it."""

START_DELAY = 0.001
"""Seconds between a new limit and what it lets in."""


class ConnectionStarvation:
    """The ceiling that starved connections put on a limit. The clock is an argument."""

    def __init__(self) -> None:
        self._ceiling: int | None = None
        self._until = -math.inf
        self._ignored_until = -math.inf
        self._since = -math.inf
        self._limits: deque[tuple[float, int]] = deque(maxlen=32)

    def ceiling(self, now: float) -> int | None:
        """Return the most that may be in flight; None if nothing starved in the last 10 minutes."""
        return self._ceiling if now < self._until else None

    def cap(self, now: float, low: int, high: int) -> float:
        """Return the highest level between `low` and `high` at which no connection starves."""
        ceiling = self.ceiling(now)
        return float(high if ceiling is None else max(low, min(high, ceiling)))

    def record_limit(self, now: float, limit: int) -> None:
        """Record a new limit."""
        self._limits.append((now, limit))

    def is_starved(self, seconds: float, median: float, base: float) -> bool:
        """Return whether a reply was starved: it took seconds, while the median is calm."""
        return (
            seconds > STARVED_SECONDS
            and seconds > STARVED_RATIO * base
            and median < min(1.0, 5 * base)
        )

    def record_starved(self, now: float, began: float) -> None:
        """Record a starved reply to a request that began then."""
        # What began before the last cut shows nothing of what is left.
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
        """Return the limit that held then, or that let in what began then."""
        past = (limit for since, limit in reversed(self._limits) if since <= when + START_DELAY)
        return next(past, self._limits[0][1] if self._limits else 0)
