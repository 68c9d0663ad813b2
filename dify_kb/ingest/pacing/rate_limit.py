"""Limit the rate of calls to a configured rate, or to a rate learned from refusals.

Dify's cloud counts the calls of a workspace over a sliding 60 s window, including refused ones, and
refuses calls beyond its plan with 403 and no `Retry-After` (measured on 1.12.1). This module keeps
the same window. At the first refusal, the limit is set to the number of calls accepted in the last
minute; from then on, no call starts while the window is full. A call leaves the window a minute
after its *response*, which is never too early because the server counted the call before that.
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
"""Seconds without a call after a refusal: the bounds of a random value."""

JITTER = 0.9
"""Fraction of the window over which the calls of a learned limit are spread, to avoid bursts."""

SLACK = (0.05, 0.02)
"""Extension of the window of a configured rate, in seconds and as a fraction of it (the larger
value applies): calls may arrive at the server in a different order.
"""

TIMER_DELAY = 0.01
"""Seconds by which a timer may be late without delaying the next call."""

MIN_CUT_FACTOR = 0.85
"""Minimum factor that one refusal applies to a learned or configured limit."""

GROWTH_FACTOR = 0.03
"""Relative increase of a learned limit after `GROWTH_DELAY` seconds without a refusal."""

GROWTH_DELAY = (60.0, 600.0)
"""Seconds until a learned limit is raised: the minimum and the maximum. The delay doubles whenever
a call is refused under a raised limit."""

MIN_WINDOW = 10.0
"""Minimum period, in seconds, for which calls are counted. A configured rate with a shorter period
is enforced only by even spacing."""

_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0}
_UNITS |= {"h": 3600.0, "hour": 3600.0}
_RATE = re.compile(r"\s*(\d{1,12})\s*/\s*([a-z]+)\s*", re.ASCII)


@frozen
class Rate:
    """A number of calls in a number of seconds."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, value: str | float) -> Self:
        """Parse `100/min`, `5/s` or `1000/h`; a number counts calls per second.

        Raises:
            ConfigError: the text is not a valid rate, or the number is not positive.
        """
        if not isinstance(value, str):
            # 0.5 per second is one call in 2 s: a limit counts whole calls.
            if not 0 < value < math.inf:
                raise _rate_error(value)
            return cls(int(value), 1.0) if value == int(value) else cls(1, 1 / value)
        match = _RATE.fullmatch(value.lower())
        if match is None or match[2] not in _UNITS or int(match[1]) < 1:
            raise _rate_error(value)
        return cls(int(match[1]), _UNITS[match[2]])


def _rate_error(value: object) -> ConfigError:
    return ConfigError(
        f"Invalid rate {value!r}: expected N/s, N/min or N/h.",
        hint="Pass 100/min, 5/s or 1000/h.",
    )


class RateLimiter:
    """Sliding-window rate limiter. Methods take the current time."""

    def __init__(self, rate: Rate | None, random: Random) -> None:
        self._configured = rate
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
        self._patience = GROWTH_DELAY[0]
        self._raise_at = math.inf
        self._raised = False
        self._bound = False

    @property
    def limit(self) -> float | None:
        """Maximum calls in a window, configured or learned; None before the first refusal."""
        return self._cap

    def next_start(self, now: float) -> float:
        """Return when the next call may start; infinity if a response has to arrive first."""
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
        """Record the start of a call."""
        self._pending += 1
        self._learning = False
        if self._cap is not None:
            interval = self._interval(self._cap)
            late = TIMER_DELAY if self._configured else interval
            self._next = max(self._next, now - late) + interval

    def record_accepted(self, now: float, *, started: bool = True) -> None:
        """Record a call that was not refused by the rate limit, successful or not.

        Args:
            started: whether its start was recorded. The server counts other calls as well.
        """
        self._pending = max(0, self._pending - started)
        self._enter(now, accepted=True)
        # The server counted this call before the refused call: refusals respond faster.
        if started and self._learning and self._cap is not None:
            self._cap += 1

    def record_refused(self, now: float, *, started: bool = True) -> None:
        """Record a call that was refused by the rate limit."""
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
        """Cancel a recorded start whose call was not sent."""
        self._pending = max(0, self._pending - 1)

    def _interval(self, cap: int) -> float:
        if self._configured:
            return (self._seconds + max(SLACK[0], SLACK[1] * self._seconds)) / cap
        return JITTER * self._seconds / cap

    def _learn(self, now: float) -> None:
        # Fewer calls may have been accepted only because of the pause after the last refusal.
        min_cap = 1 if self._cap is None else int(MIN_CUT_FACTOR * self._cap)
        before, self._cap = self._cap or 0, max(1, min_cap, self._accepted)
        self._learning = min_cap <= self._accepted
        self._step = GROWTH_FACTOR
        if self._raised:
            self._patience = min(GROWTH_DELAY[1], 2 * self._patience)
            self._known = self._cap
        elif self._cap < before:
            self._patience = GROWTH_DELAY[0]
            self._known = max(self._known, before)
        self._raised = False
        self._bound = False
        self._raise_at = now + self._seconds + self._patience

    def _grow(self, now: float) -> None:
        """Raise the limit if it was reached since the last change."""
        # One window shows whether the raised limit is accepted; only refusals lengthen the wait.
        self._raise_at = now + GROWTH_DELAY[0]
        if not self._bound or self._cap is None:
            return
        self._bound = False
        self._raised = True
        self._cap += max(1, int(self._step * self._cap), (self._known - self._cap) // 3)
        self._step = min(0.25, 2 * self._step)
        if self._configured and self._cap >= self._configured.count:
            self._cap, self._raise_at = self._configured.count, math.inf

    def _enter(self, now: float, *, accepted: bool) -> None:
        self._window.append((now + self._seconds, accepted))
        self._accepted += accepted

    def _forget(self, now: float) -> None:
        window = self._window
        while window and window[0][0] <= now:
            self._accepted -= window.popleft()[1]
