"""What a number of replies in a row shows together."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(times: Sequence[float], part: float) -> float:
    """Give the value below which `part` of the sorted `times` lie; 0 of none."""
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0


class Window:
    """The replies since a moment: how long they took, how many there were a second."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._sum = self._squares = 0.0
        self._in_flight = 0
        self._first = self._last = 0.0
        self._sorted: list[float] = []

    def clear(self) -> None:
        """Begin anew."""
        self.times = []
        self._sorted = []
        self._sum = self._squares = 0.0
        self._in_flight = 0

    def add(self, now: float, seconds: float, in_flight: int) -> None:
        """Take in one reply."""
        if not self.times:
            self._first = now
        self._last = now
        self.times.append(seconds)
        self._sum += seconds
        self._squares += seconds * seconds
        self._in_flight += in_flight

    def closed(self, now: float, least: int, error: float) -> bool:
        """Tell whether it holds `least` replies or more, with a mean known to `error` (a part)."""
        count, seconds = len(self.times), now - self._first
        if count < least or seconds < 0.25:  # noqa: PLR2004 -- not to judge by one burst
            return count >= 4 and seconds >= 5.0  # noqa: PLR2004 -- a very slow server
        return self.error <= error or count >= 256 or seconds >= 5.0  # noqa: PLR2004

    @property
    def error(self) -> float:
        """The standard error of the mean, as a part of it."""
        count = len(self.times)
        mean = self._sum / count
        return math.sqrt(max(0.0, self._squares / count - mean * mean) / count) / mean

    @property
    def in_flight(self) -> float:
        """How many were in flight, on average."""
        return self._in_flight / len(self.times)

    @property
    def goodput(self) -> float:
        """Replies a second."""
        return (len(self.times) - 1) / max(self._last - self._first, 1e-6)

    def mean(self, longest: float) -> float:
        """Give the mean time, each cut to `longest`: one stall of many tells little."""
        return sum(min(time, longest) for time in self.times) / len(self.times)

    @property
    def median(self) -> float:
        """The time that half of them took, in seconds."""
        return quantile(self._ordered(), 0.5)

    @property
    def tail(self) -> float:
        """The time that one of twenty took longer than; 0 when they are too few to tell."""
        return quantile(self._ordered(), 0.95) if len(self.times) >= 20 else 0.0  # noqa: PLR2004

    def _ordered(self) -> list[float]:
        if len(self._sorted) != len(self.times):
            self._sorted = sorted(self.times)
        return self._sorted
