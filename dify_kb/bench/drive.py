"""Requests at once, each followed by the next, for a while: what comes back, and how fast."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
from attrs import define, field, frozen

from dify_kb.errors import (
    ApiError,
    ConfigError,
    KnowledgeError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
)

GRACE = 10.0
"""Seconds that requests under way may take when their time is over, or the run is interrupted: a
create that is cut off is carried out all the same, and would outlive its dataset."""

WARM = 0.2
"""The part of a round that is not measured, at its begin: of its time or of its requests."""

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
    most: int
    warm_until: float
    end: float
    begin: float = math.inf
    finished: float = math.inf
    sent: int = 0
    answered: int = 0
    times: list[float] = field(factory=list)
    errors: list[KnowledgeError] = field(factory=list)
    fatal: KnowledgeError | None = None
    stopped: bool = False

    async def work(self) -> None:
        """Make requests until the end."""
        while not self.stopped and (began := time.perf_counter()) < self.end:
            if self.sent >= self.most:
                self.interrupt()
                return
            if began >= self.warm_until or self.sent >= WARM * self.most:
                self.begin = min(self.begin, began)
            self.sent += 1
            try:
                await self.request()
            except KnowledgeError as error:
                self.errors.append(error)
                if lasting(error):
                    self.fatal = self.fatal or error
                    self.interrupt()
                continue
            now = time.perf_counter()
            if self.begin <= now < min(self.end, self.finished):
                self.answered += 1
            if began >= self.begin:
                self.times.append(now - began)

    def interrupt(self) -> None:
        """Begin no more requests."""
        self.stopped = True
        self.finished = min(self.finished, time.perf_counter())


async def drive(request: Request, *, at_once: int, seconds: float, most: int) -> Round:
    """Keep so many requests in flight for so long; those under way at the end may finish.

    Interrupted, it begins no more requests and lets those under way finish for up to 10 s.

    Args:
        most: requests at most, which may end it earlier.

    Raises:
        KnowledgeError: the server refused, and would refuse again.
    """
    now = time.perf_counter()  # uvloop's own clock moves once a millisecond
    course = _Course(request, most, warm_until=now + WARM * seconds, end=now + seconds)
    limit = anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds + GRACE)

    async def heed() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            course.interrupt()
            limit.deadline = min(limit.deadline, anyio.current_time() + GRACE)

    async with anyio.create_task_group() as outside:
        outside.start_soon(heed)
        with limit:
            async with anyio.create_task_group() as workers:
                for _ in range(at_once):
                    workers.start_soon(course.work)
        outside.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()
    if course.fatal is not None:
        raise course.fatal
    return Round(
        seconds=max(0.0, min(course.end, course.finished) - course.begin),
        answered=course.answered,
        times=course.times,
        errors=course.errors,
    )


def lasting(error: KnowledgeError) -> bool:
    """Tell whether asking again would not help: a refusal, and no passing trouble."""
    if isinstance(error, OutcomeUnknownError):
        return False
    if isinstance(error, ApiError):
        return isinstance(error, RateLimitedError) or not isinstance(error, ServerError)
    return isinstance(error, ConfigError)
