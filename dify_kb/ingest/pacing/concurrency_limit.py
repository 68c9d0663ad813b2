"""Adapt the number of concurrent uploads: increase it while throughput grows.

One default Dify process is saturated by 2 to 3 creates in flight; with 8 the p95 latency is 9 times
as high, and an 11th connection waits 5 s until another is closed (measured on 1.4.3 and 1.12.1).
Larger servers handle more. The limit is derived from the responses, one window at a time:

| observation in a window of responses | action |
|---|---|
| hardly any queue: the mean is near the unloaded latency | increase: first double, later by a few |
| the limit was increased, but the throughput did not grow | restore and hold the previous level |
| a queue, or a tail far above that of the unloaded server | decrease |
| one response takes seconds, the median does not | connection starvation: decrease for 10 min |
| overload: 5xx, 429 or a timeout | multiply by 0.6, at most once per second |
| the ramp ended, or the measurement is old | measure the unloaded latency with few in flight |

The queue length follows from Little's law: of `n` requests in flight, `n * base / mean` are served
and the rest wait. The mean is used because the median hardly changes on a server that serves the
newest request first. The constants were chosen on the simulated servers of
`benchmarks/pacing_simulation.py`.

A default pod accepts 10 connections. An 11th waits about 5 s until an idle connection is closed,
while requests on the other connections are as fast as before (measured on 1.4.3), so that the
median stays the same.
"""

from __future__ import annotations

import math
from collections import deque

from attrs import define

from .latency import (
    MAYBE_QUEUED,
    MEASURING_LEVEL_FACTOR,
    MIN_LATENCY,
    UNQUEUED,
    BaselineLatency,
    LatencySamples,
)

SAFE_LIMIT = 7
"""Highest level that is reached without a trial: with the poller, the 8 connections of a client."""

POD_LIMIT, FIRST_BEYOND_POD = 9, 12
"""With the poller, `POD_LIMIT` creates fill the 10 connections of a default pod. The limit exceeds
`POD_LIMIT` only if the ramp or a fresh measurement shows no queue, which means that the pod is
larger; at first only up to `FIRST_BEYOND_POD`, because connections that are not accepted starve."""

TARGET_RATIO = 1.5
"""Target of the mean latency, as a multiple of the unloaded latency."""

MIN_GAIN = 0.3
"""Required growth of the throughput, as a fraction of the growth of the level."""

GROWTH_PAUSES = (5.0, 60.0)
"""Seconds without an increase after a reverted increase: the first pause and the maximum; the pause
doubles each time."""


def next_level(level: float, ratio: float, *, ramp: bool) -> float:
    """Return the next higher level; `ratio` is the mean latency divided by the unloaded latency."""
    next_limit = max(level + max(1.0, math.sqrt(level) / 2), level * min(2.0, TARGET_RATIO / ratio))
    if ratio < (MAYBE_QUEUED if ramp and level < SAFE_LIMIT else UNQUEUED):
        next_limit = max(next_limit, level * (2.0 if ramp else 1.5))
    for stop in (SAFE_LIMIT, POD_LIMIT, FIRST_BEYOND_POD):
        if level < stop < next_limit:
            next_limit = float(stop)
    return next_limit


@define
class _GrowthTrial:
    """The level and throughput before an increase on trial."""

    level: float
    goodput: float


class LimitGrowth:
    """Increases of a limit: on trial above `SAFE_LIMIT`; above `POD_LIMIT` only without a queue."""

    def __init__(self) -> None:
        self.hold_until = -math.inf
        """Time before which the limit is not increased."""

        self._trial: _GrowthTrial | None = None
        self._patience = self._next_request = GROWTH_PAUSES[0]
        self._crossed = False
        self._request_at = -math.inf

    def begin_trial(self, level: float, window: LatencySamples) -> None:
        """Start the trial of an increase from `level`."""
        self._trial = _GrowthTrial(level, window.goodput)

    def cancel_trial(self) -> None:
        """Cancel the trial."""
        self._trial = None

    def finish_trial(
        self, now: float, level: float, window: LatencySamples, measured: float
    ) -> float | None:
        """End the trial; return the level to return to if the throughput did not grow."""
        if self._trial is None:
            return None
        trial, self._trial = self._trial, None
        gain = MIN_GAIN * (level / trial.level - 1) - 2 * window.error
        if window.goodput >= trial.goodput * (1 + gain):
            self._patience = GROWTH_PAUSES[0]
            self._crossed = self._crossed or level > POD_LIMIT + 1
            return None
        self.hold_until = now + self._patience
        self._patience = min(GROWTH_PAUSES[1], 2 * self._patience)
        # Little's law: the level that gives this throughput at the target latency.
        useful = TARGET_RATIO * window.goodput * measured
        return max(trial.level, min(useful, level))

    def can_exceed_pod_limit(
        self, now: float, ratio: float, baseline: BaselineLatency, *, ramp: bool
    ) -> bool:
        """Return whether the limit may exceed `POD_LIMIT`; otherwise request a measurement."""
        if self._crossed or ((baseline.is_fresh or ramp) and ratio < UNQUEUED):
            return True
        if now >= self._request_at and ratio < MAYBE_QUEUED:
            self._request_at = now + self._next_request
            self._next_request = min(GROWTH_PAUSES[1], 2 * self._next_request)
            baseline.request(now)
        return False


STARVED_SECONDS = 3.0
"""Seconds. A slower response among fast ones indicates a starved connection, which waits 5 s."""

STARVED_RATIO = 20
"""Minimum latency of a starved response, as a multiple of the unloaded latency."""

CEILING_SECONDS = 600.0
"""Seconds for which the ceiling holds after connections starved."""

MIN_CEILING = 4
"""Lowest ceiling: every pod has 10 connections, so that slow responses at a lower limit
have another cause, such as large files on slow storage.
"""

SMALL_LIMIT, CUT_FACTOR = 12, 0.8
"""The ceiling is the limit minus 2 up to `SMALL_LIMIT`, above that `CUT_FACTOR` times the limit."""

START_DELAY = 0.001
"""Maximum seconds between a new limit and the start of the requests that it admits."""


class ConnectionStarvation:
    """Ceiling of a concurrency limit after connection starvation. Methods take the current time."""

    def __init__(self) -> None:
        self._ceiling: int | None = None
        self._until = -math.inf
        self._ignored_until = -math.inf
        self._since = -math.inf
        self._limits: deque[tuple[float, int]] = deque(maxlen=32)

    def ceiling(self, now: float) -> int | None:
        """Return the ceiling; None if no connection starved in the last 10 minutes."""
        return self._ceiling if now < self._until else None

    def cap_level(self, now: float, low: int, high: int) -> float:
        """Return the highest level between `low` and `high` within the ceiling."""
        ceiling = self.ceiling(now)
        return float(high if ceiling is None else max(low, min(high, ceiling)))

    def record_limit(self, now: float, limit: int) -> None:
        """Record a new limit."""
        self._limits.append((now, limit))

    def is_starved(self, seconds: float, median: float, base: float) -> bool:
        """Return whether a response took seconds although the median is low."""
        return (
            seconds > STARVED_SECONDS
            and seconds > STARVED_RATIO * base
            and median < min(1.0, 5 * base)
        )

    def record_starved(self, now: float, began: float) -> None:
        """Record a starved response to a request that began at `began`."""
        # A request from before the last decrease is not affected by the current ceiling.
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
        """Return the limit that admitted a request that began at `when`."""
        past = (limit for since, limit in reversed(self._limits) if since <= when + START_DELAY)
        return next(past, self._limits[0][1] if self._limits else 0)


GROW_BELOW, SHRINK_ABOVE = (1.0, 0.40), (1.7, 0.58)
"""Queue lengths, each as a number and as a fraction of the level (the larger value applies): the
limit is increased below the first and decreased above the second."""

HOLD_TAIL, SHRINK_TAIL = 2.0, 3.0
"""Tail latencies, as multiples of the unloaded tail latency: the limit is not increased above the
first, and decreased above the second if any request waits."""

OVERLOAD_FACTOR = 0.6
"""Factor applied to the limit after an overload."""

RAMP_RESPONSES = 5
"""Number of responses per request in flight that complete a window of the ramp."""


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
        self._growth = LimitGrowth()
        self._starvation = ConnectionStarvation()
        self._window = LatencySamples(MIN_LATENCY)
        self._last_median = math.inf
        self._limit_since = self._ignored_until = -math.inf
        self._ramp = True
        self._cut_until = -math.inf
        self._starvation.record_limit(-math.inf, low)

    @property
    def connections(self) -> int:
        """Connections in use: the limit, including connections kept open during a measurement."""
        return max(self.limit, int(self._level))

    def ceiling(self, now: float) -> int | None:
        """Return the limit set by connection starvation in the last 10 minutes, if any."""
        return self._starvation.ceiling(now)

    def record_response(self, now: float, seconds: float, in_flight: int) -> None:
        """Record a successful create that took `seconds`; `in_flight` includes it."""
        baseline, window = self._baseline, self._window
        if self._fixed:
            return
        if self._starvation.is_starved(seconds, self._last_median, baseline.unloaded.base):
            self._starvation.record_starved(now, now - seconds)
            max_level = self._starvation.cap_level(now, self.low, self.high)
            if self._level > max_level:
                self._decrease(now, max_level)
            return
        # The latency of a request that began under another limit reflects that limit.
        if now - seconds < self._limit_since or now < self._ignored_until:
            return
        window.add(now, seconds, in_flight)
        if not baseline.measuring:
            needed = _needed_responses(self._level, self.limit, ramp=self._ramp)
            if window.is_complete(now, needed, 0.15 if self._ramp else 0.08):
                self._evaluate_window(now)
        elif baseline.is_instant(window):
            self._level = max(self._level, float(min(SAFE_LIMIT, self.high)))
            self._finish_measurement(now)
        elif baseline.is_measured(now, window):
            self._finish_measurement(now)

    def record_overload(self, now: float) -> None:
        """Record a call that failed because of an overload: 5xx, 429 or a timeout."""
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
        baseline.update(window, self._level, ramp=self._ramp)
        ratio = window.mean / baseline.unloaded.base
        queue = window.in_flight * (1 - 1 / ratio)
        tail = window.tail / baseline.unloaded.tail
        previous_level = self._growth.finish_trial(
            now, self._level, window, baseline.unloaded.measured
        )
        if previous_level is not None:
            self._end_ramp(now)
            self._set_level(now, previous_level)
            return
        if self._can_grow(now, queue, tail):
            self._grow(now, ratio)
        elif _is_full(self._level, queue, tail, ratio):
            self._end_ramp(now)
            self._set_level(
                now, self._level - max(1.0, (queue - _scale_bound(SHRINK_ABOVE, self._level)) / 2)
            )
        else:
            self._end_ramp(now)
            self._keep_level(now, ratio)
        baseline.is_fresh = False

    def _can_grow(self, now: float, queue: float, tail: float) -> bool:
        max_level = self._starvation.cap_level(now, self.low, self.high)
        used = self._window.in_flight >= 0.8 * self.limit
        has_short_queue = queue < _scale_bound(GROW_BELOW, self._level) and tail <= HOLD_TAIL
        return (
            used and has_short_queue and now >= self._growth.hold_until and self._level < max_level
        )

    def _grow(self, now: float, ratio: float) -> None:
        next_limit = next_level(self._level, ratio, ramp=self._ramp)
        if next_limit > POD_LIMIT and not self._growth.can_exceed_pod_limit(
            now, ratio, self._baseline, ramp=self._ramp
        ):
            self._end_ramp(now)
            self._keep_level(now, ratio)
            return
        if next_limit > SAFE_LIMIT:
            self._growth.begin_trial(self._level, self._window)
        self._set_level(now, min(next_limit, self._starvation.cap_level(now, self.low, self.high)))

    def _end_ramp(self, now: float) -> None:
        """End the ramp, whose windows are short, and request an exact measurement."""
        if self._ramp:
            self._ramp = False
            self._baseline.request(now)

    def _keep_level(self, now: float, ratio: float) -> None:
        """Start a measurement of the unloaded latency if it is due, otherwise a new window."""
        measuring_level = max(
            self.low, int(MEASURING_LEVEL_FACTOR * self._level / max(1.0, ratio)), 1
        )
        if self._baseline.is_due(now) and measuring_level < self.limit:
            self._baseline.measuring = True
            self._set_limit(now, measuring_level)
        else:
            self._window.clear(self._baseline.unloaded.longest)

    def _finish_measurement(self, now: float) -> None:
        self._baseline.finish(now, self._window)
        self._last_median = self._window.median
        self._set_limit(now, int(self._level))

    def _decrease(self, now: float, level: float) -> None:
        self._ramp = False
        self._growth.cancel_trial()
        self._baseline.abandon()
        self._set_level(now, level)

    def _set_level(self, now: float, level: float) -> None:
        self._level = max(float(self.low), min(float(self.high), level))
        self._set_limit(now, self.low if self._baseline.measuring else int(self._level))

    def _set_limit(self, now: float, limit: int) -> None:
        if limit != self.limit:
            self._limit_since = now
            # The first responses under a new limit are the fastest and would bias the mean.
            self._ignored_until = now + 1.5 * min(self._last_median, 1.0)
            self._starvation.record_limit(now, limit)
        self.limit = limit
        self._window.clear(self._baseline.unloaded.longest)


def _needed_responses(level: float, limit: int, *, ramp: bool) -> int:
    """Return the minimum number of responses in a window, which grows with the level."""
    if ramp:
        return RAMP_RESPONSES * limit
    return max(64 if level >= SAFE_LIMIT else 24, 3 * limit)


def _is_full(level: float, queue: float, tail: float, ratio: float) -> bool:
    # With two in flight, one is served and one is on the network: that is not a queue.
    if level < 3:  # noqa: PLR2004
        return False
    return queue > _scale_bound(SHRINK_ABOVE, level) or (
        tail > SHRINK_TAIL and ratio > MAYBE_QUEUED
    )


def _scale_bound(bound: tuple[float, float], level: float) -> float:
    return max(bound[0], bound[1] * level)
