"""Admit uploads within the limits of concurrency and rate, while the circuit breaker is closed.

An upload holds a slot from `acquire` to `release`; every attempt of every call is passed to
`record`. Three independent parts decide: `ConcurrencyLimit` (uploads in flight), `RateLimiter`
(uploads per minute) and `CircuitBreaker` (server health).
"""

from __future__ import annotations

import math
import time
from collections import deque
from random import Random
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from dify_kb.errors import ConfigError
from dify_kb.wire import catalog

from .concurrency_limit import ConcurrencyLimit
from .rate_limit import Rate, RateLimiter
from .upload_failures import CREATE_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dify_kb.transport.attempt_event import AttemptEvent
    from dify_kb.transport.request_limiter import RequestLimiter

    from .circuit_breaker import CircuitBreaker

RATE_LIMITED_CALLS = frozenset(
    endpoint.name
    for endpoint in catalog.ENDPOINTS
    if endpoint.method != "GET" and not endpoint.name.startswith("tags.")
) - {catalog.SET_DOCUMENT_STATUS.name}
"""Calls counted by Dify's rate limit: writes and retrieval (measured on 1.12.1)."""


class RateLimitedCalls:
    """Adapter from attempts of calls to the rate limiter."""

    def __init__(self, rate: RateLimiter) -> None:
        self._rate = rate
        self._unanswered = 0

    def start_upload(self, now: float) -> None:
        """Record an admitted upload."""
        self._unanswered += 1
        self._rate.record_start(now)

    def end_upload(self, in_flight: int) -> None:
        """Record the end of an upload; `in_flight` is the number of uploads that continue."""
        if self._unanswered > in_flight:
            # The upload was not sent, or was cancelled: no attempt was recorded.
            self._unanswered -= 1
            self._rate.cancel_start()

    def record(self, now: float, attempt: AttemptEvent) -> None:
        """Record an attempt of any call."""
        is_upload = attempt.endpoint in CREATE_CALLS
        first = is_upload and attempt.attempt == 1 and self._unanswered > 0
        self._unanswered -= first
        arrived = attempt.status is not None or attempt.failure_kind in {"timeout", "failed"}
        if first and not arrived:
            self._rate.cancel_start()
        elif attempt.failure_kind == "quota":
            self._rate.record_refused(now, started=first)
        elif arrived and attempt.endpoint in RATE_LIMITED_CALLS:
            self._rate.record_accepted(now, started=first)


MAX_CONCURRENCY = 64
"""Highest concurrency limit: no measured server was faster with more uploads in flight."""

POLLER_CONNECTIONS = 1
"""Connections in addition to the uploads: one for polling the indexing status."""

MAX_HISTORY = 100
"""Maximum length of the history of the limit; beyond it, every second point is dropped."""


class _SlotWaiter:
    """A task waiting for a slot; `called` is set when the task should check for a free one."""

    def __init__(self) -> None:
        self.called = anyio.Event()


class Admission:
    """Admission control for the uploads of one load, in first-come, first-served order.

    An upload refused by the server's rate limit should leave and enter again: a retry inside its
    slot would occupy the slot while waiting, and count against the rate.

    Args:
        concurrency: uploads in flight: a fixed number, or bounds (low, high); None tunes the number
            automatically.
        rate: the maximum rate, such as `100/min` or 5 (per second); None derives it from the
            server's refusals.
        requests: the client's limiter, adjusted to the uploads and one poller until `close`:
            raised if more uploads help, lowered if connections starve.
        breaker: holds uploads back while the server fails.
        unit: the length of one second of the limits, in seconds; tests shorten it.
    """

    def __init__(
        self,
        concurrency: int | tuple[int, int] | None,
        rate: str | float | None,
        requests: RequestLimiter,
        breaker: CircuitBreaker,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        *,
        unit: float = 1.0,
    ) -> None:
        low, high = _parse_bounds(concurrency)
        if requests.fixed:
            low, high = min(low, requests.limit), min(high, requests.limit)
        self.rate = RateLimiter(None if rate is None else Rate.parse(rate), random or Random())
        self.concurrency = ConcurrencyLimit(low, high)
        self.breaker = breaker
        self.in_flight = 0
        self.history: list[tuple[float, int]] = []
        """(start, limit) of each limit so far; the start in units of `unit`."""

        self._requests = requests
        self._clock = clock
        self._unit = unit
        self._waiters: deque[_SlotWaiter] = deque()
        self._outages = 0
        self._calls = RateLimitedCalls(self.rate)
        self._connections = 0

    @property
    def limit(self) -> int:
        """Current maximum number of uploads in flight."""
        return self.concurrency.limit

    @property
    def max_limit(self) -> int:
        """Upper bound of `limit`."""
        return self.concurrency.high

    def _now(self) -> float:
        return self._clock() / self._unit

    def use_breaker(self, breaker: CircuitBreaker) -> None:
        """Continue with the breaker of another load. No upload may be in flight."""
        self.breaker, self._outages = breaker, breaker.outages

    def close(self) -> None:
        """Withdraw the adjustment of the request limiter."""
        self._requests.set_requested_limit(self, None)

    def record(self, attempt: AttemptEvent) -> None:
        """Record a finished attempt of any call; called in the loop thread."""
        now, kind = self._now(), attempt.failure_kind
        self.breaker.record(attempt)
        self._calls.record(now, attempt)
        if attempt.endpoint in CREATE_CALLS:
            if kind is None and attempt.status is not None and attempt.error is None:
                seconds = (
                    attempt.seconds if attempt.server_seconds is None else attempt.server_seconds
                )
                self.concurrency.record_response(now, seconds, self.in_flight)
            elif kind is not None and kind != "quota":
                self.concurrency.record_overload(now)
        self._adjust(now)

    async def acquire(self) -> None:
        """Wait for a slot and occupy it."""
        now = self._now()
        if self._waiters or not self._resume_if_closed() or self._next_start(now) > now:
            await self._wait()
            return
        await checkpoint_if_cancelled()
        self._start_upload(now)

    def release(self) -> None:
        """Return a slot."""
        self.in_flight -= 1
        self._calls.end_upload(self.in_flight)
        self._wake()

    async def _wait(self) -> None:
        """Wait for a slot and occupy it. Only the head of the queue checks, then wakes the next."""
        waiter = _SlotWaiter()
        self._waiters.append(waiter)
        try:
            while True:
                waiter.called = anyio.Event()
                if self._waiters[0] is not waiter:
                    await waiter.called.wait()
                    continue
                if not self._resume_if_closed():
                    await self._wait_closed()
                    continue
                now = self._now()
                start = self._next_start(now)
                if start <= now:
                    self._start_upload(now)
                    return
                with anyio.move_on_after((start - now) * self._unit):
                    await waiter.called.wait()
        finally:
            self._waiters.remove(waiter)
            self._wake()

    def _resume_if_closed(self) -> bool:
        """Return whether uploads may start; after an outage, halve the limit first."""
        if not self.breaker.is_closed or self.breaker.overload_delay() > 0:
            return False
        if self._outages != self.breaker.outages:
            self._outages = self.breaker.outages
            self.concurrency.reopen(self._now())
        return True

    async def _wait_closed(self) -> None:
        """Wait until the breaker is closed and the delay requested by the server has passed."""
        await self.breaker.wait_closed()
        if self.breaker.failure is not None:
            await anyio.sleep_forever()  # the load stops and cancels this task
        await anyio.sleep(self.breaker.overload_delay())

    def _start_upload(self, now: float) -> None:
        self.in_flight += 1
        self._calls.start_upload(now)

    def _wake(self) -> None:
        """Wake the first waiter if a slot is free; otherwise the next `release` wakes it."""
        if self._waiters and self.in_flight < self.concurrency.limit:
            self._waiters[0].called.set()

    def _next_start(self, now: float) -> float:
        if self.in_flight >= self.concurrency.limit:
            return math.inf
        return self.rate.next_start(now)

    def _adjust(self, now: float) -> None:
        """Apply a new limit to the history, the request limiter and the next waiter."""
        if not self.history or self.history[-1][1] != self.limit:
            self.history.append((now, self.limit))
            if len(self.history) > MAX_HISTORY:
                del self.history[1::2]
        connections = self.concurrency.connections + POLLER_CONNECTIONS
        if connections != self._connections:
            self._connections = connections
            starved = self.concurrency.ceiling(now) is not None
            usual = self._requests.default_limit
            self._requests.set_requested_limit(
                self, connections if starved else max(usual, connections)
            )
        self._wake()


def _parse_bounds(concurrency: int | tuple[int, int] | None) -> tuple[int, int]:
    match concurrency:
        case None:
            return 1, MAX_CONCURRENCY
        case (low, high):
            pass
        case number:
            low = high = number
    if low < 1 or high < low:
        raise ConfigError(
            f"Invalid concurrency {concurrency!r}.",
            hint="Pass an integer of at least 1, or a pair (low, high) with low <= high.",
        )
    return low, high
