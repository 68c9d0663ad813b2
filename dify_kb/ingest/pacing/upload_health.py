"""Detect uploads that a server does not answer although it answers everything else.

When an API process of Dify is killed while it creates a document, its Redis lock blocks every
create of that dataset for up to 600 s, while reads are answered at once (measured on 1.4.3 and
1.14.2). Requests that wait for the lock land when it ends, so nothing may be sent again before.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from dify_kb.ingest.report import StopReason
from dify_kb.wire import catalog

from .gave_up import GaveUp

if TYPE_CHECKING:
    from dify_kb.config import Loading
    from dify_kb.transport import Attempted

CREATES: Final = frozenset({
    catalog.CREATE_DOCUMENT_BY_FILE.name, catalog.CREATE_DOCUMENT_BY_TEXT.name,
})  # fmt: skip

TIMEOUTS: Final = 2
"""Uploads in a row that time out, while reads are answered, before uploads count as blocked."""

PROXY_TIMEOUT: Final = 10.0
"""Seconds. A 504 after more than that is a timeout of a proxy, whose server still works on it."""

LEAST_FAILURES: Final = 5
"""Failures in a row before uploads are given up: a load that waits for room in its backlog sends an
upload now and then, so that a single failure would stand for many minutes."""


class UploadHealth:
    """Whether uploads are answered, as seen by the attempts of all calls. The clock is an argument.

    Methods that record return whether `blocked_until` or `failure` changed.
    """

    def __init__(self, times: Loading) -> None:
        self._times = times
        self._blocks = 0
        self._timeouts = 0
        self._timed_out_since = math.inf
        self._failures = 0
        self._failing_since = math.inf
        self._other_failed_at = -math.inf
        self.blocked_until: float | None = None
        """When a lock of the dataset ends, while uploads are blocked by it."""

        self.failure: GaveUp | None = None
        """Set once uploads were given up."""

    def record(self, now: float, attempt: Attempted) -> bool:
        """Record an attempt of any call but an upload that was answered."""
        if attempt.endpoint in CREATES:
            return attempt.trouble is not None and self._record_failure(now, attempt)
        if attempt.trouble is None:
            return attempt.status is not None and self._record_reply(now)
        if attempt.trouble != "quota":  # the server fails altogether: that is not a lock
            self._forget_timeouts()
            self._other_failed_at = now
        return False

    def record_landed(self) -> bool:
        """Record an upload that the server has."""
        self._blocks = self._failures = 0
        self._failing_since = math.inf
        return self._unblock()

    def end_lock(self, now: float) -> bool:
        """Let uploads go on if the time of the lock is over."""
        if self.blocked_until is None or now < self.blocked_until:
            return False
        self._failures, self._failing_since = 0, math.inf
        return self._unblock()

    def exclude_outage(self, began: float) -> None:
        """Do not count the time from `began` to the last failed probe as one of failing uploads."""
        self._failing_since += max(0.0, self._other_failed_at - began)

    def _record_failure(self, now: float, attempt: Attempted) -> bool:
        sent = now - attempt.seconds
        if not _is_timeout(attempt):
            self._forget_timeouts()
        elif sent >= self._other_failed_at:
            self._timeouts += 1
            self._timed_out_since = min(self._timed_out_since, sent)
        self._failures += 1
        self._failing_since = min(self._failing_since, now)
        late = now - self._failing_since > self._times.outage
        if not late or self._failures < LEAST_FAILURES or self.blocked_until is not None:
            return False
        limited = attempt.trouble == "quota" or attempt.status == HTTPStatus.TOO_MANY_REQUESTS
        reason = StopReason.RATE_LIMIT if limited else StopReason.OUTAGE
        self.failure = GaveUp(reason, attempt.error or "no upload was answered")
        return True

    def _record_reply(self, now: float) -> bool:
        if self._timeouts < TIMEOUTS or self.blocked_until is not None:
            return False
        self._blocks += 1
        if self._blocks > 1:  # the lock is over, and no upload was answered since
            self.failure = GaveUp(
                StopReason.OUTAGE, "the server answers reads, but no upload, longer than a lock"
            )
        else:
            self.blocked_until = max(now, self._timed_out_since + self._times.dataset_lock)
        return True

    def _unblock(self) -> bool:
        blocked, self.blocked_until = self.blocked_until is not None, None
        self._forget_timeouts()
        return blocked

    def _forget_timeouts(self) -> None:
        self._timeouts, self._timed_out_since = 0, math.inf


def _is_timeout(attempt: Attempted) -> bool:
    proxy = attempt.status == HTTPStatus.GATEWAY_TIMEOUT and attempt.seconds > PROXY_TIMEOUT
    return attempt.trouble == "timeout" or proxy
