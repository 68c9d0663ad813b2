"""How many creates a server takes at once: grown while that brings more a second, and no longer.

One default process is full at 2 to 3 in flight; up to 8 buys only waiting (p95 times 9), and an
11th connection waits 5 s for one to be closed (measured on 1.4.3 and 1.12.1). Larger servers have
their knee higher, so it is looked for, by what is seen from outside:

| what a window of replies shows | what follows |
|---|---|
| hardly any queue: the mean is near the unloaded time | more: twice as many at first, then a few |
| more in flight, but not more a second | back to where it was, for a while |
| a queue, or a tail far beyond that of the unloaded server | fewer |
| one reply after seconds while the others are calm | a connection starves: fewer, for 10 min |
| an overload: 5xx, 429, a timeout | 0.6 of it, at most once a second |
| first steps are over, a while went by | a look: what is the time with few in flight? |

The queue is told by Little's law: of `n` in flight, `n * base / mean` are served, the others wait.
The mean is used, not the median, which hardly moves on a server that serves the newest first.
`benchmarks/pace.py` has the servers that the constants were chosen on.
"""

from __future__ import annotations

import math

from attrs import define

from .connection_starvation import ConnectionStarvation
from .latency_samples import LatencySamples, UnloadedLatency

QUICK = 0.010
"""Seconds. A mean below it is no queue that anybody would feel: a server that answers at once is
measured mostly by the jitter of our own loop."""

FEW = 4
"""Creates that, at the start, may show the unloaded time as well as one alone."""

SAFE = 7
"""Creates that need no proof of being of use: with the watcher, the 8 connections of a client."""

POD, BEYOND = 9, 12
"""Creates that, with the watcher, fill the 10 connections of a default pod. Beyond it only where
nothing waits, as the first steps or a fresh look have shown, so that the pod must be a larger one;
and by a few at first, since those that it does not take are starved."""

GROW, SHRINK = (1.0, 0.40), (1.7, 0.58)
"""Creates that wait, as a number and as a part of the limit, whichever is more: below the first
pair there is room, above the second there are too many."""

ROOMY, NEARLY = 1.13, 1.25
"""Mean by unloaded time: below the first nothing waits, given the noise of both; below the second
that may be."""

AIM = 1.5
"""Mean by unloaded time at which a growing limit should arrive."""

LONGER, BURST = 2.0, 3.0
"""The tail, by that of the unloaded server: from the first no more is let in, from the second
fewer, if there is any queue."""

CUT = 0.6
"""What an overload leaves of the limit."""

GAIN = 0.3
"""The part of a growth in flight that must come out as growth a second."""

PATIENCE = (5.0, 60.0)
"""Seconds without a further growth after one that brought nothing; doubled up to the second."""

STEP = 5
"""Replies for each in flight that a step at the beginning is judged by."""

LOOKS = (10.0, 30.0, 60.0)
"""Seconds until the next look: from the first one, from one that showed a change, from others."""

FIRST, EXACT = (6, 0.15, 1.0), (8, 0.08, 1.5)
"""Replies, error of the unloaded time and seconds that end a look: the first one, later ones."""

LOOKING = 0.6
"""The part of what is being served, without the queue, that is in flight in a look."""


@define
class _Trial:
    """A growth that has to prove itself."""

    level: float
    goodput: float


class ConcurrencyLimit:
    """A limit for creates in flight between `low` and `high`; equal ones fix it.

    Fed with the time of each reply; the clock is an argument. It begins with a few replies at
    `low`, to learn the unloaded time, and goes on from `start`.
    """

    def __init__(self, low: int = 1, high: int = 64, start: int = 2) -> None:
        self.low, self.high = low, high
        self.limit = low
        self._fixed = low == high
        self._level = float(max(low, min(high, start)))
        self._unloaded = UnloadedLatency(QUICK)
        self._starvation = ConnectionStarvation()
        self._window = LatencySamples(QUICK)
        self._calm = math.inf
        self._last = 0.0
        self._since = self._from = -math.inf
        self._looking, self._look_at = True, math.inf
        self._fresh = self._crossed = False
        self._ask_at = -math.inf
        self._ramp, self._exact = True, False
        self._trial: _Trial | None = None
        self._patience = self._again = PATIENCE[0]
        self._hold_until = self._cut_until = -math.inf
        self._starvation.limited(-math.inf, low)

    @property
    def connections(self) -> int:
        """The limit but for looks at the unloaded server, which need no other connections."""
        return max(self.limit, int(self._level))

    def ceiling(self, now: float) -> int | None:
        """The limit above which connections starved in the last 10 minutes, if any did."""
        return self._starvation.ceiling(now)

    def replied(self, now: float, seconds: float, in_flight: int) -> None:
        """Take in one create that succeeded in `seconds`, with so many in flight at its end."""
        if self._fixed:
            return
        if self._starvation.shows(seconds, self._calm, self._unloaded.base):
            self._starved(now, now - seconds)
            return
        # What began under another limit tells of that one.
        if now - seconds < self._since or now < self._from:
            return
        self._window.add(now, seconds, in_flight)
        if self._looking:
            exact = EXACT if self._unloaded.measured else FIRST
            if self._is_quick() or self._window.closed(now, *exact):
                self._learn(now)
        elif self._window.closed(now, self._needed(), 0.15 if self._ramp else 0.08):
            self._judge(now)

    def overloaded(self, now: float) -> None:
        """Take in one call that the server could not serve: 5xx, 429, or no answer in time."""
        if self._fixed:
            return
        pause = max(1.0, 3 * self._unloaded.measured)
        self._hold_until = max(self._hold_until, now + 2 * pause)
        if now >= self._cut_until:
            self._cut_until = now + pause
            self._fall(now, self._level * CUT)

    def reopen(self, now: float) -> None:
        """Go on at half of the limit, after an outage."""
        self._fall(now, self._level / 2)

    def _is_quick(self) -> bool:
        """Tell whether the first replies came at once; then there is no need for steps."""
        window = self._window
        if self._unloaded.measured or len(window.times) < 8 or window.median >= QUICK / 2:  # noqa: PLR2004
            return False
        self._level = max(self._level, float(min(SAFE, self.high)))
        return True

    def _needed(self) -> int:
        """Replies to judge by: the more is at stake, the more of them."""
        if self._ramp:
            return STEP * self.limit
        return max(64 if self._level >= SAFE else 24, 3 * self.limit)

    def _judge(self, now: float) -> None:
        window, unloaded = self._window, self._unloaded
        self._calm = window.median
        mean = window.mean
        if mean < 0.7 * unloaded.measured and not self._ramp:
            unloaded.learn(window.times, anew=True)
        elif self._level == 1 or (self._ramp and self._level <= FEW and self._is_calm(mean)):
            unloaded.learn(window.times)
        self._last = mean
        ratio = mean / unloaded.base
        queue = window.in_flight * (1 - 1 / ratio)
        tail = window.tail / unloaded.tail
        if self._failed(now):
            return
        if self._has_room(now, queue, tail):
            self._grow(now, ratio)
        elif self._is_full(queue, tail, ratio):
            self._level_off(now)
            self._move(now, self._level - max(1.0, (queue - _bound(SHRINK, self._level)) / 2))
        else:
            self._level_off(now)
            self._look(now, ratio)
        self._fresh = False

    def _is_calm(self, mean: float) -> bool:
        """Tell whether nothing waits: it takes no longer than alone, or than with fewer."""
        return mean < max(ROOMY * self._unloaded.base, 1.08 * self._last)

    def _has_room(self, now: float, queue: float, tail: float) -> bool:
        used = self._window.in_flight >= 0.8 * self.limit
        room = queue < _bound(GROW, self._level) and tail <= LONGER
        return used and room and now >= self._hold_until and self._level < self._top(now)

    def _is_full(self, queue: float, tail: float, ratio: float) -> bool:
        # Of two, one is served and one on its way: that is no queue.
        if self._level < 3:  # noqa: PLR2004
            return False
        return queue > _bound(SHRINK, self._level) or (tail > BURST and ratio > NEARLY)

    def _grow(self, now: float, ratio: float) -> None:
        level = self._level
        wider = max(level + max(1.0, math.sqrt(level) / 2), level * min(2.0, AIM / ratio))
        if ratio < (NEARLY if self._ramp and level < SAFE else ROOMY):
            wider = max(wider, level * (2.0 if self._ramp else 1.5))
        for stop in (SAFE, POD, BEYOND):
            if level < stop < wider:
                wider = float(stop)
        if wider > POD and not self._may_cross(now, ratio):
            self._level_off(now)
            self._look(now, ratio)
            return
        if wider > SAFE:
            self._trial = _Trial(level, self._window.goodput)
        self._move(now, min(wider, self._top(now)))

    def _may_cross(self, now: float, ratio: float) -> bool:
        """Tell whether more than a default pod's connections are of use; else look again."""
        if self._crossed or ((self._fresh or self._ramp) and ratio < ROOMY):
            return True
        if now >= self._ask_at and ratio < NEARLY:
            self._ask_at = now + self._again
            self._again = min(PATIENCE[1], 2 * self._again)
            self._look_at = min(self._look_at, now)
        return False

    def _failed(self, now: float) -> bool:
        """Tell whether more in flight brought no more a second, having gone back if so."""
        if self._trial is None:
            return False
        trial, self._trial = self._trial, None
        gain = GAIN * (self._level / trial.level - 1) - 2 * self._window.error
        if self._window.goodput >= trial.goodput * (1 + gain):
            self._patience = PATIENCE[0]
            self._crossed = self._crossed or self._level > POD + 1
            return False
        self._level_off(now)
        self._hold_until = now + self._patience
        self._patience = min(PATIENCE[1], 2 * self._patience)
        # So many in flight make that many a second with the queue aimed at.
        useful = AIM * self._window.goodput * self._unloaded.measured
        self._move(now, max(trial.level, min(useful, self._level)))
        return True

    def _level_off(self, now: float) -> None:
        """End the first steps, of which each told little, with a look that tells more."""
        if self._ramp:
            self._ramp = False
            self._look_at = min(self._look_at, now)

    def _look(self, now: float, ratio: float) -> None:
        """Begin a look at the unloaded time when it is due, else a new window."""
        few = max(self.low, int(LOOKING * self._level / max(1.0, ratio)), 1)
        if now >= self._look_at and few < self.limit:
            self._looking = True
            self._set(now, few)
        else:
            self._window.clear(self._unloaded.longest)

    def _learn(self, now: float) -> None:
        window, before = self._window, self._unloaded.measured
        found = window.mean
        same = before > 0 and abs(found / before - 1) < max(0.25, 3 * window.error)
        self._unloaded.learn(window.times, anew=not (same and self._exact))
        self._exact = before > 0
        self._look_at = now + LOOKS[0 if not before else 2 if same else 1]
        self._calm = window.median
        self._looking = False
        self._fresh = before > 0
        self._set(now, int(self._level))

    def _starved(self, now: float, began: float) -> None:
        self._starvation.met(now, began)
        if self._level > self._top(now):
            self._fall(now, self._top(now))

    def _top(self, now: float) -> float:
        ceiling = self._starvation.ceiling(now)
        return float(self.high if ceiling is None else max(self.low, min(self.high, ceiling)))

    def _fall(self, now: float, level: float) -> None:
        self._ramp = False
        self._trial = None
        # Before the unloaded time is known, the first look goes on.
        self._looking = self._looking and not self._unloaded.measured
        self._move(now, level)

    def _move(self, now: float, level: float) -> None:
        self._level = max(float(self.low), min(float(self.high), level))
        self._set(now, self.low if self._looking else int(self._level))

    def _set(self, now: float, limit: int) -> None:
        if limit != self.limit:
            self._since = now
            # The quick ones of a new number in flight come back first, and alone.
            self._from = now + 1.5 * min(self._calm, 1.0)
            self._starvation.limited(now, limit)
        self.limit = limit
        self._window.clear(self._unloaded.longest)


def _bound(bound: tuple[float, float], level: float) -> float:
    return max(bound[0], bound[1] * level)
