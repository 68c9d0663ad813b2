"""Hold the server's health during a load: the only place that knows whether requests may go out.

Every attempt of every call is recorded here. Whoever must not go on waits here; nobody else probes.

| state | uploads | reads | how it is left |
|---|---|---|---|
| closed | go out | go out | the failure budget is spent, or a call gave up: open |
| closed | | | uploads time out, reads are answered: uploads blocked |
| uploads blocked | wait | go out | one is answered or has landed, or the lock is over: closed |
| open | wait | wait | two probes in a row are answered: closed |
| open | | | no probe is answered for `outage` seconds, or one is refused: given up |
| given up | | | never: the load stops with `failure` |

"Uploads blocked" is Dify's lock of a dataset: when an API process is killed while it creates a
document, its Redis lock blocks every create of that dataset for up to 600 s, while reads are
answered at once (measured on 1.4.3 and 1.14.2). Requests that wait for the lock land when it ends,
so nothing may be sent again before.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import anyio
from attrs import frozen

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classes import is_passing, stop_message, stop_reason
from dify_kb.ingest.report import StopReason
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dify_kb.config import Loading
    from dify_kb.resources import Datasets
    from dify_kb.transport import Attempted

T = TypeVar("T")

CREATES: Final = frozenset({
    catalog.CREATE_DOCUMENT_BY_FILE.name, catalog.CREATE_DOCUMENT_BY_TEXT.name,
})  # fmt: skip

PROBES: Final = 2
"""Probes in a row that must be answered before the breaker closes."""

TIMEOUTS: Final = 2
"""Uploads in a row that time out, while reads are answered, before uploads count as blocked."""

REFUSALS: Final = 2
"""Times that a read may be refused, though probes are answered, before its error is raised."""

OVERLOAD: Final = (0.5, 2.0, 60.0)
"""Seconds without an upload after 429 or 503: the least, the bound of the first, that of any."""

LONGEST_HINT: Final = 300.0
"""Seconds. A `Retry-After` beyond this is cut to it."""

MOST_TOKENS, FIRST_TOKENS, TOKENS_AFTER_OUTAGE = 40.0, 20.0, 10.0
"""Tokens of the failure budget: the most that are saved up, those of a new load, and those after an
outage. To stop and ask costs a load two seconds, so that there is no need to save more."""

EARNED_BY_REPLY: Final = 0.2
"""Tokens for a reply: one failure in six replies is sustained."""

EARNED_BY_SECOND: Final = 1.0
"""Tokens that come with time, up to `FIRST_TOKENS`: a slow load outlives a failure a second."""

Failure = Literal["failed", "timeout", "throttled"]

COST: Final[dict[Failure, float]] = {"failed": 1.0, "timeout": 2.0, "throttled": 0.5}
"""Tokens. A timeout costs most: it leaves open whether the document exists."""

_FAILURES: Final[dict[str, Failure]] = {
    "overload": "throttled", "timeout": "timeout", "unreachable": "failed", "failed": "failed",
}  # fmt: skip

DATASET_LOCKED: Final = (
    "the server holds this dataset's lock; Dify keeps it up to 600 s after a crash of its API"
)


class FailureBudget:
    """Tokens that failures cost and replies earn. The clock is an argument."""

    def __init__(self) -> None:
        self._tokens = FIRST_TOKENS
        self._last: float | None = None

    @property
    def spent(self) -> bool:
        """Whether so much failed that the server has to be probed."""
        return self._tokens <= 0

    def add_reply(self, now: float) -> None:
        """Earn tokens for a reply, also for one that refuses the call."""
        self._earn_by_time(now)
        self._tokens = min(MOST_TOKENS, self._tokens + EARNED_BY_REPLY)

    def add_failure(self, now: float, kind: Failure) -> None:
        """Pay tokens for a failure that another attempt may not meet."""
        self._earn_by_time(now)
        self._tokens = max(0.0, self._tokens - COST[kind])

    def renew(self, now: float) -> None:
        """Begin again after an outage, with half of what a new load has."""
        self._last = now
        self._tokens = TOKENS_AFTER_OUTAGE

    def _earn_by_time(self, now: float) -> None:
        earned = 0.0 if self._last is None else (now - self._last) * EARNED_BY_SECOND
        self._last = now
        if self._tokens < FIRST_TOKENS:
            self._tokens = min(FIRST_TOKENS, self._tokens + earned)


@frozen
class GaveUp:
    """Why the breaker gave up: the load stops with this."""

    reason: StopReason
    message: str


class CircuitBreaker:
    """Lets requests out while the server is well, and probes it while it is not.

    `run` must be running while anything waits here. All times are seconds of the event loop.

    Args:
        datasets: sends the probe, one attempt each; None for a breaker that is never opened.
    """

    def __init__(
        self,
        datasets: Datasets | None,
        dataset_id: str,
        times: Loading,
        random: Random | None = None,
    ) -> None:
        self._datasets = datasets
        self.dataset_id = dataset_id
        self._times = times
        self._random = random or Random()
        self._budget = FailureBudget()
        self._changed = anyio.Event()
        self._open = False
        self._blocked_until: float | None = None
        self._blocks = 0
        self._timeouts = 0
        self._timed_out_since = math.inf
        self._failing_since: float | None = None
        self._overloads = 0
        self._overloaded_until = -math.inf
        self.failure: GaveUp | None = None
        """Set once it has given up."""

        self.cause = ""
        """What failed, while it is not closed."""

        self.outages = 0
        """How often it has been open."""

        self.upload_answered_at = -math.inf
        """When an upload was last answered."""

        self.resumed_at = -math.inf
        """When blocked uploads last went on: those sent before may have landed just then."""

    @property
    def is_open(self) -> bool:
        """Whether no request may go out but probes."""
        return self._open

    @property
    def is_closed(self) -> bool:
        """Whether uploads may go out."""
        return not self._open and self._blocked_until is None

    @property
    def uploads_blocked(self) -> bool:
        """Whether the server answers reads, but no upload."""
        return self._blocked_until is not None

    def overload_delay(self) -> float:
        """Return the seconds for which no upload may start, because the server asked for that."""
        return max(0.0, self._overloaded_until - anyio.current_time())

    def record(self, attempt: Attempted) -> None:
        """Learn from an attempt of any call, as it ends."""
        now = anyio.current_time()
        is_upload = attempt.endpoint in CREATES
        failure = _FAILURES.get(attempt.trouble or "")
        if attempt.trouble is None:
            if attempt.status is not None:
                self._record_reply(now, is_upload=is_upload)
            return
        if is_upload:
            self._record_failed_upload(now, attempt)
        if failure is None:  # a rate limit says nothing of the server's health
            return
        self._budget.add_failure(now / self._times.pace, failure)
        if attempt.trouble == "overload":
            self._delay(now, attempt.retry_after)
        if self._budget.spent:
            self._open_for(attempt.error or "no answer")

    def trip(self, error: KnowledgeError) -> None:
        """Open because a call gave up after all its attempts."""
        self._open_for(error.summary)

    def record_landed(self) -> None:
        """Learn that an upload whose answer was lost is on the server."""
        self._timeouts = self._blocks = 0
        self._failing_since = None
        self._resume(anyio.current_time())

    async def wait_readable(self) -> None:
        """Wait until reads may go out. Returns at once when it has given up."""
        while self._open and self.failure is None:
            await self._changed.wait()

    async def wait_closed(self) -> None:
        """Wait until uploads may go out. Returns at once when it has given up."""
        while not self.is_closed and self.failure is None:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until it opens, closes or gives up."""
        await self._changed.wait()

    async def read(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make a read again until it is answered, waiting while the server is down.

        Raises:
            KnowledgeError: it was refused though probes are answered, it failed for `outage`
                seconds, or the server was given up.
        """
        since, refusals = anyio.current_time(), 0
        while True:
            await self.wait_readable()
            try:
                return await request()
            except KnowledgeError as error:
                refusals += not is_passing(error)
                late = anyio.current_time() - since > self._times.outage
                if self.failure is not None or refusals >= REFUSALS or late:
                    raise
                self.trip(error)

    async def run(self) -> GaveUp:
        """Probe while it is open, and return once the server is given up."""
        while self.failure is None:
            if self._open:
                await self._probe()
            elif self._blocked_until is not None:
                await self._wait_blocked(self._blocked_until)
            else:
                await self._changed.wait()
        return self.failure

    def _record_reply(self, now: float, *, is_upload: bool) -> None:
        self._budget.add_reply(now / self._times.pace)
        self._overloads = 0
        if is_upload:
            self.upload_answered_at = now
            self._failing_since = None
            self._timeouts = self._blocks = 0
            self._resume(now)
        elif self._timeouts >= TIMEOUTS:
            self._block(now)

    def _record_failed_upload(self, now: float, attempt: Attempted) -> None:
        if attempt.trouble == "timeout":
            self._timeouts += 1
            self._timed_out_since = min(self._timed_out_since, now - attempt.seconds)
        else:
            self._timeouts = 0
            self._timed_out_since = math.inf
        if self._failing_since is None:
            self._failing_since = now
        if self.is_closed and now - self._failing_since > self._times.outage:
            limited = attempt.trouble == "quota" or attempt.status == 429  # noqa: PLR2004 -- HTTP
            reason = StopReason.RATE_LIMIT if limited else StopReason.OUTAGE
            self._give_up(GaveUp(reason, attempt.error or "no upload was answered"))

    def _delay(self, now: float, hint: float | None) -> None:
        least, first, longest = OVERLOAD
        bound = min(longest, first * 2.0 ** min(self._overloads, 16))
        seconds = self._random.uniform(least, bound) * self._times.pace
        if hint is not None:
            seconds = max(seconds, min(hint, LONGEST_HINT)) * self._random.uniform(1.0, 1.1)
        if now >= self._overloaded_until:
            self._overloads += 1
        self._overloaded_until = max(self._overloaded_until, now + seconds)

    def _open_for(self, cause: str) -> None:
        if not self._open and self.failure is None:
            self._open = True
            self.outages += 1
            self.cause = cause
            self._announce()

    def _block(self, now: float) -> None:
        if self._blocked_until is not None or self.failure is not None:
            return
        self._blocks += 1
        if self._blocks > 1:  # the lock is over, and nothing was answered since
            self._give_up(GaveUp(StopReason.OUTAGE, "uploads are not answered, though reads are"))
            return
        self._blocked_until = max(now, self._timed_out_since + self._times.dataset_lock)
        self.cause = DATASET_LOCKED
        self._announce()

    def _resume(self, now: float) -> None:
        self._timed_out_since = math.inf
        if self._blocked_until is not None:
            self._blocked_until = None
            self._timeouts = 0
            self._failing_since = None
            self.resumed_at = now
            self._announce()

    def _give_up(self, failure: GaveUp) -> None:
        self.failure = failure
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _wait_blocked(self, until: float) -> None:
        changed = self._changed
        with anyio.move_on_at(until):
            await changed.wait()
        if anyio.current_time() >= until and self._blocked_until == until:
            self._resume(anyio.current_time())

    async def _probe(self) -> None:
        """Probe at growing intervals until it closes or gives up."""
        wait, answered, since = self._times.probe, 0, anyio.current_time()
        while answered < PROBES:
            await anyio.sleep(wait)
            try:
                if self._datasets is not None:
                    await self._datasets.get(self.dataset_id)
            except KnowledgeError as error:
                answered, wait = 0, min(2 * wait, self._times.probe_longest)
                late = anyio.current_time() - since > self._times.outage
                if late or not is_passing(error):
                    self._give_up(GaveUp(stop_reason(error), stop_message(error)))
                    return
            else:
                answered, wait = answered + 1, self._times.probe
        self._open = False
        self._budget.renew(anyio.current_time() / self._times.pace)
        self._announce()
