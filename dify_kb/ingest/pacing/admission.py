"""Letting creates in, one by one: as many as the server takes, at the rate that it allows.

`async with admission` holds one slot; every attempt's event goes to `observe`. What the events
show drives three parts that know nothing of each other: `ConcurrencyLimit` (how many at once),
`RateLimiter` (how many a minute) and `Budget` (whether the server is there at all).
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

from .budget import Budget
from .concurrency_limit import ConcurrencyLimit
from .rate_limit import Rate, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dify_kb.transport.events import Attempted, Trouble
    from dify_kb.transport.request_limiter import RequestLimiter

    from .budget import Failure

MOST = 64
"""Creates at once that are looked for: no server measured had its knee higher."""

OVERLOAD = (0.5, 2.0, 60.0)
"""Seconds without a create after 429 or 503: the least, the bound of the first, that of any."""

HINT = 300.0
"""Seconds. A `Retry-After` beyond this is cut to it."""

WATCHER = 1
"""Connections beside the creates: one look at what is indexed."""

POINTS = 100
"""Points kept of the history of the limit."""

CREATES = frozenset({catalog.CREATE_DOCUMENT_BY_FILE.name, catalog.CREATE_DOCUMENT_BY_TEXT.name})

COUNTED = frozenset(
    endpoint.name
    for endpoint in catalog.ENDPOINTS
    if endpoint.method != "GET" and not endpoint.name.startswith("tags.")
) - {catalog.SET_DOCUMENT_STATUS.name}
"""Calls that Dify's limit counts: what writes, and retrieval (measured on 1.12.1)."""

_KINDS: dict[Trouble, Failure] = {
    "overload": "throttled",
    "timeout": "timeout",
    "unreachable": "failed",
    "failed": "failed",
}


class _Waiter:
    """One in line; `called` is set when it should look whether it may go."""

    def __init__(self) -> None:
        self.called = anyio.Event()


class Admission:
    """The gate that the creates of one load go through; first come, first served.

    A create that was refused for its rate should come back through here, not be tried again
    inside its slot: the wait is then known to nobody, and the try counts.

    Args:
        concurrency: creates at once: None finds it, a number fixes it, (low, high) bounds it.
        rate: a stated quota, like `100/min`; None learns it from refusals.
        pace: widened to the creates and one watcher where more of them help, and narrowed where
            connections starve, until `close`.
        unit: how long a second of all this lasts; tests make it short.
    """

    def __init__(
        self,
        concurrency: int | tuple[int, int] | None,
        rate: str | None,
        pace: RequestLimiter,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        *,
        unit: float = 1.0,
    ) -> None:
        low, high = _bounds(concurrency)
        if pace.fixed:
            low, high = min(low, pace.limit), min(high, pace.limit)
        self.quota = RateLimiter(Rate.read(rate) if rate else None, random or Random())
        self.knee = ConcurrencyLimit(low, high)
        self.budget = Budget()
        self.in_flight = 0
        self.history: list[tuple[float, int]] = []
        self._pace = pace
        self._clock = clock
        self._unit = unit
        self._random = random or Random()
        self._waiters: deque[_Waiter] = deque()
        self._broke = anyio.Event()
        self._unanswered = 0
        self._closed_until = -math.inf
        self._overloads = 0
        self._connections = 0

    @property
    def limit(self) -> int:
        """Creates that may be in flight now."""
        return self.knee.limit

    @property
    def most(self) -> int:
        """Creates that may ever be in flight."""
        return self.knee.high

    @property
    def broken(self) -> bool:
        """Whether so much failed that nothing is let in before `reopen`."""
        return self.budget.broken

    def reopen(self) -> None:
        """Let creates in again, at half of the limit: the server answers."""
        now = self._now()
        self.budget.mended(now)
        self._broke = anyio.Event()
        self.knee.reopen(now)
        self._follow(now)

    async def outage(self) -> None:
        """Wait until it is broken."""
        await self._broke.wait()

    def _now(self) -> float:
        return self._clock() / self._unit

    def close(self) -> None:
        """Give the pace its own number of requests back."""
        self._pace.ask(self, None)

    def observe(self, event: Attempted) -> None:
        """Learn from an attempt at any call; to be called as it ends, in the loop thread."""
        now = self._now()
        creates = event.endpoint in CREATES
        self._spend(event, now, creates=creates)
        trouble = event.trouble
        if trouble is None and event.status is not None:
            self._overloads = 0
            self.budget.succeeded(now)
            if creates and event.error is None:
                seconds = event.seconds if event.waited is None else event.waited
                self.knee.replied(now, seconds, self.in_flight)
        elif trouble is not None and trouble != "quota":
            self.budget.failed(now, _KINDS[trouble])
            if creates:
                self.knee.overloaded(now)
            if trouble == "overload":
                self._pause(now, event.retry_after)
        self._follow(now)

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
        if self._waiters or self._earliest(now) > now:
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
            self.quota.dropped()
        self._wake()

    async def _wait(self) -> None:
        """Wait for a turn, and take it. Only the first in line looks, and wakes the next."""
        me = _Waiter()
        self._waiters.append(me)
        try:
            while True:
                now = self._now()
                when = self._earliest(now) if self._waiters[0] is me else math.inf
                if when <= now:
                    self._enter(now)
                    return
                me.called = anyio.Event()
                if when == math.inf:
                    await me.called.wait()
                    continue
                with anyio.move_on_after((when - now) * self._unit):
                    await me.called.wait()
        finally:
            self._waiters.remove(me)
            self._wake()

    def _enter(self, now: float) -> None:
        self.in_flight += 1
        self._unanswered += 1
        self.quota.started(now)

    def _wake(self) -> None:
        """Let the first in line look; while all slots are taken, who leaves one does this."""
        if self._waiters and self.in_flight < self.knee.limit:
            self._waiters[0].called.set()

    def _earliest(self, now: float) -> float:
        if self.budget.broken or self.in_flight >= self.knee.limit:
            return math.inf
        return max(self._closed_until, self.quota.earliest(now))

    def _spend(self, event: Attempted, now: float, *, creates: bool) -> None:
        """Tell the quota what became of a call that counts."""
        first = creates and event.attempt == 1 and self._unanswered > 0
        self._unanswered -= first
        arrived = event.status is not None or event.trouble in {"timeout", "failed"}
        if first and not arrived:
            self.quota.dropped()
        elif event.trouble == "quota":
            self.quota.refused(now, asked=first)
        elif arrived and event.endpoint in COUNTED:
            self.quota.accepted(now, asked=first)

    def _pause(self, now: float, hint: float | None) -> None:
        least, first, longest = OVERLOAD
        bound = min(longest, first * 2.0 ** min(self._overloads, 16))
        seconds = self._random.uniform(least, bound)
        if hint is not None:
            seconds = max(seconds, min(hint, HINT) / self._unit) * self._random.uniform(1.0, 1.1)
        if now >= self._closed_until:
            self._overloads += 1
        self._closed_until = max(self._closed_until, now + seconds)

    def _follow(self, now: float) -> None:
        """Let what was learned have its effect."""
        if not self.history or self.history[-1][1] != self.knee.limit:
            self._record(now)
        connections = self.knee.connections + WATCHER
        if connections != self._connections:
            self._connections = connections
            starved = self.knee.ceiling(now) is not None
            self._pace.ask(self, connections if starved else max(self._pace.usual, connections))
        self._wake()
        if self.budget.broken:
            self._broke.set()

    def _record(self, now: float) -> None:
        """Keep the limit of now; once there are many points, of every second one only."""
        self.history.append((now, self.knee.limit))
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
            f"concurrency={concurrency!r} lets nothing in.",
            hint="Pass a number from 1, or (low, high) with low at most high.",
        )
    return low, high
