"""Record uploads and other counted calls in the rate limiter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.wire import catalog

from .upload_health import CREATES

if TYPE_CHECKING:
    from dify_kb.transport.events import Attempted

    from .rate_limit import RateLimiter

COUNTED = frozenset(
    endpoint.name
    for endpoint in catalog.ENDPOINTS
    if endpoint.method != "GET" and not endpoint.name.startswith("tags.")
) - {catalog.SET_DOCUMENT_STATUS.name}
"""Calls counted by Dify's rate limit: writes and retrieval (measured on 1.12.1)."""


class CountedCalls:
    """Adapter from attempts of calls to the rate limiter."""

    def __init__(self, rate: RateLimiter) -> None:
        self._rate = rate
        self._unanswered = 0

    def start_upload(self, now: float) -> None:
        """Record an admitted upload."""
        self._unanswered += 1
        self._rate.record_start(now)

    def end_upload(self, in_flight: int) -> None:
        """Record the end of an upload; `in_flight` is the number of those that continue."""
        if self._unanswered > in_flight:
            # It was not sent, or was cancelled: no attempt was recorded.
            self._unanswered -= 1
            self._rate.cancel_start()

    def record(self, now: float, attempt: Attempted) -> None:
        """Record an attempt of any call."""
        is_upload = attempt.endpoint in CREATES
        first = is_upload and attempt.attempt == 1 and self._unanswered > 0
        self._unanswered -= first
        arrived = attempt.status is not None or attempt.trouble in {"timeout", "failed"}
        if first and not arrived:
            self._rate.cancel_start()
        elif attempt.trouble == "quota":
            self._rate.record_refused(now, started=first)
        elif arrived and attempt.endpoint in COUNTED:
            self._rate.record_accepted(now, started=first)
