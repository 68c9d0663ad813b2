"""The event passed to listeners after each attempt at a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen

FailureKind = Literal["quota", "overload", "timeout", "unreachable", "failed"]
"""The kind of a failure of the server: rate limit per minute (Dify's 403), overload (429, 503),
timeout, unreachable, and any other failure (5xx, lost connection)."""


@frozen(kw_only=True)
class AttemptEvent:
    """The result of one attempt at a request. All times are in seconds.

    `status` is None without a response; `retry_in` is None after the last attempt. `seconds` is
    the duration of the attempt, `server_seconds` the part of it from the last byte sent to the
    response headers (None: no response). `failure_kind` is None for a success, and for an error
    that concerns only this request. `retry_after` is the delay that the server requested. `date` is
    the response's `Date` header: the time of the server, in whole seconds.
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
    date: str | None = None


OnAttempt = Callable[[AttemptEvent], None]
"""A callback after each attempt; called in the loop thread, must not block."""
