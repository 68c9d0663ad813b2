"""Adapt the number of concurrent uploads: increase it while throughput grows.

One default Dify process is saturated by 2 to 3 creates in flight; with 8 the p95 latency is 9 times
as high, and an 11th connection waits 5 s until another is closed (measured on 1.4.3 and 1.12.1).
Larger servers take more. The limit follows from the replies, evaluated window by window:

| observation in a window of replies | action |
|---|---|
| hardly any queue: the mean is near the unloaded latency | increase: double, later by a few |
| increased, but the throughput did not grow | return to the level before, and hold it |
| a queue, or a tail far above that of the unloaded server | decrease |
| one reply takes seconds, the median does not | connection starvation: decrease for 10 min |
| an overload: 5xx, 429, a timeout | multiply by 0.6, at most once per second |
| the ramp ended, or the measurement is old | measure the unloaded latency with few in flight |

The queue length follows from Little's law: of `n` requests in flight, `n * base / mean` are served
and the others wait. The mean is used because the median hardly changes on a server that serves the
newest request first. The constants were chosen on the simulated servers of `benchmarks/pace.py`.
"""

from __future__ import annotations

import math

from .baseline_latency import MAYBE_QUEUED, MEASURING_PART, MIN_LATENCY, BaselineLatency
from .connection_starvation import ConnectionStarvation
from .growth import POD_LIMIT, SAFE_LIMIT, Growth, next_level
from .latency_samples import LatencySamples

GROW_BELOW, SHRINK_ABOVE = (1.0, 0.40), (1.7, 0.58)
"""Queue lengths, each as a number and as a part of the level (the larger counts): the limit is
increased below the first and decreased above the second."""

HOLD_TAIL, SHRINK_TAIL = 2.0, 3.0
"""Tail latencies, as multiples of the unloaded one: do not increase the limit above the first;
decrease it above the second if there is any queue."""

OVERLOAD_FACTOR = 0.6
"""Factor of the limit after an overload."""

RAMP_REPLIES = 5
"""Replies per request in flight in one window of the ramp."""


class ConcurrencyLimit:
    """Limit of creates in flight, between `low` and `high`; fixed if both are equal.

    Starts at `low` to measure the unloaded latency, then continues from `start`. Methods take the
    current time.
    """

    def __init__(self, low: int = 1, high: int = 64, start: int = 2) -> None:
        self.low, self.high = low, high
        self.limit = low
        self._fixed = low == high
        self._level = float(max(low, min(high, start)))
        self._baseline = BaselineLatency()
        self._growth = Growth()
        self._starvation = ConnectionStarvation()
        self._window = LatencySamples(MIN_LATENCY)
        self._last_median = math.inf
        self._limit_since = self._ignored_until = -math.inf
        self._ramp = True
        self._cut_until = -math.inf
        self._starvation.record_limit(-math.inf, low)

    @property
    def connections(self) -> int:
        """Connections in use: the limit, disregarding measurements, which keep connections open."""
        return max(self.limit, int(self._level))

    def ceiling(self, now: float) -> int | None:
        """Return the limit set by connection starvation in the last 10 minutes, if any."""
        return self._starvation.ceiling(now)

    def record_reply(self, now: float, seconds: float, in_flight: int) -> None:
        """Record a create that succeeded in `seconds`; `in_flight` includes it."""
        baseline, window = self._baseline, self._window
        if self._fixed:
            return
        if self._starvation.is_starved(seconds, self._last_median, baseline.unloaded.base):
            self._starvation.record_starved(now, now - seconds)
            top = self._starvation.cap(now, self.low, self.high)
            if self._level > top:
                self._decrease(now, top)
            return
        # A request that began under another limit measures that one.
        if now - seconds < self._limit_since or now < self._ignored_until:
            return
        window.add(now, seconds, in_flight)
        if not baseline.measuring:
            needed = _needed_replies(self._level, self.limit, ramp=self._ramp)
            if window.is_complete(now, needed, 0.15 if self._ramp else 0.08):
                self._evaluate_window(now)
        elif baseline.is_instant(window):
            self._level = max(self._level, float(min(SAFE_LIMIT, self.high)))
            self._finish_measurement(now)
        elif baseline.is_measured(now, window):
            self._finish_measurement(now)

    def record_overload(self, now: float) -> None:
        """Record a call that failed by overload: 5xx, 429 or a timeout."""
        if self._fixed:
            return
        pause = max(1.0, 3 * self._baseline.unloaded.measured)
        self._growth.hold_until = max(self._growth.hold_until, now + 2 * pause)
        if now >= self._cut_until:
            self._cut_until = now + pause
            self._decrease(now, self._level * OVERLOAD_FACTOR)

    def reopen(self, now: float) -> None:
        """Halve the limit after an outage."""
        self._decrease(now, self._level / 2)

    def _evaluate_window(self, now: float) -> None:
        window, baseline = self._window, self._baseline
        self._last_median = window.median
        baseline.learn(window, self._level, ramp=self._ramp)
        ratio = window.mean / baseline.unloaded.base
        queue = window.in_flight * (1 - 1 / ratio)
        tail = window.tail / baseline.unloaded.tail
        back = self._growth.judge(now, self._level, window, baseline.unloaded.measured)
        if back is not None:
            self._end_ramp(now)
            self._set_level(now, back)
            return
        if self._has_room(now, queue, tail):
            self._grow(now, ratio)
        elif _is_full(self._level, queue, tail, ratio):
            self._end_ramp(now)
            self._set_level(
                now, self._level - max(1.0, (queue - _bound(SHRINK_ABOVE, self._level)) / 2)
            )
        else:
            self._end_ramp(now)
            self._keep_level(now, ratio)
        baseline.is_fresh = False

    def _has_room(self, now: float, queue: float, tail: float) -> bool:
        top = self._starvation.cap(now, self.low, self.high)
        used = self._window.in_flight >= 0.8 * self.limit
        room = queue < _bound(GROW_BELOW, self._level) and tail <= HOLD_TAIL
        return used and room and now >= self._growth.hold_until and self._level < top

    def _grow(self, now: float, ratio: float) -> None:
        wider = next_level(self._level, ratio, ramp=self._ramp)
        if wider > POD_LIMIT and not self._growth.may_cross(
            now, ratio, self._baseline, ramp=self._ramp
        ):
            self._end_ramp(now)
            self._keep_level(now, ratio)
            return
        if wider > SAFE_LIMIT:
            self._growth.begin(self._level, self._window)
        self._set_level(now, min(wider, self._starvation.cap(now, self.low, self.high)))

    def _end_ramp(self, now: float) -> None:
        """End the ramp, whose windows are short, and request an exact measurement."""
        if self._ramp:
            self._ramp = False
            self._baseline.request(now)

    def _keep_level(self, now: float, ratio: float) -> None:
        """Start a measurement of the unloaded latency if due, else a new window."""
        few = max(self.low, int(MEASURING_PART * self._level / max(1.0, ratio)), 1)
        if self._baseline.is_due(now) and few < self.limit:
            self._baseline.measuring = True
            self._set_limit(now, few)
        else:
            self._window.clear(self._baseline.unloaded.longest)

    def _finish_measurement(self, now: float) -> None:
        self._baseline.finish(now, self._window)
        self._last_median = self._window.median
        self._set_limit(now, int(self._level))

    def _decrease(self, now: float, level: float) -> None:
        self._ramp = False
        self._growth.cancel()
        self._baseline.abandon()
        self._set_level(now, level)

    def _set_level(self, now: float, level: float) -> None:
        self._level = max(float(self.low), min(float(self.high), level))
        self._set_limit(now, self.low if self._baseline.measuring else int(self._level))

    def _set_limit(self, now: float, limit: int) -> None:
        if limit != self.limit:
            self._limit_since = now
            # The first replies under a new limit are the fastest ones; they would bias the mean.
            self._ignored_until = now + 1.5 * min(self._last_median, 1.0)
            self._starvation.record_limit(now, limit)
        self.limit = limit
        self._window.clear(self._baseline.unloaded.longest)


def _needed_replies(level: float, limit: int, *, ramp: bool) -> int:
    """Return the minimum number of replies in a window: more for a higher level."""
    if ramp:
        return RAMP_REPLIES * limit
    return max(64 if level >= SAFE_LIMIT else 24, 3 * limit)


def _is_full(level: float, queue: float, tail: float, ratio: float) -> bool:
    # With two in flight, one is served and one is on the network: that is not a queue.
    if level < 3:  # noqa: PLR2004
        return False
    return queue > _bound(SHRINK_ABOVE, level) or (tail > SHRINK_TAIL and ratio > MAYBE_QUEUED)


def _bound(bound: tuple[float, float], level: float) -> float:
    return max(bound[0], bound[1] * level)
