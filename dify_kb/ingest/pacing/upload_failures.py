"""Detect uploads that fail for too long, or are blocked by Dify's dataset lock.

If an API process of Dify is killed while it creates a document, its Redis lock blocks all creates
in that dataset for up to 600 s, while reads succeed immediately (measured on 1.4.3 and 1.14.2).
Requests that wait for the lock are carried out when it expires and must not be retried before.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.ingest.report import StopReason
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from dify_kb.config import LoadTiming
    from dify_kb.transport import AttemptEvent

CREATE_CALLS: Final = frozenset({
    catalog.CREATE_DOCUMENT_BY_FILE.name, catalog.CREATE_DOCUMENT_BY_TEXT.name,
})  # fmt: skip

MIN_TIMEOUTS: Final = 2
"""Consecutive timeouts of uploads, while reads succeed, before uploads count as blocked."""

PROXY_TIMEOUT: Final = 10.0
"""Seconds. A later 504 is the timeout of a proxy; the server may still be handling the request."""

MIN_FAILURES: Final = 5
"""Minimum consecutive failures before the load gives up. A load with a full backlog sends few
uploads, so that a single failure could otherwise span many minutes."""


class UploadFailures:
    """Health of uploads, derived from the attempts of all calls. Methods take the current time.

    The `record` methods return whether `blocked_until` or `failure` changed.
    """

    def __init__(self, times: LoadTiming) -> None:
        self._times = times
        self._blocks = 0
        self._timeouts = 0
        self._timed_out_since = math.inf
        self._failures = 0
        self._failing_since = math.inf
        self._other_failed_at = -math.inf
        self.blocked_until: float | None = None
        """When the dataset lock expires; None while uploads are not blocked."""

        self.failure: GiveUpReason | None = None
        """The reason to give up on the server; None before."""

    def record(self, now: float, attempt: AttemptEvent) -> bool:
        """Record an attempt of any call except a successful upload."""
        if attempt.endpoint in CREATE_CALLS:
            return attempt.failure_kind is not None and self._record_failure(now, attempt)
        if attempt.failure_kind is None:
            return attempt.status is not None and self._record_response(now)
        if (
            attempt.failure_kind != "quota"
        ):  # all calls fail, so that a dataset lock is not the cause
            self._forget_timeouts()
            self._other_failed_at = now
        return False

    def record_stored_upload(self) -> bool:
        """Record an upload that the server has stored."""
        self._blocks = self._failures = 0
        self._failing_since = math.inf
        return self._unblock()

    def end_lock(self, now: float) -> bool:
        """Unblock uploads if the lock has expired."""
        if self.blocked_until is None or now < self.blocked_until:
            return False
        self._failures, self._failing_since = 0, math.inf
        return self._unblock()

    def exclude_outage(self, began: float) -> None:
        """Exclude the time from `began` to the last failed probe from the duration of failures."""
        self._failing_since += max(0.0, self._other_failed_at - began)

    def _record_failure(self, now: float, attempt: AttemptEvent) -> bool:
        sent = now - attempt.seconds
        if not _is_timeout(attempt):
            self._forget_timeouts()
        elif sent >= self._other_failed_at:
            self._timeouts += 1
            self._timed_out_since = min(self._timed_out_since, sent)
        self._failures += 1
        self._failing_since = min(self._failing_since, now)
        late = now - self._failing_since > self._times.max_outage
        if not late or self._failures < MIN_FAILURES or self.blocked_until is not None:
            return False
        limited = attempt.failure_kind == "quota" or attempt.status == HTTPStatus.TOO_MANY_REQUESTS
        reason = StopReason.RATE_LIMIT if limited else StopReason.OUTAGE
        self.failure = GiveUpReason(
            reason, attempt.error or "all uploads failed without a response"
        )
        return True

    def _record_response(self, now: float) -> bool:
        if self._timeouts < MIN_TIMEOUTS or self.blocked_until is not None:
            return False
        self._blocks += 1
        if self._blocks > 1:  # the lock has expired, and still no upload succeeded
            self.failure = GiveUpReason(
                StopReason.OUTAGE,
                "the server responds to reads but not to uploads,"
                " and no dataset lock lasts that long",
            )
        else:
            self.blocked_until = max(now, self._timed_out_since + self._times.dataset_lock_time)
        return True

    def _unblock(self) -> bool:
        blocked, self.blocked_until = self.blocked_until is not None, None
        self._forget_timeouts()
        return blocked

    def _forget_timeouts(self) -> None:
        self._timeouts, self._timed_out_since = 0, math.inf


def _is_timeout(attempt: AttemptEvent) -> bool:
    proxy = attempt.status == HTTPStatus.GATEWAY_TIMEOUT and attempt.seconds > PROXY_TIMEOUT
    return attempt.failure_kind == "timeout" or proxy


@frozen
class GiveUpReason:
    """The stop reason of a load whose circuit breaker has given up on the server."""

    reason: StopReason
    message: str
