"""What the transport tells a listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen

FailureKind = Literal["quota", "overload", "timeout", "unreachable", "failed"]
"""What an error tells of the server: too many calls a minute (Dify's 403), too many at once (429,
503), no answer in time, not reached, and 5xx or a broken connection."""


@frozen(kw_only=True)
class AttemptEvent:
    """One attempt ended. `status` is None when no reply came; `retry_in` when it was the last.

    `seconds` is the whole attempt, `waited` the server's part of it: from the last byte of the
    body to the head of the reply (None: no reply). `trouble` is None for a success and where only
    this call was refused; `retry_after` is what the server asked for, in seconds.
    """

    endpoint: str
    attempt: int
    status: int | None
    seconds: float
    retry_in: float | None
    error: str | None
    server_seconds: float | None = None
    failure_kind: FailureKind | None = None
    retry_after: float | None = None


OnAttempt = Callable[[AttemptEvent], None]
"""Called in the loop thread after each attempt; must return at once."""
