"""How many creates a server takes at once: grown while that brings more a second, and no longer.

One default process is full at 2 to 3 in flight; up to 8 buys only waiting (p95 times 9), and an
11th connection waits 5 s for one to be closed (measured on 1.4.3 and 1.12.1). Larger servers have
their knee higher, so it is looked for, by what is seen from outside:

| what a window of replies shows | what follows |
|---|---|
| hardly any queue: the mean is near the unloaded time | more: twice as many at first, then a few |
| more in flight, but not more a second | back to where it was, for a while |
| a queue, or a tail far beyond that of the unloaded server | fewer |
| one reply after seconds while the others are calm | a connection starves: two below, for 10 min |
| an overload: 5xx, 429, a timeout | 0.6 of it, at most once a second |
| half a minute went by | a short look with few in flight: what is the unloaded time now? |
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

from .window import Window, quantile

QUICK = 0.010
"""Seconds. A mean below it is no queue that anybody would feel: a server that answers at once is
measured mostly by the jitter of our own loop."""

SAFE = 7
"""Creates that need no proof of being of use: with the watcher, the 8 connections of a client."""

POD = 9
"""Creates that, with the watcher, fill the 10 connections of a default process."""

ROOMY = 1.13
"""Mean time by unloaded time under which there is no queue at all."""

CUT = 0.6
"""What an overload leaves of the limit."""

STARVED = 3.0
"""Seconds after which a reply among quick ones is that of a starved connection (they wait 5 s)."""

REMEMBERED = 600.0
"""Seconds for which a limit that starved connections is not met again."""

LEAST_STARVED = 4
"""A tail is not believed to starve connections at so few: every default process has 10, and
large files on slow storage have such tails too."""

AMIN, ALPHA, BMIN, BETA = 0.7, 0.3, 1.5, 0.45

PROBES = (10.0, 30.0, 60.0)
"""Seconds until the first look at the unloaded time, between looks, and while nothing changes."""


class Knee:
    """A limit for creates in flight between `low` and `high`; equal ones fix it.

    Fed with the time of each reply; the clock is an argument. It begins with a few replies at
    `low`, to learn the unloaded time, and goes on from `start`.
    """

    def __init__(self, low: int = 1, high: int = 64, start: int = 2) -> None:
        self.low, self.high = low, high
        self.limit = low
        self.ceiling: int | None = None
        """Above it connections starved; None when none did in the last 10 minutes."""
        self._fixed = low == high
        self._level = float(max(low, min(high, start)))
        self._base = 0.0
        self._calm = 0.0
        self._longest = math.inf
        self._unloaded: deque[float] = deque(maxlen=128)
        self._limits: deque[tuple[float, int]] = deque([(-math.inf, low)], maxlen=32)
        self._window = Window()
        self._since = self._from = -math.inf
        self._probing = True
        self._probe_at = math.inf
        self._ramp = True
        self._trial: tuple[float, float] | None = None
        self._hold_until = -math.inf
        self._patience = 5.0
        self._sure = self._looked = self._crossed = False
        self._cut_until = -math.inf
        self._ceiling_until = -math.inf

    @property
    def base(self) -> float:
        """Seconds of a reply of the unloaded server; 0 before it is known."""
        return self._base

    @property
    def connections(self) -> int:
        """The limit but for looks at the unloaded server, which need no other connections."""
        return max(self.limit, int(self._level))

    def replied(self, now: float, seconds: float, in_flight: int) -> None:
        """Take in one create that succeeded in `seconds`, with so many in flight at its end."""
        if self._fixed:
            return
        if self._starves(seconds):
            self._starved(now, now - seconds)
            return
        # What began under another limit tells of that one.
        if now - seconds < self._since or now < self._from:
            return
        window = self._window
        window.add(now, seconds, in_flight)
        if self._probing:
            if window.closed(now, 8, 0.06 if self._base else 0.12):
                self._learned(now)
        elif window.closed(now, self._needed(), 0.15 if self._ramp else 0.08):
            self._judge(now)

    def overloaded(self, now: float) -> None:
        """Take in one call that the server could not serve: 5xx, 429, or no answer in time."""
        if self._fixed:
            return
        pause = max(1.0, 3 * self._base)
        self._hold_until = max(self._hold_until, now + 2 * pause)
        if now < self._cut_until:
            return
        self._cut_until = now + pause
        self._ramp = self._probing = False
        self._trial = None
        self._move(now, self._level * CUT)

    def reopen(self, now: float) -> None:
        """Go on at half of the limit, after an outage."""
        self._ramp = self._probing = False
        self._move(now, self._level / 2)

    def _needed(self) -> int:
        if self._level >= SAFE:
            return max(64, 3 * self.limit)
        return 8 * self.limit if self._ramp else max(24, 3 * self.limit)

    def _judge(self, now: float) -> None:
        window = self._window
        self._calm = window.median
        mean = window.mean(self._longest)
        base = max(self._base, QUICK)
        if mean < 0.7 * self._base and not self._ramp:
            self._unloaded.clear()
            self._calibrate()
        elif self._level == 1 or (self._ramp and self._level <= 4 and mean < ROOMY * base):
            self._calibrate()
        base = max(self._base, QUICK)
        ratio = mean / base
        queue = window.in_flight * (1 - 1 / ratio)
        tail = window.tail / max(3 * base, quantile(sorted(self._unloaded), 0.95))
        if self._failed_trial(now):
            return
        if self._grows(now, queue, tail):
            self._grow(now, ratio)
        elif self._shrinks(queue, tail, ratio):
            bound = max(BMIN, BETA * self._level)
            self._ramp = False
            self._move(now, self._level - max(1.0, (queue - bound) / 2))
        else:
            self._ramp = False
            self._look(now, ratio)
        self._sure = False

    def _calibrate(self) -> None:
        self._unloaded.extend(self._window.times)
        ordered = sorted(self._unloaded)
        self._longest = 5 * max(quantile(ordered, 0.5), QUICK)
        self._base = sum(min(time, self._longest) for time in ordered) / len(ordered)

    def _grows(self, now: float, queue: float, tail: float) -> bool:
        used = self._window.in_flight >= 0.8 * self.limit
        room = queue < max(AMIN, ALPHA * self._level) and tail <= 2
        return used and room and now >= self._hold_until and self._level < self._top(now)

    def _shrinks(self, queue: float, tail: float, ratio: float) -> bool:
        if self._level < 3:  # noqa: PLR2004 -- one in service and one on its way are no queue
            return False
        return queue > max(BMIN, BETA * self._level) or (tail > 3 and ratio > 1.25)  # noqa: PLR2004

    def _grow(self, now: float, ratio: float) -> None:
        level, sure = self._level, self._sure
        wider = level + max(1.0, math.sqrt(level) / 2)
        wider = max(wider, level * 1.4 / ratio)
        if ratio < ROOMY:
            wider = max(wider, level * (2.0 if self._ramp else 1.5))
        for stop in (SAFE, POD):
            if level < stop < wider:
                wider = float(stop)
        if POD <= level < POD + 1 and not self._crossed and not (sure and ratio < ROOMY):
            if sure and ratio < 1.25:
                self._probe_at = min(self._probe_at, now + 5.0)
            elif not self._looked:
                self._probe_at = now
            self._look(now, ratio)
            return
        if wider > SAFE:
            self._trial = (level, self._window.goodput)
        self._move(now, min(wider, self._top(now)))

    def _failed_trial(self, now: float) -> bool:
        """Tell whether more in flight brought no more a second, having gone back if so."""
        if self._trial is None:
            return False
        (level, goodput), self._trial = self._trial, None
        gain = 0.3 * (self._level / level - 1) - self._window.error
        if self._window.goodput >= goodput * (1 + gain):
            self._patience = 5.0
            self._crossed = self._crossed or self._level > POD + 1
            return False
        self._ramp = False
        self._hold_until = now + self._patience
        self._patience = min(60.0, 2 * self._patience)
        self._move(now, level)
        return True

    def _look(self, now: float, ratio: float) -> None:
        """Begin a look at the unloaded time when it is due, else a new window."""
        few = max(self.low, int(0.5 * self._level / max(1.0, ratio)), 1)
        if now >= self._probe_at and few < self.limit:
            self._probing = True
            self._set(now, few)
            return
        self._window.clear()

    def _learned(self, now: float) -> None:
        found, before = self._window.mean(5 * self._window.median), self._base
        same = before > 0 and abs(found / before - 1) < 0.25  # noqa: PLR2004 -- within the noise
        if not same:
            self._unloaded.clear()
        self._calibrate()
        self._probe_at = now + (PROBES[0] if not before else PROBES[2] if same else PROBES[1])
        self._calm = self._window.median
        self._probing = False
        self._sure = self._looked = before > 0
        self._set(now, max(self.low, int(self._level)))

    def _starves(self, seconds: float) -> bool:
        if seconds <= STARVED or not self._base or seconds <= 20 * self._base:
            return False
        return self._calm < min(1.0, 5 * max(self._base, QUICK))

    def _starved(self, now: float, began: float) -> None:
        at, since = self._limit_at(began)
        if at <= LEAST_STARVED or (self.ceiling is not None and at <= self.ceiling):
            return
        if since < 0 and self.ceiling is not None:
            return
        least = max(self.low, LEAST_STARVED)
        self.ceiling = max(least, min(at - 2, int(0.8 * at)))
        self._ceiling_until = now + REMEMBERED
        self._ramp = False
        self._trial = None
        if self._level > self.ceiling:
            self._move(now, float(self.ceiling))

    def _limit_at(self, when: float) -> tuple[int, float]:
        for since, limit in islice(reversed(self._limits), None):
            if since <= when:
                return limit, since
        return self._limits[0][1], self._limits[0][0]

    def _top(self, now: float) -> float:
        if self.ceiling is not None and now >= self._ceiling_until:
            self.ceiling = None
        return float(self.high if self.ceiling is None else min(self.high, self.ceiling))

    def _move(self, now: float, level: float) -> None:
        self._level = max(float(self.low), min(float(self.high), level))
        self._set(now, int(self._level))

    def _set(self, now: float, limit: int) -> None:
        if limit != self.limit:
            self._since = now
            # The quick ones of a new number in flight come back first, and alone.
            self._from = now + 2 * self._calm
            self._limits.append((now, limit))
        self.limit = limit
        self._window.clear()
