"""Limit failures by a token bucket: when it is empty, uploads stop and the server is probed."""

from __future__ import annotations

from typing import Final, Literal

MOST_TOKENS, FIRST_TOKENS, TOKENS_AFTER_OUTAGE = 40.0, 20.0, 10.0
"""Tokens: the maximum, the number at the start and the number after an outage. The maximum is low
because stopping and probing costs a load only two seconds."""

EARNED_BY_REPLY: Final = 0.2
"""Tokens added per reply: one failure in six replies is tolerated indefinitely."""

EARNED_BY_SECOND: Final = 1.0
"""Tokens added per second, up to `FIRST_TOKENS`: a slow load tolerates one failure per second."""

FailureKind = Literal["failed", "timeout", "throttled"]

COST: Final[dict[FailureKind, float]] = {"failed": 1.0, "timeout": 2.0, "throttled": 0.5}
"""Tokens deducted per failure. A timeout costs most: the document may exist."""


class FailureBudget:
    """Token bucket: failures deduct tokens, replies and time add them. Methods take the time."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._last: float | None = None

    @property
    def is_spent(self) -> bool:
        """Whether all tokens are spent, so that the server has to be probed."""
        return self._tokens <= 0

    def add_reply(self, now: float) -> None:
        """Add tokens for a reply, even one that refuses the call."""
        self._earn_by_time(now)
        self._tokens = min(MOST_TOKENS, self._tokens + EARNED_BY_REPLY)

    def add_failure(self, now: float, kind: FailureKind) -> None:
        """Deduct tokens for a retryable failure."""
        self._earn_by_time(now)
        self._tokens = max(0.0, self._tokens - COST[kind])

    def renew(self, now: float) -> None:
        """Reset the tokens after an outage, to half of those of a new load."""
        self._last = now
        self._tokens = TOKENS_AFTER_OUTAGE

    def _earn_by_time(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * EARNED_BY_SECOND
        self._last = now
        if self._tokens < FIRST_TOKENS:
            self._tokens = min(FIRST_TOKENS, self._tokens + earned)
