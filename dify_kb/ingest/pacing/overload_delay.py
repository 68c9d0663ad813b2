"""Delay uploads after 429 and 503: by `Retry-After`, at least by exponential backoff."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

OVERLOAD: Final = (0.5, 2.0, 60.0)
"""Seconds of delay after 429 or 503: the minimum, the maximum of the first, the maximum of all."""

LONGEST_HINT: Final = 300.0
"""Seconds. A longer `Retry-After` counts as this."""


class OverloadDelay:
    """Time until which no upload may start. Methods take the current time.

    Args:
        pace: the length of one second of `OVERLOAD`, in seconds; tests shorten it.
    """

    def __init__(self, random: Random, pace: float) -> None:
        self._random = random
        self._pace = pace
        self._overloads = 0
        self._until = -math.inf

    def remaining(self, now: float) -> float:
        """Return the seconds until an upload may start."""
        return max(0.0, self._until - now)

    def add(self, now: float, hint: float | None) -> None:
        """Delay uploads after an overload; `hint` is the server's `Retry-After` in seconds."""
        least, first, longest = OVERLOAD
        bound = min(longest, first * 2.0 ** min(self._overloads, 16))
        seconds = self._random.uniform(least, bound) * self._pace
        if hint is not None:
            seconds = max(seconds, min(hint, LONGEST_HINT)) * self._random.uniform(1.0, 1.1)
        if now >= self._until:
            self._overloads += 1
        self._until = max(self._until, now + seconds)

    def reset(self) -> None:
        """Reset the backoff after an upload was answered."""
        self._overloads = 0
