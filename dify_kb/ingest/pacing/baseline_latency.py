"""Measure the latency of the unloaded server: at the start, then periodically."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .latency_samples import UnloadedLatency

if TYPE_CHECKING:
    from .latency_samples import LatencySamples

MIN_LATENCY = 0.010
"""Seconds. Shorter mean latencies count as this: they measure mostly the jitter of the event loop,
and a queue that short does not matter."""

MAX_RAMP_LEVEL = 4
"""Highest level of the ramp whose replies may still count as unloaded."""

UNQUEUED, MAYBE_QUEUED = 1.13, 1.25
"""Mean latency as a multiple of the unloaded one: below `UNQUEUED` no request waits, within noise;
below `MAYBE_QUEUED` that is possible."""

INTERVALS = (10.0, 30.0, 60.0)
"""Seconds until the next measurement: after the first one, after one that differs, and after one
that agrees with the last."""

FIRST_MEASUREMENT, LATER_MEASUREMENT = (6, 0.15, 1.0), (8, 0.08, 1.5)
"""Minimum replies, relative error of the mean and maximum seconds of a measurement."""

MEASURING_PART = 0.6
"""Requests in flight during a measurement, as a part of those being served (without the queue)."""


class BaselineLatency:
    """Unloaded latency, and the time of its next measurement. Methods take the current time."""

    def __init__(self) -> None:
        self.unloaded = UnloadedLatency(MIN_LATENCY)
        self.measuring = True
        """Whether a measurement is running, with few requests in flight."""

        self.is_fresh = False
        """Whether the measurement ended just before the current window of replies."""

        self._due = math.inf
        self._exact = False
        self._last_mean = 0.0

    def is_instant(self, window: LatencySamples) -> bool:
        """Return whether the first replies are so fast that the ramp can be skipped."""
        few = self.unloaded.measured or len(window.times) < 8  # noqa: PLR2004
        return not few and window.median < MIN_LATENCY / 2

    def is_measured(self, now: float, window: LatencySamples) -> bool:
        """Return whether the window has enough replies to end the measurement."""
        return window.is_complete(
            now, *(LATER_MEASUREMENT if self.unloaded.measured else FIRST_MEASUREMENT)
        )

    def finish(self, now: float, window: LatencySamples) -> None:
        """End a measurement and record its result."""
        before, found = self.unloaded.measured, window.mean
        same = before > 0 and abs(found / before - 1) < max(0.25, 3 * window.error)
        self.unloaded.learn(window.times, anew=not (same and self._exact))
        self._exact = self.is_fresh = before > 0
        self._due = now + INTERVALS[0 if not before else 2 if same else 1]
        self.measuring = False

    def abandon(self) -> None:
        """Cancel a measurement, unless it is the first one."""
        self.measuring = self.measuring and not self.unloaded.measured

    def request(self, now: float) -> None:
        """Request a measurement as soon as the limit is stable."""
        self._due = min(self._due, now)

    def is_due(self, now: float) -> bool:
        """Return whether the next measurement is due."""
        return now >= self._due

    def learn(self, window: LatencySamples, level: float, *, ramp: bool) -> None:
        """Update the unloaded latency from a window with `level` in flight if no request waited."""
        mean = window.mean
        if mean < 0.7 * self.unloaded.measured and not ramp:
            self.unloaded.learn(window.times, anew=True)
        elif level == 1 or (ramp and level <= MAX_RAMP_LEVEL and self._is_unqueued(mean)):
            self.unloaded.learn(window.times)
        self._last_mean = mean

    def _is_unqueued(self, mean: float) -> bool:
        """Return whether no request waits: the mean is that of one alone, or of fewer in flight."""
        return mean < max(UNQUEUED * self.unloaded.base, 1.08 * self._last_mean)
