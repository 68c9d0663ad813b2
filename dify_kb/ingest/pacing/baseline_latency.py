"""Measure the latency of the unloaded server: at first, then now and then with few in flight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .latency_samples import UnloadedLatency

if TYPE_CHECKING:
    from .latency_samples import LatencySamples

MIN_LATENCY = 0.010
"""Seconds. A mean below it is not a queue that anybody would feel: a server that answers at once is
measured mostly by the jitter of our own loop."""

MAX_RAMP_LEVEL = 4
"""Creates that, at the start, may show the unloaded time as well as one alone."""

UNQUEUED, MAYBE_QUEUED = 1.13, 1.25
"""Mean by unloaded time: below the first nothing waits, given the noise of both; below the second
that may be."""

INTERVALS = (10.0, 30.0, 60.0)
"""Seconds until the next measurement: from the first one, from one that showed a change, from
others."""

FIRST_MEASUREMENT, LATER_MEASUREMENT = (6, 0.15, 1.0), (8, 0.08, 1.5)
"""Replies, error of the unloaded time and seconds that end a measurement: the first one, later
ones."""

MEASURING_PART = 0.6
"""The part of what is being served, without the queue, that is in flight in a measurement."""


class BaselineLatency:
    """The unloaded time, and when it is to be measured again. The clock is an argument."""

    def __init__(self) -> None:
        self.unloaded = UnloadedLatency(MIN_LATENCY)
        self.measuring = True
        """Whether few are in flight now, to measure it."""

        self.is_fresh = False
        """Whether it was measured just before the current window of replies."""

        self._due = math.inf
        self._exact = False
        self._last_mean = 0.0

    def is_instant(self, window: LatencySamples) -> bool:
        """Return whether the first replies came at once; then there is no need for steps."""
        few = self.unloaded.measured or len(window.times) < 8  # noqa: PLR2004
        return not few and window.median < MIN_LATENCY / 2

    def is_measured(self, now: float, window: LatencySamples) -> bool:
        """Return whether the measurement may end."""
        return window.is_complete(
            now, *(LATER_MEASUREMENT if self.unloaded.measured else FIRST_MEASUREMENT)
        )

    def finish(self, now: float, window: LatencySamples) -> None:
        """End a measurement, and learn what it shows."""
        before, found = self.unloaded.measured, window.mean
        same = before > 0 and abs(found / before - 1) < max(0.25, 3 * window.error)
        self.unloaded.learn(window.times, anew=not (same and self._exact))
        self._exact = self.is_fresh = before > 0
        self._due = now + INTERVALS[0 if not before else 2 if same else 1]
        self.measuring = False

    def abandon(self) -> None:
        """End a measurement early, but for the first one."""
        self.measuring = self.measuring and not self.unloaded.measured

    def request(self, now: float) -> None:
        """Have it measured again as soon as nothing else is to be done."""
        self._due = min(self._due, now)

    def is_due(self, now: float) -> bool:
        """Return whether it is to be measured again."""
        return now >= self._due

    def learn(self, window: LatencySamples, level: float, *, ramp: bool) -> None:
        """Learn from replies in which nothing waited, with `level` in flight."""
        mean = window.mean
        if mean < 0.7 * self.unloaded.measured and not ramp:
            self.unloaded.learn(window.times, anew=True)
        elif level == 1 or (ramp and level <= MAX_RAMP_LEVEL and self._is_unqueued(mean)):
            self.unloaded.learn(window.times)
        self._last_mean = mean

    def _is_unqueued(self, mean: float) -> bool:
        """Return whether nothing waits: it takes no longer than alone, or than with fewer."""
        return mean < max(UNQUEUED * self.unloaded.base, 1.08 * self._last_mean)
