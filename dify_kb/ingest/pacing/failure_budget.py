"""Decide how many failed requests are tolerated before the server has to be probed."""

from __future__ import annotations

from typing import Final, Literal

MOST_TOKENS, FIRST_TOKENS, TOKENS_AFTER_OUTAGE = 40.0, 20.0, 10.0
"""Tokens: the most that are saved up, those of a new load, and those after an outage. To stop and
probe costs a load two seconds, so that there is no need to save more."""

EARNED_BY_REPLY: Final = 0.2
"""Tokens for a reply: one failure in six replies is sustained."""

EARNED_BY_SECOND: Final = 1.0
"""Tokens that come with time, up to `FIRST_TOKENS`: a slow load outlives a failure a second."""

FailureKind = Literal["failed", "timeout", "throttled"]

COST: Final[dict[FailureKind, float]] = {"failed": 1.0, "timeout": 2.0, "throttled": 0.5}
"""Tokens. A timeout costs most: it leaves open whether the document exists."""


class FailureBudget:
    """Tokens that failures cost and replies earn. The clock is an argument."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._last: float | None = None

    @property
    def is_spent(self) -> bool:
        """Whether so much failed that the server has to be probed."""
        return self._tokens <= 0

    def add_reply(self, now: float) -> None:
        """Earn tokens for a reply, also for one that refuses the call."""
        self._earn_by_time(now)
        self._tokens = min(MOST_TOKENS, self._tokens + EARNED_BY_REPLY)

    def add_failure(self, now: float, kind: FailureKind) -> None:
        """Pay tokens for a failure that another attempt may not meet."""
        self._earn_by_time(now)
        self._tokens = max(0.0, self._tokens - COST[kind])

    def renew(self, now: float) -> None:
        """Begin again after an outage, with half of what a new load has."""
        self._last = now
        self._tokens = TOKENS_AFTER_OUTAGE

    def _earn_by_time(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * EARNED_BY_SECOND
        self._last = now
        if self._tokens < FIRST_TOKENS:
            self._tokens = min(FIRST_TOKENS, self._tokens + earned)
