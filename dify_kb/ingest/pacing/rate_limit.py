"""Limit the calls a minute to a stated rate, or to one that is learned from refusals.

Dify's cloud counts the calls of a workspace over a sliding 60 s window, refused ones too, and
answers what is beyond its plan with 403 and no hint (measured on 1.12.1). The same window is kept
here. At the first refusal it shows the limit: what was accepted in the last minute. From then on no
call starts before the window has room. A call leaves it a minute after its *reply*, which is
never too early, as the server counted it before.
"""

from __future__ import annotations

import math
import re
from collections import deque
from typing import TYPE_CHECKING, Self

from attrs import frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from random import Random

WINDOW = 60.0
"""Seconds over which Dify counts calls."""

REFUSAL_PAUSE = (5.0, 8.0)
"""Seconds without a call after a refusal, drawn between the two."""

SPREAD = 0.9
"""Calls of a learned limit are spread over so much of the window, not sent in one burst."""

SLACK = (0.05, 0.02)
"""A stated rate is kept over a time longer by so many seconds, or by such a part of it if that is
more: a call may take longer to arrive than a later one.
"""

TIMER_DELAY = 0.01
"""Seconds by which a call may start late, as timers do, and the next is still in time."""

MIN_CUT_FACTOR = 0.85
"""The least part that one refusal leaves of a limit that was learned or stated."""

GROWTH = 0.03
"""The part by which a learned limit is raised after `PATIENCE` seconds without a refusal."""

PATIENCE = (60.0, 600.0)
"""Seconds until a learned limit is raised; doubled, up to the second, when that was refused."""

MIN_WINDOW = 10.0
"""Seconds. A stated rate per less than that is kept by even spacing alone."""

_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0}
_UNITS |= {"h": 3600.0, "hour": 3600.0}
_RATE = re.compile(r"\s*(\d+)\s*/\s*([a-z]+)\s*")


@frozen
class Rate:
    """A number of calls in a number of seconds."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `100/min`, `5/s` or `1000/h`.

        Raises:
            ConfigError: the text is not a rate.
        """
        match = _RATE.fullmatch(text.lower())
        if match is None or match[2] not in _UNITS or int(match[1]) < 1:
            raise ConfigError(
                f"Invalid rate {text!r}: expected N/s, N/min or N/h.",
                hint="Examples: 100/min, 5/s, 1000/h.",
            )
        return cls(int(match[1]), _UNITS[match[2]])


class RateLimiter:
    """The time at which the next call may start. The clock is an argument; so is chance."""

    def __init__(self, rate: Rate | None, random: Random) -> None:
        self._stated = rate
        self._random = random
        self._seconds = rate.seconds if rate else WINDOW
        self._cap = rate.count if rate else None
        self._is_paced = self._seconds < MIN_WINDOW
        self._window: deque[tuple[float, bool]] = deque()
        self._accepted = 0
        self._pending = 0
        self._next = -math.inf
        self._closed_until = -math.inf
        self._learning = False
        self._known = 0
        self._step = 1.0
        self._patience = PATIENCE[0]
        self._raise_at = math.inf
        self._raised = False
        self._bound = False

    @property
    def limit(self) -> float | None:
        """Calls in a window as stated or learned; None while nothing was refused."""
        return self._cap

    def next_start(self, now: float) -> float:
        """Return when the next call may start; infinite when that depends on a reply."""
        self._forget(now)
        if self._cap is None:
            return self._closed_until
        if now >= self._raise_at:
            self._grow(now)
        when = max(self._closed_until, self._next)
        over = len(self._window) + self._pending - self._cap
        if over < 0 or self._is_paced:
            return when
        self._bound = True
        return max(when, self._window[over][0]) if over < len(self._window) else math.inf

    def record_start(self, now: float) -> None:
        """Record a call that begins."""
        self._pending += 1
        self._learning = False
        if self._cap is not None:
            interval = self._interval(self._cap)
            late = TIMER_DELAY if self._stated else interval
            self._next = max(self._next, now - late) + interval

    def record_accepted(self, now: float, *, started: bool = True) -> None:
        """Record a call that was not refused for its rate, whatever else became of it.

        Args:
            started: its start was recorded; other calls count on the server too.
        """
        self._pending = max(0, self._pending - started)
        self._enter(now, accepted=True)
        # It began before the refusal, and was counted before: refusals are answered sooner.
        if started and self._learning and self._cap is not None:
            self._cap += 1

    def record_refused(self, now: float, *, started: bool = True) -> None:
        """Record a call that was refused because there were too many."""
        self._pending = max(0, self._pending - started)
        self._forget(now)
        self._enter(now, accepted=False)
        if now < self._closed_until:
            return
        if self._is_paced:
            self._closed_until = now + self._seconds * self._random.uniform(1, 2)
            return
        self._closed_until = now + self._random.uniform(*REFUSAL_PAUSE)
        self._learn(now)

    def cancel_start(self) -> None:
        """Forget a start whose call was never sent."""
        self._pending = max(0, self._pending - 1)

    def _interval(self, cap: int) -> float:
        if self._stated:
            return (self._seconds + max(SLACK[0], SLACK[1] * self._seconds)) / cap
        return SPREAD * self._seconds / cap

    def _learn(self, now: float) -> None:
        # Less may have been accepted only because nothing was sent after the last refusal.
        least = 1 if self._cap is None else int(MIN_CUT_FACTOR * self._cap)
        before, self._cap = self._cap or 0, max(1, least, self._accepted)
        self._learning = least <= self._accepted
        self._step = GROWTH
        if self._raised:
            self._patience = min(PATIENCE[1], 2 * self._patience)
            self._known = self._cap
        elif self._cap < before:
            self._patience = PATIENCE[0]
            self._known = max(self._known, before)
        self._raised = False
        self._bound = False
        self._raise_at = now + self._seconds + self._patience

    def _grow(self, now: float) -> None:
        """Raise the limit, unless it has not been reached since it was last."""
        # One window shows whether a raise was taken; only after refusals more patience is due.
        self._raise_at = now + PATIENCE[0]
        if not self._bound or self._cap is None:
            return
        self._bound = False
        self._raised = True
        self._cap += max(1, int(self._step * self._cap), (self._known - self._cap) // 3)
        self._step = min(0.25, 2 * self._step)
        if self._stated and self._cap >= self._stated.count:
            self._cap, self._raise_at = self._stated.count, math.inf

    def _enter(self, now: float, *, accepted: bool) -> None:
        self._window.append((now + self._seconds, accepted))
        self._accepted += accepted

    def _forget(self, now: float) -> None:
        window = self._window
        while window and window[0][0] <= now:
            self._accepted -= window.popleft()[1]
