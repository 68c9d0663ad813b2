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
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classes import concerns_call, is_passing
from dify_kb.transport.clock import loop_time

from .failure_budget import FailureBudget, FailureKind
from .overload_delay import OverloadDelay
from .probe import probe_until_answered
from .upload_health import CREATES, UploadHealth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dify_kb.config import Loading
    from dify_kb.resources import Datasets
    from dify_kb.transport import Attempted

    from .gave_up import GaveUp

T = TypeVar("T")

REFUSALS: Final = 2
"""Times that a read may be refused, though probes are answered, before its error is raised."""

LEAST_READS: Final = 3
"""Times that a read is made, however long the server was down meanwhile."""

_FAILURES: Final[dict[str, FailureKind]] = {
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
        times: Loading,
        random: Random | None = None,
    ) -> None:
        self._datasets = datasets
        self.dataset_id = dataset_id
        self._times = times
        self._budget = FailureBudget()
        self._overload = OverloadDelay(random or Random(), times.pace)
        self._uploads = UploadHealth(times)
        self._changed = anyio.Event()
        self._open_cause: str | None = None
        self.failure: GaveUp | None = None
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
        return self._open_cause is None and not self.uploads_blocked and self.failure is None

    @property
    def uploads_blocked(self) -> bool:
        """Whether the server answers reads, but no upload."""
        return self._uploads.blocked_until is not None

    @property
    def cause(self) -> str:
        """What failed; empty while it is closed."""
        if self.failure is not None:
            return self.failure.message
        return self._open_cause or (DATASET_LOCKED if self.uploads_blocked else "")

    def overload_delay(self) -> float:
        """Return the seconds for which no upload may start, because the server asked for that."""
        return self._overload.remaining(loop_time())

    def record(self, attempt: Attempted) -> None:
        """Learn from an attempt of any call, as it ends."""
        now = loop_time()
        if attempt.trouble is None and attempt.status is not None:
            self._budget.add_reply(now / self._times.pace)
            if attempt.endpoint in CREATES and attempt.error is None:
                self.upload_answered_at = now
                self._overload.reset()
                self.record_landed()
                return
        if self._uploads.record(now, attempt):
            self._announce()
        failure = _FAILURES.get(attempt.trouble or "")
        if failure is None:  # a rate limit says nothing of the server's health
            return
        self._budget.add_failure(now / self._times.pace, failure)
        if failure == "throttled":
            self._overload.add(now, attempt.retry_after)
        if self._budget.is_spent:
            self.trip(attempt.error or "no answer")

    def trip(self, cause: KnowledgeError | str) -> None:
        """Open because a call gave up after all its attempts, or because too many failed."""
        if self._open_cause is None and self.failure is None:
            self._open_cause = cause.summary if isinstance(cause, KnowledgeError) else cause
            self.outages += 1
            self._announce()

    def record_landed(self) -> None:
        """Learn that an upload is on the server, such as one whose answer was lost."""
        if self._uploads.record_landed():
            self.resumed_at = loop_time()
            self._announce()

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
                reads, refusals = reads + 1, refusals + (not is_passing(error))
                late = loop_time() - since > self._times.outage and reads >= LEAST_READS
                refused = concerns_call(error) or refusals >= REFUSALS
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

    async def run(self) -> GaveUp:
        """Probe while it is open, and return once the server is given up."""
        while self.failure is None:
            if self._open_cause is not None:
                began = loop_time()
                self.failure = await probe_until_answered(self.probe, self._times)
                self._open_cause = None
                self._uploads.exclude_outage(began)
                self._budget.renew(loop_time() / self._times.pace)
                self._announce()
                continue
            changed, until = self._changed, self._uploads.blocked_until
            with anyio.move_on_at(math.inf if until is None else until):
                await changed.wait()
            if self._uploads.end_lock(loop_time()):
                self.resumed_at = loop_time()
                self._announce()
        return self.failure

    def _announce(self) -> None:
        """Wake everybody who waits, to look at the state anew."""
        if self._open_cause is None:  # else probing goes on, and decides first
            self.failure = self.failure or self._uploads.failure
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
