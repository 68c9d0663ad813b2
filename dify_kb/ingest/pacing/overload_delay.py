"""Delay uploads after 429 and 503, as long as the server asked for or longer each time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

OVERLOAD: Final = (0.5, 2.0, 60.0)
"""Seconds without an upload after 429 or 503: the least, the bound of the first, that of any."""

LONGEST_HINT: Final = 300.0
"""Seconds. A `Retry-After` beyond this is cut to it."""


class OverloadDelay:
    """The time until which no upload may start. The clock is an argument; so is chance.

    Args:
        pace: seconds that a second of `OVERLOAD` lasts; tests make it short.
    """

    def __init__(self, random: Random, pace: float) -> None:
        self._random = random
        self._pace = pace
        self._overloads = 0
        self._until = -math.inf

    def remaining(self, now: float) -> float:
        """Return the seconds for which no upload may start."""
        return max(0.0, self._until - now)

    def add(self, now: float, hint: float | None) -> None:
        """Delay uploads after an overload; `hint` is what the server asked for, in seconds."""
        least, first, longest = OVERLOAD
        bound = min(longest, first * 2.0 ** min(self._overloads, 16))
        seconds = self._random.uniform(least, bound) * self._pace
        if hint is not None:
            seconds = max(seconds, min(hint, LONGEST_HINT)) * self._random.uniform(1.0, 1.1)
        if now >= self._until:
            self._overloads += 1
        self._until = max(self._until, now + seconds)

    def reset(self) -> None:
        """Begin with short delays again, after an upload was answered."""
        self._overloads = 0
