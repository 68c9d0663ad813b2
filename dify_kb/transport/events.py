"""What the transport tells a listener."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen(kw_only=True)
class Attempted:
    """One attempt ended. `status` is None when no reply came; `retry_in` when it was the last."""

    endpoint: str
    attempt: int
    status: int | None
    seconds: float
    retry_in: float | None
    error: str | None


OnAttempt = Callable[[Attempted], None]
"""Called in the loop thread after each attempt; must return at once."""
