"""Hold the server's health during a load: the only place that knows whether requests may go out.

Every attempt of every call is recorded here. Whoever must not go on waits here; nobody else probes.

| state | uploads | reads | how it is left |
|---|---|---|---|
| closed | go out | go out | the failure budget is spent, or a call gave up: open |
| closed | | | uploads time out, reads are answered: uploads blocked |
| closed | | | no upload was answered for `outage` seconds: given up |
| uploads blocked | wait | go out | one is answered or has landed, or the lock is over: closed |
| open | wait | wait | two probes in a row are answered: closed |
| open | | | no probe is answered for `outage` seconds, or one is refused: given up |
| given up | wait | go out | never: the load stops with `failure` |
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import anyio

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classes import is_call_refusal, is_transient, stop_message, stop_reason
from dify_kb.transport.clock import loop_time

from .upload_health import CREATE_CALLS, GiveUpReason, UploadHealth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dify_kb.config import LoadTiming
    from dify_kb.resources import Datasets
    from dify_kb.transport import AttemptEvent

MAX_TOKENS, FIRST_TOKENS, TOKENS_AFTER_OUTAGE = 40.0, 20.0, 10.0
"""Tokens: the maximum, the number at the start and the number after an outage. The maximum is low
because stopping and probing costs a load only two seconds."""

TOKENS_PER_REPLY: Final = 0.2
"""Tokens added per reply: one failure in six replies is tolerated indefinitely."""

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
    """Token bucket: failures deduct tokens, replies and time add them. Methods take the time."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._last: float | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether all tokens are spent, so that the server has to be probed."""
        return self._tokens <= 0

    def add_reply(self, now: float) -> None:
        """Add tokens for a reply, even one that refuses the call."""
        self._earn_by_time(now)
        self._tokens = min(MAX_TOKENS, self._tokens + TOKENS_PER_REPLY)

    def add_failure(self, now: float, kind: BudgetFailureKind) -> None:
        """Deduct tokens for a retryable failure."""
        self._earn_by_time(now)
        self._tokens = max(0.0, self._tokens - TOKENS_PER_FAILURE[kind])

    def reset_after_outage(self, now: float) -> None:
        """Reset the tokens after an outage, to half of those of a new load."""
        self._last = now
        self._tokens = TOKENS_AFTER_OUTAGE

    def _earn_by_time(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * TOKENS_PER_SECOND
        self._last = now
        if self._tokens < FIRST_TOKENS:
            self._tokens = min(FIRST_TOKENS, self._tokens + earned)


OVERLOAD_DELAYS: Final = (0.5, 2.0, 60.0)
"""Seconds of delay after 429 or 503: the minimum, the maximum of the first, the maximum of all."""

MAX_RETRY_AFTER: Final = 300.0
"""Seconds. A longer `Retry-After` counts as this."""


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
        """Reset the backoff after an upload was answered."""
        self._overloads = 0


REQUIRED_PROBES: Final = 2
"""Consecutive probes that must be answered."""


async def probe_until_answered(
    probe: Callable[[], Awaitable[KnowledgeError | None]], times: LoadTiming
) -> GiveUpReason | None:
    """Repeat a probe until it is answered `REQUIRED_PROBES` times in a row.

    Returns the reason to give up, if any.

    Gives up after a refusal at once (a revoked key stays revoked), and after retryable failures
    once they have lasted `outage` seconds. None if the server answers.
    """
    wait, answered, since = times.probe_interval, 0, loop_time()
    while answered < REQUIRED_PROBES:
        await anyio.sleep(wait)
        error = await probe()
        if error is None:
            answered, wait = answered + 1, times.probe_interval
            continue
        answered, wait = 0, min(2 * wait, times.max_probe_interval)
        late = loop_time() - since > times.max_outage
        if late or not is_transient(error):
            return GiveUpReason(stop_reason(error), stop_message(error))
    return None


T = TypeVar("T")

MAX_READ_REFUSALS: Final = 2
"""Times that a read may be refused, though probes are answered, before its error is raised."""

MIN_READS: Final = 3
"""Times that a read is made, however long the server was down meanwhile."""

_FAILURES: Final[dict[str, BudgetFailureKind]] = {
    "overload": "throttled", "timeout": "timeout", "unreachable": "failed", "failed": "failed",
}  # fmt: skip

DATASET_LOCKED: Final = (
    "the server holds this dataset's lock; Dify keeps it up to 600 s after a crash of its API"
)


class CircuitBreaker:
    """Lets requests out while the server is well, and probes it while it is not.

    `run` must be running while anything waits here. All times are seconds of the event loop.

    Args:
        datasets: sends the probe, one attempt each.
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
        self._uploads = UploadHealth(times)
        self._changed = anyio.Event()
        self._open_cause: str | None = None
        self.failure: GiveUpReason | None = None
        """Set once it has given up."""

        self.outages = 0
        """How often it has been open."""

        self.upload_answered_at = -math.inf
        """When an upload was last answered."""

        self.resumed_at = -math.inf
        """When blocked uploads last went on: those sent before may have landed just then."""

    @property
    def is_open(self) -> bool:
        """Whether no request may go out but probes."""
        return self._open_cause is not None and self.failure is None

    @property
    def is_closed(self) -> bool:
        """Whether uploads may go out."""
        return self._open_cause is None and not self.has_blocked_uploads and self.failure is None

    @property
    def has_blocked_uploads(self) -> bool:
        """Whether the server answers reads, but no upload."""
        return self._uploads.blocked_until is not None

    @property
    def cause(self) -> str:
        """What failed; empty while it is closed."""
        if self.failure is not None:
            return self.failure.message
        return self._open_cause or (DATASET_LOCKED if self.has_blocked_uploads else "")

    def overload_delay(self) -> float:
        """Return the seconds for which no upload may start, because the server asked for that."""
        return self._overload.remaining(loop_time())

    def record(self, attempt: AttemptEvent) -> None:
        """Learn from an attempt of any call, as it ends."""
        now = loop_time()
        if attempt.failure_kind is None and attempt.status is not None:
            self._budget.add_reply(now / self._times.tuning_second)
            if attempt.endpoint in CREATE_CALLS and attempt.error is None:
                self.upload_answered_at = now
                self._overload.reset()
                self.record_stored_upload()
                return
        if self._uploads.record(now, attempt):
            self._notify_waiters()
        failure = _FAILURES.get(attempt.failure_kind or "")
        if failure is None:  # a rate limit says nothing of the server's health
            return
        self._budget.add_failure(now / self._times.tuning_second, failure)
        if failure == "throttled":
            self._overload.add(now, attempt.retry_after)
        if self._budget.is_exhausted:
            self.trip(attempt.error or "no answer")

    def trip(self, cause: KnowledgeError | str) -> None:
        """Open because a call gave up after all its attempts, or because too many failed."""
        if self._open_cause is None and self.failure is None:
            self._open_cause = cause.summary if isinstance(cause, KnowledgeError) else cause
            self.outages += 1
            self._notify_waiters()

    def record_stored_upload(self) -> None:
        """Learn that an upload is on the server, such as one whose answer was lost."""
        if self._uploads.record_stored_upload():
            self.resumed_at = loop_time()
            self._notify_waiters()

    async def wait_readable(self) -> None:
        """Wait until reads may go out. Returns at once when it has given up."""
        while self.is_open:
            await self._changed.wait()

    async def wait_closed(self) -> None:
        """Wait until uploads may go out. Returns at once when it has given up."""
        while not self.is_closed and self.failure is None:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until it opens, closes or gives up."""
        await self._changed.wait()

    async def read(self, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request that may be repeated until it succeeds; wait while the server is down.

        Raises:
            KnowledgeError: it was refused, though probes are answered; it failed for `outage`
                seconds; or the server was given up.
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
        """Request the dataset once; return the error, if it is answered with one."""
        try:
            await self._datasets.get(self.dataset_id)
        except KnowledgeError as error:
            return error
        return None

    async def run(self) -> GiveUpReason:
        """Probe while it is open, and return once the server is given up."""
        while self.failure is None:
            if self._open_cause is not None:
                began = loop_time()
                self.failure = await probe_until_answered(self.probe, self._times)
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
        """Wake everybody who waits, to look at the state anew."""
        if self._open_cause is None:  # else probing goes on, and decides first
            self.failure = self.failure or self._uploads.failure
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
