"""Increase a concurrency limit, and revert increases that did not raise the throughput."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define

from .baseline_latency import MAYBE_QUEUED, UNQUEUED

if TYPE_CHECKING:
    from .baseline_latency import BaselineLatency
    from .latency_samples import LatencySamples

SAFE_LIMIT = 7
"""Level up to which an increase needs no trial: with the poller, the 8 connections of a client."""

POD_LIMIT, FIRST_BEYOND_POD = 9, 12
"""With the poller, `POD_LIMIT` creates fill the 10 connections of a default pod. The limit exceeds
that only if the ramp or a fresh measurement shows no queue, which means that the pod is larger; at
first only up to `FIRST_BEYOND_POD`, because connections that are not accepted starve."""

TARGET_RATIO = 1.5
"""Mean latency, as a multiple of the unloaded one, that an increase aims at."""

MIN_GAIN = 0.3
"""Required growth of the throughput, as a part of the growth of the level."""

PATIENCE = (5.0, 60.0)
"""Seconds without an increase after one that was reverted: the first pause and, doubled each time,
the longest."""


def next_level(level: float, ratio: float, *, ramp: bool) -> float:
    """Return the next higher level; `ratio` is the mean by the unloaded latency."""
    wider = max(level + max(1.0, math.sqrt(level) / 2), level * min(2.0, TARGET_RATIO / ratio))
    if ratio < (MAYBE_QUEUED if ramp and level < SAFE_LIMIT else UNQUEUED):
        wider = max(wider, level * (2.0 if ramp else 1.5))
    for stop in (SAFE_LIMIT, POD_LIMIT, FIRST_BEYOND_POD):
        if level < stop < wider:
            wider = float(stop)
    return wider


@define
class _Trial:
    """Level and throughput before an increase that is on trial."""

    level: float
    goodput: float


class Growth:
    """Increases of a limit: on trial above `SAFE_LIMIT`; above `POD_LIMIT` only without a queue."""

    def __init__(self) -> None:
        self.hold_until = -math.inf
        """Time before which the limit is not increased."""

        self._trial: _Trial | None = None
        self._patience = self._next_request = PATIENCE[0]
        self._crossed = False
        self._request_at = -math.inf

    def begin(self, level: float, window: LatencySamples) -> None:
        """Start the trial of an increase from `level`."""
        self._trial = _Trial(level, window.goodput)

    def cancel(self) -> None:
        """Cancel the trial."""
        self._trial = None

    def judge(
        self, now: float, level: float, window: LatencySamples, measured: float
    ) -> float | None:
        """End the trial; return the level to return to if the throughput did not grow."""
        if self._trial is None:
            return None
        trial, self._trial = self._trial, None
        gain = MIN_GAIN * (level / trial.level - 1) - 2 * window.error
        if window.goodput >= trial.goodput * (1 + gain):
            self._patience = PATIENCE[0]
            self._crossed = self._crossed or level > POD_LIMIT + 1
            return None
        self.hold_until = now + self._patience
        self._patience = min(PATIENCE[1], 2 * self._patience)
        # Little's law: the level that gives this throughput at the target latency.
        useful = TARGET_RATIO * window.goodput * measured
        return max(trial.level, min(useful, level))

    def may_cross(self, now: float, ratio: float, baseline: BaselineLatency, *, ramp: bool) -> bool:
        """Return whether the limit may exceed `POD_LIMIT`; else request a measurement."""
        if self._crossed or ((baseline.is_fresh or ramp) and ratio < UNQUEUED):
            return True
        if now >= self._request_at and ratio < MAYBE_QUEUED:
            self._request_at = now + self._next_request
            self._next_request = min(PATIENCE[1], 2 * self._next_request)
            baseline.request(now)
        return False
