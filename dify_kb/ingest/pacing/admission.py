"""Admit uploads: as many at once as the server takes, at the rate that it allows, while it is well.

`async with admission` holds one slot; every attempt of every call goes to `observe`. Three parts
decide, which know nothing of each other: `ConcurrencyLimit` (how many at once), `RateLimiter` (how
many a minute) and `CircuitBreaker` (whether the server answers at all).
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
from .upload_health import CREATES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dify_kb.transport.events import Attempted
    from dify_kb.transport.request_limiter import RequestLimiter

    from .circuit_breaker import CircuitBreaker

MOST = 64
"""Uploads at once that are looked for: no server measured took more with profit."""

WATCHER = 1
"""Connections beside the uploads: one look at what is indexed."""

POINTS = 100
"""Points kept of the history of the limit."""

COUNTED = frozenset(
    endpoint.name
    for endpoint in catalog.ENDPOINTS
    if endpoint.method != "GET" and not endpoint.name.startswith("tags.")
) - {catalog.SET_DOCUMENT_STATUS.name}
"""Calls that Dify's limit counts: what writes, and retrieval (measured on 1.12.1)."""


class _Waiter:
    """One that waits for a slot; `called` is set when it should look whether it may go."""

    def __init__(self) -> None:
        self.called = anyio.Event()


class Admission:
    """Admits the uploads of one load; first come, first served.

    An upload that was refused for its rate should come back through here, not be tried again
    inside its slot: the wait is then known to nobody, and the try counts.

    Args:
        concurrency: uploads at once: None finds it, a number fixes it, (low, high) bounds it.
        rate: a stated rate, like `100/min`; None learns it from refusals.
        requests: widened to the uploads and one watcher where more of them help, and narrowed
            where connections starve, until `close`.
        breaker: holds everybody back while the server is not well.
        unit: seconds that a second of all this lasts; tests make it short.
    """

    def __init__(
        self,
        concurrency: int | tuple[int, int] | None,
        rate: str | None,
        requests: RequestLimiter,
        breaker: CircuitBreaker,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        *,
        unit: float = 1.0,
    ) -> None:
        low, high = _bounds(concurrency)
        if requests.fixed:
            low, high = min(low, requests.limit), min(high, requests.limit)
        self.rate = RateLimiter(Rate.read(rate) if rate else None, random or Random())
        self.concurrency = ConcurrencyLimit(low, high)
        self.breaker = breaker
        self.in_flight = 0
        self.history: list[tuple[float, int]] = []
        self._requests = requests
        self._clock = clock
        self._unit = unit
        self._waiters: deque[_Waiter] = deque()
        self._outages = 0
        self._unanswered = 0
        self._connections = 0

    @property
    def limit(self) -> int:
        """Uploads that may be in flight now."""
        return self.concurrency.limit

    @property
    def most(self) -> int:
        """Uploads that may ever be in flight."""
        return self.concurrency.high

    def _now(self) -> float:
        return self._clock() / self._unit

    def close(self) -> None:
        """Give the request limiter its own number back."""
        self._requests.ask(self, None)

    def observe(self, attempt: Attempted) -> None:
        """Learn from an attempt of any call, as it ends; called in the loop thread."""
        now = self._now()
        is_upload = attempt.endpoint in CREATES
        self.breaker.record(attempt)
        self._record_rate(attempt, now, is_upload=is_upload)
        trouble = attempt.trouble
        if not is_upload:
            pass
        elif trouble is None and attempt.status is not None and attempt.error is None:
            seconds = attempt.seconds if attempt.waited is None else attempt.waited
            self.concurrency.replied(now, seconds, self.in_flight)
        elif trouble is not None and trouble != "quota":
            self.concurrency.overloaded(now)
        self._adjust(now)

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    async def enter(self) -> None:
        """Wait for a slot, and take it."""
        now = self._now()
        if self._waiters or not self._is_well() or self._earliest(now) > now:
            await self._wait()
            return
        await checkpoint_if_cancelled()
        self._enter(now)

    def leave(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        if self._unanswered > self.in_flight:
            # It was never sent, or cut off: a call that no event will tell of.
            self._unanswered -= 1
            self.rate.dropped()
        self._wake()

    async def _wait(self) -> None:
        """Wait for a slot, and take it. Only the first in the queue looks, and wakes the next."""
        me = _Waiter()
        self._waiters.append(me)
        try:
            while True:
                me.called = anyio.Event()
                if self._waiters[0] is not me:
                    await me.called.wait()
                    continue
                if not self._is_well():
                    await self._wait_well()
                    continue
                now = self._now()
                when = self._earliest(now)
                if when <= now:
                    self._enter(now)
                    return
                with anyio.move_on_after((when - now) * self._unit):
                    await me.called.wait()
        finally:
            self._waiters.remove(me)
            self._wake()

    def _is_well(self) -> bool:
        """Return whether uploads may go out; after an outage, go on with half of the limit."""
        if not self.breaker.is_closed or self.breaker.overload_delay() > 0:
            return False
        if self._outages != self.breaker.outages:
            self._outages = self.breaker.outages
            self.concurrency.reopen(self._now())
        return True

    async def _wait_well(self) -> None:
        """Wait until the server is well."""
        await self.breaker.wait_closed()
        if self.breaker.failure is not None:
            await anyio.sleep_forever()  # the load stops, and cancels this
        await anyio.sleep(self.breaker.overload_delay())

    def _enter(self, now: float) -> None:
        self.in_flight += 1
        self._unanswered += 1
        self.rate.started(now)

    def _wake(self) -> None:
        """Let the first in line look; while all slots are taken, who leaves one does this."""
        if self._waiters and self.in_flight < self.concurrency.limit:
            self._waiters[0].called.set()

    def _earliest(self, now: float) -> float:
        if self.in_flight >= self.concurrency.limit:
            return math.inf
        return self.rate.earliest(now)

    def _record_rate(self, attempt: Attempted, now: float, *, is_upload: bool) -> None:
        """Let the rate limiter learn what became of a call that the server counts."""
        first = is_upload and attempt.attempt == 1 and self._unanswered > 0
        self._unanswered -= first
        arrived = attempt.status is not None or attempt.trouble in {"timeout", "failed"}
        if first and not arrived:
            self.rate.dropped()
        elif attempt.trouble == "quota":
            self.rate.refused(now, asked=first)
        elif arrived and attempt.endpoint in COUNTED:
            self.rate.accepted(now, asked=first)

    def _adjust(self, now: float) -> None:
        """Pass on what was learned: to the history, the request limiter and the next waiter."""
        if not self.history or self.history[-1][1] != self.concurrency.limit:
            self._add_point(now)
        connections = self.concurrency.connections + WATCHER
        if connections != self._connections:
            self._connections = connections
            starved = self.concurrency.ceiling(now) is not None
            usual = self._requests.usual
            self._requests.ask(self, connections if starved else max(usual, connections))
        self._wake()

    def _add_point(self, now: float) -> None:
        """Keep the limit of now; once there are many points, of every second one only."""
        self.history.append((now, self.concurrency.limit))
        if len(self.history) > POINTS:
            del self.history[1::2]


def _bounds(concurrency: int | tuple[int, int] | None) -> tuple[int, int]:
    match concurrency:
        case None:
            return 1, MOST
        case (low, high):
            pass
        case number:
            low = high = number
    if low < 1 or high < low:
        raise ConfigError(
            f"Invalid concurrency {concurrency!r}.",
            hint="Pass a number from 1, or (low, high) with low at most high.",
        )
    return low, high
