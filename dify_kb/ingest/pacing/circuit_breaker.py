"""Circuit breaker of a load: stop requests while the server fails, and probe it.

Every attempt of every call is recorded here. Callers wait here until they may send requests; no
other module probes the server.

| state | uploads | reads | transition |
|---|---|---|---|
| closed | allowed | allowed | failure budget exhausted, or a call gave up: open |
| closed | | | uploads time out while reads succeed: uploads blocked |
| closed | | | no upload succeeded for `max_outage` seconds: given up |
| uploads blocked | wait | allowed | an upload succeeded or was found, or the lock expired: closed |
| open | wait | wait | two consecutive probes succeeded: closed |
| open | | | no probe succeeded for `max_outage` seconds, or one was refused: given up |
| given up | wait | allowed | none: the load stops with `failure` |
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import anyio

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classification import (
    is_call_refusal,
    is_transient,
    stop_message,
    stop_reason,
)
from dify_kb.transport.clock import loop_time

from .upload_failures import CREATE_CALLS, GiveUpReason, UploadFailures

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dify_kb.config import LoadTiming
    from dify_kb.resources import Datasets
    from dify_kb.transport import AttemptEvent

MAX_TOKENS, FIRST_TOKENS, TOKENS_AFTER_OUTAGE = 40.0, 20.0, 10.0
"""Maximum tokens, tokens at the start and tokens after an outage. The maximum is low because
stopping and probing costs a load only two seconds."""

TOKENS_PER_RESPONSE: Final = 0.2
"""Tokens added per response: one failure in six responses is tolerated indefinitely."""

TOKENS_PER_SECOND: Final = 1.0
"""Tokens added per second, up to `FIRST_TOKENS`: a slow load tolerates one failure per second."""

BudgetFailureKind = Literal["failed", "timeout", "throttled"]

TOKENS_PER_FAILURE: Final[dict[BudgetFailureKind, float]] = {
    "failed": 1.0,
    "timeout": 2.0,
    "throttled": 0.5,
}
"""Tokens deducted per failure. A timeout costs most: the document may exist."""


class FailureBudget:
    """Token bucket: failures deduct tokens, responses and time add them. Methods take the time."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._last: float | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether no tokens are left, so that the server has to be probed."""
        return self._tokens <= 0

    def add_response(self, now: float) -> None:
        """Add tokens for a response, including refusals."""
        self._earn_by_time(now)
        self._tokens = min(MAX_TOKENS, self._tokens + TOKENS_PER_RESPONSE)

    def add_failure(self, now: float, kind: BudgetFailureKind) -> None:
        """Deduct tokens for a retryable failure."""
        self._earn_by_time(now)
        self._tokens = max(0.0, self._tokens - TOKENS_PER_FAILURE[kind])

    def reset_after_outage(self, now: float) -> None:
        """Reset the tokens after an outage, to half of their number in a new load."""
        self._last = now
        self._tokens = TOKENS_AFTER_OUTAGE

    def _earn_by_time(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * TOKENS_PER_SECOND
        self._last = now
        if self._tokens < FIRST_TOKENS:
            self._tokens = min(FIRST_TOKENS, self._tokens + earned)


OVERLOAD_DELAYS: Final = (0.5, 2.0, 60.0)
"""Seconds of delay after 429 or 503: the minimum, the maximum of the first delay, and the maximum
of any delay."""

MAX_RETRY_AFTER: Final = 300.0
"""Seconds. A longer `Retry-After` is reduced to this."""


class OverloadDelay:
    """Time until which no upload may start. Methods take the current time.

    Args:
        pace: the length of one second of `OVERLOAD_DELAYS`, in seconds; tests shorten it.
    """

    def __init__(self, random: Random, pace: float) -> None:
        self._random = random
        self._pace = pace
        self._overloads = 0
        self._until = -math.inf

    def remaining(self, now: float) -> float:
        """Return the seconds until an upload may start."""
        return max(0.0, self._until - now)

    def add(self, now: float, hint: float | None) -> None:
        """Delay uploads after an overload; `hint` is the server's `Retry-After` in seconds."""
        min_delay, first, longest = OVERLOAD_DELAYS
        bound = min(longest, first * 2.0 ** min(self._overloads, 16))
        seconds = self._random.uniform(min_delay, bound) * self._pace
        if hint is not None:
            seconds = max(seconds, min(hint, MAX_RETRY_AFTER)) * self._random.uniform(1.0, 1.1)
        if now >= self._until:
            self._overloads += 1
        self._until = max(self._until, now + seconds)

    def reset(self) -> None:
        """Reset the backoff after a successful upload."""
        self._overloads = 0


REQUIRED_PROBES: Final = 2
"""Consecutive probes that must succeed."""


async def probe_until_healthy(
    probe: Callable[[], Awaitable[KnowledgeError | None]], times: LoadTiming
) -> GiveUpReason | None:
    """Repeat a probe until it has succeeded `REQUIRED_PROBES` times in a row.

    Gives up immediately after a refusal (a revoked key stays revoked), and after retryable failures
    once they have lasted `max_outage` seconds.

    Returns:
        The reason to give up; None if the server has recovered.
    """
    wait, successes, since = times.probe_interval, 0, loop_time()
    while successes < REQUIRED_PROBES:
        await anyio.sleep(wait)
        error = await probe()
        if error is None:
            successes, wait = successes + 1, times.probe_interval
            continue
        successes, wait = 0, min(2 * wait, times.max_probe_interval)
        late = loop_time() - since > times.max_outage
        if late or not is_transient(error):
            return GiveUpReason(stop_reason(error), stop_message(error))
    return None


T = TypeVar("T")

MAX_READ_REFUSALS: Final = 2
"""Number of refusals of a read, while probes succeed, after which its error is raised."""

MIN_READS: Final = 3
"""Minimum attempts of a read, regardless of the time for which the server was down."""

_FAILURES: Final[dict[str, BudgetFailureKind]] = {
    "overload": "throttled", "timeout": "timeout", "unreachable": "failed", "failed": "failed",
}  # fmt: skip

DATASET_LOCKED: Final = (
    "the server has locked the dataset; after a crash of its API, the lock lasts up to 600 s"
)


class CircuitBreaker:
    """A circuit breaker that probes the server while it is open.

    `run` must be running while any task waits for the breaker. All times are in seconds of
    the event loop's clock.

    Args:
        datasets: the resource that sends the probes, without retries.
    """

    def __init__(
        self,
        datasets: Datasets,
        dataset_id: str,
        times: LoadTiming,
        random: Random | None = None,
    ) -> None:
        self._datasets = datasets
        self.dataset_id = dataset_id
        self._times = times
        self._budget = FailureBudget()
        self._overload = OverloadDelay(random or Random(), times.tuning_second)
        self._uploads = UploadFailures(times)
        self._changed = anyio.Event()
        self._open_cause: str | None = None
        self.failure: GiveUpReason | None = None
        """The reason to give up on the server; None before."""

        self.outages = 0
        """Number of times that the breaker has opened."""

        self.upload_succeeded_at = -math.inf
        """Time of the last successful upload."""

        self.resumed_at = -math.inf
        """Time when blocked uploads last resumed. Earlier uploads may have been stored then."""

    @property
    def is_open(self) -> bool:
        """Whether no requests except probes are allowed."""
        return self._open_cause is not None and self.failure is None

    @property
    def is_closed(self) -> bool:
        """Whether uploads are allowed."""
        return self._open_cause is None and not self.has_blocked_uploads and self.failure is None

    @property
    def has_blocked_uploads(self) -> bool:
        """Whether the server responds to reads but not to uploads."""
        return self._uploads.blocked_until is not None

    @property
    def cause(self) -> str:
        """Description of the failure; empty while the breaker is closed."""
        if self.failure is not None:
            return self.failure.message
        return self._open_cause or (DATASET_LOCKED if self.has_blocked_uploads else "")

    def overload_delay(self) -> float:
        """Return the seconds for which no upload may start after an overload of the server."""
        return self._overload.remaining(loop_time())

    def record(self, attempt: AttemptEvent) -> None:
        """Record a finished attempt of any call."""
        now = loop_time()
        if attempt.failure_kind is None and attempt.status is not None:
            self._budget.add_response(now / self._times.tuning_second)
            if attempt.endpoint in CREATE_CALLS and attempt.error is None:
                self.upload_succeeded_at = now
                self._overload.reset()
                self.record_stored_upload()
                return
        if self._uploads.record(now, attempt):
            self._notify_waiters()
        failure = _FAILURES.get(attempt.failure_kind or "")
        if failure is None:  # a rate limit is not a failure of the server
            return
        self._budget.add_failure(now / self._times.tuning_second, failure)
        if failure == "throttled":
            self._overload.add(now, attempt.retry_after)
        if self._budget.is_exhausted:
            self.trip(attempt.error or "no response")

    def trip(self, cause: KnowledgeError | str) -> None:
        """Open the breaker: a call failed after all its attempts, or too many calls failed."""
        if self._open_cause is None and self.failure is None:
            self._open_cause = cause.summary if isinstance(cause, KnowledgeError) else cause
            self.outages += 1
            self._notify_waiters()

    def record_stored_upload(self) -> None:
        """Record that the server has stored an upload, such as one whose response was lost."""
        if self._uploads.record_stored_upload():
            self.resumed_at = loop_time()
            self._notify_waiters()

    async def wait_readable(self) -> None:
        """Wait until reads are allowed. Returns immediately once the breaker has given up."""
        while self.is_open:
            await self._changed.wait()

    async def wait_closed(self) -> None:
        """Wait until uploads are allowed. Returns immediately once the breaker has given up."""
        while not self.is_closed and self.failure is None:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until the breaker opens, closes or gives up."""
        await self._changed.wait()

    async def read(self, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat an idempotent request until it succeeds; wait while the server is down.

        Raises:
            KnowledgeError: the request was refused while probes succeeded, failed for `max_outage`
                seconds, or the breaker has given up.
        """
        since, reads, refusals = loop_time(), 0, 0
        while True:
            await self.wait_readable()
            try:
                return await request()
            except KnowledgeError as error:
                reads, refusals = reads + 1, refusals + (not is_transient(error))
                late = loop_time() - since > self._times.max_outage and reads >= MIN_READS
                refused = is_call_refusal(error) or refusals >= MAX_READ_REFUSALS
                if self.failure is not None or refused or late:
                    raise
                self.trip(error)

    async def probe(self) -> KnowledgeError | None:
        """Request the dataset once; return the error, if any."""
        try:
            await self._datasets.get(self.dataset_id)
        except KnowledgeError as error:
            return error
        return None

    async def run(self) -> GiveUpReason:
        """Probe the server while the breaker is open; return once it has given up."""
        while self.failure is None:
            if self._open_cause is not None:
                began = loop_time()
                self.failure = await probe_until_healthy(self.probe, self._times)
                self._open_cause = None
                self._uploads.exclude_outage(began)
                self._budget.reset_after_outage(loop_time() / self._times.tuning_second)
                self._notify_waiters()
                continue
            changed, until = self._changed, self._uploads.blocked_until
            with anyio.move_on_at(math.inf if until is None else until):
                await changed.wait()
            if self._uploads.end_lock(loop_time()):
                self.resumed_at = loop_time()
                self._notify_waiters()
        return self.failure

    def _notify_waiters(self) -> None:
        """Wake all waiting tasks, which then check the state again."""
        if self._open_cause is None:  # while it is open, only the probes decide
            self.failure = self.failure or self._uploads.failure
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
