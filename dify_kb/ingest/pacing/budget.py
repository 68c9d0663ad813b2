"""How much failing a load puts up with before it stops to ask whether the server is there."""

from __future__ import annotations

from typing import Literal

MOST, FIRST, AGAIN = 40.0, 20.0, 10.0
"""Tokens: the most that are saved up, those of a new load, and those after an outage. To stop and
ask costs a load two seconds, so that there is no need to save more (`benchmarks/pace.py`)."""

EARNED = 0.2
"""Tokens for a reply: one failure in six replies is sustained."""

PER_SECOND = 1.0
"""Tokens that come with time, up to `FIRST`: a slow load outlives a failure a second."""

Failure = Literal["failed", "timeout", "throttled"]

COST: dict[Failure, float] = {"failed": 1.0, "timeout": 2.0, "throttled": 0.5}
"""Tokens. A timeout costs most: it leaves open whether the document exists."""


class Budget:
    """Tokens of one host. Empty, it is `broken` until somebody has found the server mended."""

    def __init__(self) -> None:
        self._tokens = FIRST
        self._last: float | None = None
        self.broken = False

    def succeeded(self, now: float) -> None:
        """Take in a reply, were it a refusal of the call itself."""
        self._pass(now)
        self._tokens = min(MOST, self._tokens + EARNED)

    def failed(self, now: float, kind: Failure) -> None:
        """Take in a failure that another try may not meet."""
        self._pass(now)
        self._tokens = max(0.0, self._tokens - COST[kind])
        self.broken = self.broken or self._tokens <= 0

    def mended(self, now: float) -> None:
        """Begin again, with half of what a new load has."""
        self._last = now
        self._tokens = AGAIN
        self.broken = False

    def _pass(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * PER_SECOND
        self._last = now
        if self._tokens < FIRST:
            self._tokens = min(FIRST, self._tokens + earned)
