"""Statistics of consecutive replies: mean latency and its error, tail, goodput."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_REPLIES, MAX_REPLIES = 4, 256
"""Replies in a window: the minimum, and the number that is enough whatever the spread."""

MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
"""Seconds of a window: a shorter one is a single burst; at `MAX_SECONDS` a window ends with
`MIN_REPLIES`."""

TAIL_REPLIES = 20
"""Minimum number of replies for the 95th percentile."""

KEPT = 128
"""Replies of the unloaded server that are kept for its latency."""

OUTLIER = 5
"""Multiple of the median at which latencies are capped: a single stall means little."""


def quantile(times: Sequence[float], part: float) -> float:
    """Return the quantile `part` of the sorted `times`; 0 if there are none."""
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0


class LatencySamples:
    """A window of replies: their latencies, throughput and requests in flight.

    Latencies above `longest` count as `longest` in the mean and in its error.

    Args:
        least: seconds; the error of a smaller mean is taken relative to this.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self.times: list[float] = []
        self.clear(math.inf)

    def clear(self, longest: float) -> None:
        """Remove all replies, and cap those added later at `longest`."""
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
        """Return whether the window has `least` replies and its relative error is within `error`.

        After `patience` seconds the error does not matter.
        """
        count, seconds = len(self.times), now - self._first
        if count < least or seconds < MIN_SECONDS:
            return count >= MIN_REPLIES and seconds >= MAX_SECONDS
        needed = error * max(1.0, self._least / self.mean)
        return self.error <= needed or count >= MAX_REPLIES or seconds >= patience

    @property
    def error(self) -> float:
        """The relative standard error of the mean."""
        count, mean = len(self.times), self.mean
        return math.sqrt(max(0.0, self._squares / count - mean * mean) / count) / max(mean, 1e-9)

    @property
    def in_flight(self) -> float:
        """The mean number of requests in flight."""
        return self._in_flight / len(self.times)

    @property
    def goodput(self) -> float:
        """Replies per second."""
        return (len(self.times) - 1) / max(self._last - self._first, 1e-6)

    @property
    def mean(self) -> float:
        """The mean latency in seconds."""
        return self._sum / len(self.times)

    @property
    def median(self) -> float:
        """The median latency in seconds."""
        return quantile(self._ordered(), 0.5)

    @property
    def tail(self) -> float:
        """The 95th percentile in seconds; 0 with fewer than `TAIL_REPLIES` replies."""
        return quantile(self._ordered(), 0.95) if len(self.times) >= TAIL_REPLIES else 0.0

    def _ordered(self) -> list[float]:
        if len(self._sorted) != len(self.times):
            self._sorted = sorted(self.times)
        return self._sorted


class UnloadedLatency:
    """Latency of replies that did not wait for others, from the last `KEPT` of them.

    Args:
        least: seconds; shorter latencies count as this.
    """

    def __init__(self, least: float) -> None:
        self.measured = 0.0
        """Mean in seconds; 0 before the first reply."""
        self.longest = math.inf
        """Seconds at which latencies are capped in later windows."""
        self._least = least
        self._tail = 0.0
        self._times: deque[float] = deque(maxlen=KEPT)

    @property
    def base(self) -> float:
        """The mean, or `least`."""
        return max(self.measured, self._least)

    @property
    def tail(self) -> float:
        """Tail latency in seconds: the 95th percentile, at least 3 times the mean."""
        return max(3 * self.base, self._tail)

    def learn(self, times: Iterable[float], *, anew: bool = False) -> None:
        """Add replies; with `anew`, remove the earlier ones first."""
        if anew:
            self._times.clear()
        self._times.extend(times)
        ordered = sorted(self._times)
        self.longest = OUTLIER * max(quantile(ordered, 0.5), self._least)
        self.measured = sum(min(time, self.longest) for time in ordered) / len(ordered)
        self._tail = quantile(ordered, 0.95)
