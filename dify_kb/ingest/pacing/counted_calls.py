"""Count calls against the server's rate limit, those that were admitted and those that were not."""

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
"""Calls that Dify's limit counts: what writes, and retrieval (measured on 1.12.1)."""


class CountedCalls:
    """Records in a rate limiter what becomes of uploads that start, and of all other calls."""

    def __init__(self, rate: RateLimiter) -> None:
        self._rate = rate
        self._unanswered = 0

    def start_upload(self, now: float) -> None:
        """Record an upload that was admitted."""
        self._unanswered += 1
        self._rate.record_start(now)

    def end_upload(self, in_flight: int) -> None:
        """Record an upload that ended, while so many go on."""
        if self._unanswered > in_flight:
            # It was never sent, or cut off: no attempt was recorded.
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
