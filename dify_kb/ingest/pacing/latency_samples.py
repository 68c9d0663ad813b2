"""Compute mean, tail, goodput and error of a number of replies in a row."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_REPLIES, MAX_REPLIES = 4, 256
"""Replies: the fewest that show anything, and so many that no spread needs more."""

MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
"""Seconds: what lasts less is one burst; what lasts longer is a slow server, to be judged now."""

TAIL_REPLIES = 20
"""Replies from which on the time of one in twenty is known."""

KEPT = 128
"""Replies of the unloaded server that are kept."""

OUTLIER = 5
"""Times the median to which a reply is cut: one stall of many says little."""


def quantile(times: Sequence[float], part: float) -> float:
    """Return the value below which `part` of the sorted `times` lie; 0 of none."""
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0


class LatencySamples:
    """Replies since a moment: how long they took, how many there were a second.

    Times beyond `longest` count as that much in the mean and in its error.

    Args:
        least: seconds; a mean below it need not be known any better than this.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self.times: list[float] = []
        self.clear(math.inf)

    def clear(self, longest: float) -> None:
        """Forget all replies, and cut later ones to `longest`."""
        self._longest = longest
        self.times = []
        self._sum = self._squares = 0.0
        self._in_flight = 0
        self._first = self._last = 0.0
        self._sorted: list[float] = []

    def add(self, now: float, seconds: float, in_flight: int) -> None:
        """Add a reply."""
        if not self.times:
            self._first = now
        self._last = now
        self.times.append(seconds)
        seconds = min(seconds, self._longest)
        self._sum += seconds
        self._squares += seconds * seconds
        self._in_flight += in_flight

    def is_complete(
        self, now: float, least: int, error: float, patience: float = MAX_SECONDS
    ) -> bool:
        """Return whether it holds `least` replies or more, with a mean known to `error` (a part).

        After `patience` seconds it does in any case.
        """
        count, seconds = len(self.times), now - self._first
        if count < least or seconds < MIN_SECONDS:
            return count >= MIN_REPLIES and seconds >= MAX_SECONDS
        needed = error * max(1.0, self._least / self.mean)
        return self.error <= needed or count >= MAX_REPLIES or seconds >= patience

    @property
    def error(self) -> float:
        """The standard error of the mean, as a part of it."""
        count, mean = len(self.times), self.mean
        return math.sqrt(max(0.0, self._squares / count - mean * mean) / count) / max(mean, 1e-9)

    @property
    def in_flight(self) -> float:
        """How many were in flight, on average."""
        return self._in_flight / len(self.times)

    @property
    def goodput(self) -> float:
        """Replies a second."""
        return (len(self.times) - 1) / max(self._last - self._first, 1e-6)

    @property
    def mean(self) -> float:
        """The mean time in seconds."""
        return self._sum / len(self.times)

    @property
    def median(self) -> float:
        """The time that half of them took, in seconds."""
        return quantile(self._ordered(), 0.5)

    @property
    def tail(self) -> float:
        """The time that one of twenty took longer than; 0 when they are too few to know."""
        return quantile(self._ordered(), 0.95) if len(self.times) >= TAIL_REPLIES else 0.0

    def _ordered(self) -> list[float]:
        if len(self._sorted) != len(self.times):
            self._sorted = sorted(self.times)
        return self._sorted


class UnloadedLatency:
    """The time that a reply takes when none waits for another, from the last such replies.

    Args:
        least: seconds below which nobody cares.
    """

    def __init__(self, least: float) -> None:
        self.measured = 0.0
        """Mean in seconds; 0 before there is any."""
        self.longest = math.inf
        """Seconds that longer times are cut to before they are compared with this."""
        self._least = least
        self._tail = 0.0
        self._times: deque[float] = deque(maxlen=KEPT)

    @property
    def base(self) -> float:
        """The mean, or `least`."""
        return max(self.measured, self._least)

    @property
    def tail(self) -> float:
        """Seconds that a reply may take without being part of a burst."""
        return max(3 * self.base, self._tail)

    def learn(self, times: Iterable[float], *, anew: bool = False) -> None:
        """Learn from replies; `anew` forgets those before."""
        if anew:
            self._times.clear()
        self._times.extend(times)
        ordered = sorted(self._times)
        self.longest = OUTLIER * max(quantile(ordered, 0.5), self._least)
        self.measured = sum(min(time, self.longest) for time in ordered) / len(ordered)
        self._tail = quantile(ordered, 0.95)
