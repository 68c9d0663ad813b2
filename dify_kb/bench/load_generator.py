"""Generate a closed-loop load of fixed concurrency, and measure rate, latency and errors."""

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
    ConnectError,
    KnowledgeError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
)
from dify_kb.transport.clock import loop_time

DRAIN_SECONDS = 10.0
"""Seconds that requests in flight may take after the end of the round or an interrupt: a server
still executes a create request that is cut off, and the document would outlive its dataset."""

WARMUP_PART = 0.2
"""The unmeasured part at the start of a round, of its duration or of its requests."""

MAX_STRETCH = 3
"""A round against a slow server may last up to this multiple of its duration."""

SendRequest = Callable[[], Awaitable[object]]
"""Sends one request."""


@frozen(kw_only=True)
class RoundResult:
    """The result of one round."""

    seconds: float
    """Measured duration, without the warm-up."""

    answered: int
    """Responses within the measured time."""

    times: Sequence[float]
    """Seconds of each successful request that began within the measured time."""

    errors: Sequence[KnowledgeError]

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0


@define
class _RunningRound:
    """A running round."""

    send_request: SendRequest
    concurrency: int
    max_requests: int
    warmup_end: float
    end: float
    latest_end: float
    measure_start: float = math.inf
    measure_end: float = math.inf
    sent: int = 0
    ended: int = 0
    answered: int = 0
    times: list[float] = field(factory=list)
    errors: list[KnowledgeError] = field(factory=list)
    fatal: KnowledgeError | None = None
    stopped: bool = False

    async def send_until_end(self) -> None:
        """Send requests, one after the other, until the round ends."""
        while not self.stopped:
            began = time.perf_counter()
            if self.sent >= self.max_requests or self._is_over(began):
                self.stop()
                return
            if began >= self.warmup_end or self.sent >= WARMUP_PART * self.max_requests:
                self.measure_start = min(self.measure_start, began)
            self.sent += 1
            try:
                await self.send_request()
            except KnowledgeError as error:
                self.ended += 1
                self.errors.append(error)
                if is_permanent_error(error):
                    self.fatal = self.fatal or error
                    self.stop()
                continue
            self.ended += 1
            now = time.perf_counter()
            if self.measure_start <= now < self.measure_end:
                self.answered += 1
            if began >= self.measure_start:
                self.times.append(now - began)

    def _is_over(self, now: float) -> bool:
        return now >= self.end and (self.answered >= self.concurrency or now >= self.latest_end)

    def stop(self) -> None:
        """Stop sending new requests."""
        self.stopped = True
        self.measure_end = min(self.measure_end, time.perf_counter())


async def generate_load(
    send_request: SendRequest, *, concurrency: int, seconds: float, max_requests: int
) -> RoundResult:
    """Maintain `concurrency` requests in flight for `seconds`, then let those in flight finish.

    The round is extended, to three times its duration at most, until there are as many responses
    as concurrent requests. When cancelled, no new requests are sent, and those in flight may
    finish for up to 10 s.

    Args:
        max_requests: maximum number of requests; the round ends when it is reached.

    Raises:
        KnowledgeError: the server refused a request, and would refuse it again.
    """
    now = time.perf_counter()  # uvloop's own clock moves once a millisecond
    round_ = _RunningRound(
        send_request,
        concurrency,
        max_requests,
        warmup_end=now + WARMUP_PART * seconds,
        end=now + seconds,
        latest_end=now + MAX_STRETCH * seconds,
    )
    deadline = loop_time() + MAX_STRETCH * seconds + DRAIN_SECONDS
    drain_scope = anyio.CancelScope(shield=True, deadline=deadline)

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            round_.stop()
            drain_scope.deadline = min(drain_scope.deadline, loop_time() + DRAIN_SECONDS)

    async with anyio.create_task_group() as outer_group:
        outer_group.start_soon(stop_when_cancelled)
        with drain_scope:
            async with anyio.create_task_group() as workers:
                for _ in range(concurrency):
                    workers.start_soon(round_.send_until_end)
        outer_group.cancel_scope.cancel()
    await checkpoint()
    round_.errors += [_no_answer_error()] * (round_.sent - round_.ended)
    if round_.fatal is not None:
        raise round_.fatal
    return RoundResult(
        seconds=max(0.0, round_.measure_end - round_.measure_start),
        answered=round_.answered,
        times=round_.times,
        errors=round_.errors,
    )


def _no_answer_error() -> KnowledgeError:
    return KnowledgeError(
        f"No response within {DRAIN_SECONDS:g} s of the end of the round.",
        hint="Check the server with `dify-kb doctor`.",
    )


def is_permanent_error(error: KnowledgeError) -> bool:
    """Return whether a retry would fail too: a refusal, not a transient error."""
    if isinstance(error, OutcomeUnknownError):
        return False
    if isinstance(error, ApiError):
        return isinstance(error, RateLimitedError) or not isinstance(error, ServerError)
    if isinstance(error, ConnectError):
        return error.permanent
    return isinstance(error, ConfigError)
