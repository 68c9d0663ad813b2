"""Decide how far a concurrency limit grows, and take back a growth that brought nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define

from .baseline_latency import MAYBE_QUEUED, UNQUEUED

if TYPE_CHECKING:
    from .baseline_latency import BaselineLatency
    from .latency_samples import LatencySamples

SAFE_LIMIT = 7
"""Creates that need no proof of being of use: with the watcher, the 8 connections of a client."""

POD_LIMIT, FIRST_BEYOND_POD = 9, 12
"""Creates that, with the watcher, fill the 10 connections of a default pod. Beyond it only where
nothing waits, as the first steps or a fresh measurement have shown, so that the pod must be a
larger one; and by a few at first, since those that it does not take are starved."""

TARGET_RATIO = 1.5
"""Mean by unloaded time at which a growing limit should arrive."""

MIN_GAIN = 0.3
"""The part of a growth in flight that must come out as growth a second."""

PATIENCE = (5.0, 60.0)
"""Seconds without a further growth after one that brought nothing; doubled up to the second."""


def next_level(level: float, ratio: float, *, ramp: bool) -> float:
    """Return the level to grow to, by the mean as a multiple of the unloaded time."""
    wider = max(level + max(1.0, math.sqrt(level) / 2), level * min(2.0, TARGET_RATIO / ratio))
    if ratio < (MAYBE_QUEUED if ramp and level < SAFE_LIMIT else UNQUEUED):
        wider = max(wider, level * (2.0 if ramp else 1.5))
    for stop in (SAFE_LIMIT, POD_LIMIT, FIRST_BEYOND_POD):
        if level < stop < wider:
            wider = float(stop)
    return wider


@define
class _Trial:
    """A growth that has to prove itself."""

    level: float
    goodput: float


class Growth:
    """Growth of a limit: on trial beyond `SAFE_LIMIT`, and beyond a default pod only with proof."""

    def __init__(self) -> None:
        self.hold_until = -math.inf
        """No growth before."""

        self._trial: _Trial | None = None
        self._patience = self._next_request = PATIENCE[0]
        self._crossed = False
        self._request_at = -math.inf

    def begin(self, level: float, window: LatencySamples) -> None:
        """Put a growth from `level` on trial."""
        self._trial = _Trial(level, window.goodput)

    def cancel(self) -> None:
        """Forget the growth that is on trial."""
        self._trial = None

    def judge(
        self, now: float, level: float, window: LatencySamples, measured: float
    ) -> float | None:
        """Return the level to go back to if the growth on trial brought no more a second."""
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
        # So many in flight make that many a second with the queue aimed at.
        useful = TARGET_RATIO * window.goodput * measured
        return max(trial.level, min(useful, level))

    def may_cross(self, now: float, ratio: float, baseline: BaselineLatency, *, ramp: bool) -> bool:
        """Return whether more than a default pod's connections are of use; else measure again."""
        if self._crossed or ((baseline.is_fresh or ramp) and ratio < UNQUEUED):
            return True
        if now >= self._request_at and ratio < MAYBE_QUEUED:
            self._request_at = now + self._next_request
            self._next_request = min(PATIENCE[1], 2 * self._next_request)
            baseline.request(now)
        return False
