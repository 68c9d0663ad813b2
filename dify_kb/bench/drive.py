"""Requests at once, each followed by the next, for a while: what comes back, and how fast."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from dify_kb.errors import (
    ApiError,
    ConfigError,
    KnowledgeError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
)
from dify_kb.transport.clock import loop_time

GRACE = 10.0
"""Seconds that requests under way may take when their time is over, or the run is interrupted: a
create that is cut off is carried out all the same, and would outlive its dataset."""

WARM = 0.2
"""The part of a round that is not measured, at its begin: of its time or of its requests."""

LONGER = 3
"""A round of a slow server may last so many times its time."""

Request = Callable[[], Awaitable[object]]
"""Makes one request."""


@frozen(kw_only=True)
class Round:
    """What a number of requests at once brought."""

    seconds: float
    """How long it was measured, after warming up."""

    answered: int
    """Answers within that time."""

    times: Sequence[float]
    """Seconds of each request that succeeded and began within that time."""

    errors: Sequence[KnowledgeError]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0


@define
class _Course:
    """One round while it runs."""

    request: Request
    at_once: int
    most: int
    warm_until: float
    end: float
    latest: float
    begin: float = math.inf
    finished: float = math.inf
    sent: int = 0
    ended: int = 0
    answered: int = 0
    times: list[float] = field(factory=list)
    errors: list[KnowledgeError] = field(factory=list)
    fatal: KnowledgeError | None = None
    stopped: bool = False

    async def work(self) -> None:
        """Make requests until the end."""
        while not self.stopped:
            began = time.perf_counter()
            if self.sent >= self.most or self._over(began):
                self.interrupt()
                return
            if began >= self.warm_until or self.sent >= WARM * self.most:
                self.begin = min(self.begin, began)
            self.sent += 1
            try:
                await self.request()
            except KnowledgeError as error:
                self.ended += 1
                self.errors.append(error)
                if lasting(error):
                    self.fatal = self.fatal or error
                    self.interrupt()
                continue
            self.ended += 1
            now = time.perf_counter()
            if self.begin <= now < self.finished:
                self.answered += 1
            if began >= self.begin:
                self.times.append(now - began)

    def _over(self, now: float) -> bool:
        return now >= self.end and (self.answered >= self.at_once or now >= self.latest)

    def interrupt(self) -> None:
        """Begin no more requests."""
        self.stopped = True
        self.finished = min(self.finished, time.perf_counter())


async def drive(request: Request, *, at_once: int, seconds: float, most: int) -> Round:
    """Keep so many requests in flight for so long; those under way at the end may finish.

    Where each was not answered once by then, it takes up to three times as long.

    Interrupted, it begins no more requests and lets those under way finish for up to 10 s.

    Args:
        most: requests at most, which may end it earlier.

    Raises:
        KnowledgeError: the server refused, and would refuse again.
    """
    now = time.perf_counter()  # uvloop's own clock moves once a millisecond
    course = _Course(
        request,
        at_once,
        most,
        warm_until=now + WARM * seconds,
        end=now + seconds,
        latest=now + LONGER * seconds,
    )
    deadline = loop_time() + LONGER * seconds + GRACE
    limit = anyio.CancelScope(shield=True, deadline=deadline)

    async def heed() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            course.interrupt()
            limit.deadline = min(limit.deadline, loop_time() + GRACE)

    async with anyio.create_task_group() as outside:
        outside.start_soon(heed)
        with limit:
            async with anyio.create_task_group() as workers:
                for _ in range(at_once):
                    workers.start_soon(course.work)
        outside.cancel_scope.cancel()
    await checkpoint()
    course.errors += [_unanswered()] * (course.sent - course.ended)
    if course.fatal is not None:
        raise course.fatal
    return Round(
        seconds=max(0.0, course.finished - course.begin),
        answered=course.answered,
        times=course.times,
        errors=course.errors,
    )


def _unanswered() -> KnowledgeError:
    return KnowledgeError(
        f"No answer came within {GRACE:g} s of the end of its round.",
        hint="`dify-kb doctor` tells whether the server answers at all.",
    )


def lasting(error: KnowledgeError) -> bool:
    """Tell whether asking again would not help: a refusal, and no passing trouble."""
    if isinstance(error, OutcomeUnknownError):
        return False
    if isinstance(error, ApiError):
        return isinstance(error, RateLimitedError) or not isinstance(error, ServerError)
    return isinstance(error, ConfigError)
