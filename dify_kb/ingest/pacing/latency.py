"""Collect latency samples, and measure the latency of the unloaded server periodically."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_RESPONSES, MAX_RESPONSES = 4, 256
"""Number of responses in a window: the minimum, and the number that suffices for any spread."""

MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
"""Duration of a window in seconds: a shorter window is a single burst; after `MAX_SECONDS`,
`MIN_RESPONSES` suffice."""

TAIL_RESPONSES = 20
"""Minimum number of responses for the 95th percentile."""

MAX_SAMPLES = 128
"""Maximum number of samples from which the unloaded latency is computed."""

OUTLIER = 5
"""Multiple of the median at which latencies are capped, so that one stall has little effect."""


def quantile(times: Sequence[float], part: float) -> float:
    """Return the quantile `part` of the sorted `times`; 0 if there are none."""
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0


class LatencySamples:
    """A window of responses: their latencies, throughput and requests in flight.

    For the mean and its standard error, latencies are capped at `longest`.

    Args:
        min_latency: seconds; if the mean is smaller, its standard error is divided by this value.
    """

    def __init__(self, min_latency: float) -> None:
        self._min_latency = min_latency
        self.times: list[float] = []
        self.clear(math.inf)

    def clear(self, longest: float) -> None:
        """Remove all responses, and cap those added later at `longest`."""
        self._longest = longest
        self.times = []
        self._sum = self._squares = 0.0
        self._in_flight = 0
        self._first = self._last = 0.0
        self._sorted: list[float] = []

    def add(self, now: float, seconds: float, in_flight: int) -> None:
        """Add a response."""
        if not self.times:
            self._first = now
        self._last = now
        self.times.append(seconds)
        seconds = min(seconds, self._longest)
        self._sum += seconds
        self._squares += seconds * seconds
        self._in_flight += in_flight

    def is_complete(
        self, now: float, min_responses: int, error: float, patience: float = MAX_SECONDS
    ) -> bool:
        """Return whether the window has `min_responses` and a relative error of at most `error`.

        After `patience` seconds, the error is ignored.
        """
        count, seconds = len(self.times), now - self._first
        if count < min_responses or seconds < MIN_SECONDS:
            return count >= MIN_RESPONSES and seconds >= MAX_SECONDS
        needed = error * max(1.0, self._min_latency / self.mean)
        return self.error <= needed or count >= MAX_RESPONSES or seconds >= patience

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
        """Responses per second."""
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
        """The 95th percentile in seconds; 0 with fewer than `TAIL_RESPONSES` responses."""
        return quantile(self._ordered(), 0.95) if len(self.times) >= TAIL_RESPONSES else 0.0

    def _ordered(self) -> list[float]:
        if len(self._sorted) != len(self.times):
            self._sorted = sorted(self.times)
        return self._sorted


class UnloadedLatency:
    """Latency of requests that did not have to wait, from the last `MAX_SAMPLES` responses.

    Args:
        min_latency: seconds; shorter latencies are raised to this value.
    """

    def __init__(self, min_latency: float) -> None:
        self.measured = 0.0
        """Mean in seconds; 0 before the first response."""
        self.longest = math.inf
        """Seconds at which latencies are capped in later windows."""
        self._min_latency = min_latency
        self._tail = 0.0
        self._times: deque[float] = deque(maxlen=MAX_SAMPLES)

    @property
    def base(self) -> float:
        """The mean, or `min_latency`."""
        return max(self.measured, self._min_latency)

    @property
    def tail(self) -> float:
        """Tail latency in seconds: the 95th percentile, at least 3 times the mean."""
        return max(3 * self.base, self._tail)

    def update(self, times: Iterable[float], *, anew: bool = False) -> None:
        """Add latencies of responses; with `anew`, remove the earlier ones first."""
        if anew:
            self._times.clear()
        self._times.extend(times)
        ordered = sorted(self._times)
        self.longest = OUTLIER * max(quantile(ordered, 0.5), self._min_latency)
        self.measured = sum(min(time, self.longest) for time in ordered) / len(ordered)
        self._tail = quantile(ordered, 0.95)


MIN_LATENCY = 0.010
"""Seconds. Shorter mean latencies are raised to this value: they reflect mostly the jitter of the
event loop, and a queue that short does not matter."""

MAX_RAMP_LEVEL = 4
"""Highest level of the ramp at which responses may count as unloaded."""

UNQUEUED, MAYBE_QUEUED = 1.13, 1.25
"""Mean latency as a multiple of the unloaded latency: below `UNQUEUED`, no request waits, within
noise; below `MAYBE_QUEUED`, it is possible that no request waits."""

MEASUREMENT_INTERVALS = (10.0, 30.0, 60.0)
"""Seconds until the next measurement: after the first measurement, after a different result, and
after the same result."""

FIRST_MEASUREMENT, LATER_MEASUREMENT = (6, 0.15, 1.0), (8, 0.08, 1.5)
"""Minimum responses, maximum relative error of the mean and maximum seconds of a measurement."""

MEASURING_LEVEL_FACTOR = 0.6
"""Requests in flight during a measurement, as a fraction of the requests being served (without the
queue)."""


class BaselineLatency:
    """Unloaded latency, and the time of its next measurement. Methods take the current time."""

    def __init__(self) -> None:
        self.unloaded = UnloadedLatency(MIN_LATENCY)
        self.measuring = True
        """Whether a measurement is running, with few requests in flight."""

        self.is_fresh = False
        """Whether a measurement ended just before the current window."""

        self._due = math.inf
        self._exact = False
        self._last_mean = 0.0

    def is_instant(self, window: LatencySamples) -> bool:
        """Return whether the first responses are fast enough to skip the ramp."""
        has_few_responses = self.unloaded.measured or len(window.times) < 8  # noqa: PLR2004
        return not has_few_responses and window.median < MIN_LATENCY / 2

    def is_measured(self, now: float, window: LatencySamples) -> bool:
        """Return whether the window has enough responses to finish the measurement."""
        return window.is_complete(
            now, *(LATER_MEASUREMENT if self.unloaded.measured else FIRST_MEASUREMENT)
        )

    def finish(self, now: float, window: LatencySamples) -> None:
        """Finish a measurement and record its result."""
        previous, mean = self.unloaded.measured, window.mean
        same = previous > 0 and abs(mean / previous - 1) < max(0.25, 3 * window.error)
        self.unloaded.update(window.times, anew=not (same and self._exact))
        self._exact = self.is_fresh = previous > 0
        self._due = now + MEASUREMENT_INTERVALS[0 if not previous else 2 if same else 1]
        self.measuring = False

    def abandon(self) -> None:
        """Cancel the measurement, unless it is the first."""
        self.measuring = self.measuring and not self.unloaded.measured

    def request(self, now: float) -> None:
        """Request a measurement as soon as the limit is stable."""
        self._due = min(self._due, now)

    def is_due(self, now: float) -> bool:
        """Return whether the next measurement is due."""
        return now >= self._due

    def update(self, window: LatencySamples, level: float, *, ramp: bool) -> None:
        """Update the unloaded latency from a window at `level` if no request waited."""
        mean = window.mean
        if mean < 0.7 * self.unloaded.measured and not ramp:
            self.unloaded.update(window.times, anew=True)
        elif level == 1 or (ramp and level <= MAX_RAMP_LEVEL and self._is_unqueued(mean)):
            self.unloaded.update(window.times)
        self._last_mean = mean

    def _is_unqueued(self, mean: float) -> bool:
        """Return whether the mean is within the unloaded mean or that of the previous window."""
        return mean < max(UNQUEUED * self.unloaded.base, 1.08 * self._last_mean)
