"""A model of Dify's request rate limit: a sliding minute that counts refused requests too."""

from __future__ import annotations

import heapq
import math
from collections import deque
from random import Random
from typing import TYPE_CHECKING

from attrs import define, frozen

from dify_kb.ingest.pacing.rate_limit import Rate, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable


@frozen(kw_only=True)
class RateLimitCase:
    """The rate limit of a workspace, and the load on it."""

    limit: int
    window: float = 60.0
    in_flight: int = 8
    seconds: float = 0.15
    others: float = 0.0
    """Requests per minute of another client, in the second quarter of the run."""
    later: int | None = None
    """The limit in the second half of the run."""


@define
class CallCounts:
    """Numbers of accepted and refused requests of the load."""

    accepted: int = 0
    refused: int = 0

    @property
    def refused_part(self) -> float:
        """The refused part of the requests."""
        return self.refused / max(1, self.accepted + self.refused)


class RateLimitSimulation:
    """A run of `seconds` of a load with an endless supply of files."""

    def __init__(
        self, plan: RateLimitCase, limiter: RateLimiter | None, seconds: float, seed: int
    ) -> None:
        self.plan, self.limiter, self.seconds = plan, limiter, seconds
        self.random = Random(seed)
        self.tally = CallCounts()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._in_flight = 0
        self._calls: deque[float] = deque()
        self._looking = False

    def simulate(self) -> CallCounts:
        """Run the simulation."""
        self._feed(0.0)
        if self.plan.others:
            self._at(self.seconds / 4, self._other)
        while self._events:
            now, _, callback = heapq.heappop(self._events)
            if now > self.seconds:
                break
            callback(now)
        return self.tally

    def _at(self, at_time: float, callback: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at_time, self._count, callback))

    def _feed(self, now: float) -> None:
        while self._in_flight < self.plan.in_flight:
            at_time = self.limiter.next_start(now) if self.limiter else now
            if at_time > now:
                if not self._looking and at_time < math.inf:
                    self._looking = True
                    self._at(at_time, self._resume_feed)
                return
            if self.limiter:
                self.limiter.record_start(now)
            self._in_flight += 1
            self._at(now + self.random.uniform(0.001, 0.05), self._arrive)

    def _resume_feed(self, now: float) -> None:
        self._looking = False
        self._feed(now)

    def _count_call(self, now: float) -> bool:
        calls, plan = self._calls, self.plan
        calls.append(now)
        while calls[0] <= now - plan.window:
            calls.popleft()
        limit = plan.later if plan.later and now > self.seconds / 2 else plan.limit
        return len(calls) <= limit

    def _arrive(self, now: float) -> None:
        is_accepted = self._count_call(now)
        mean = self.plan.seconds if is_accepted else 0.01
        self._at(
            now + self.random.gammavariate(4, mean / 4), lambda end: self._end(end, is_accepted)
        )

    def _end(self, now: float, is_accepted: bool) -> None:  # noqa: FBT001 -- a callback
        self._in_flight -= 1
        self.tally.accepted += is_accepted
        self.tally.refused += not is_accepted
        if self.limiter and is_accepted:
            self.limiter.record_accepted(now)
        elif self.limiter:
            self.limiter.record_refused(now)
        self._feed(now)

    def _other(self, now: float) -> None:
        if now < self.seconds / 2:
            self._count_call(now)
            self._at(now + self.random.expovariate(self.plan.others / 60), self._other)


def simulate_rate_limit(
    plan: RateLimitCase, rate: str | None, windows: int = 20, seed: int = 1
) -> CallCounts:
    """Simulate a load over `windows`. `rate` states the limit; None lets the load learn it."""
    limiter = RateLimiter(Rate.parse(rate) if rate else None, Random(seed))
    return RateLimitSimulation(plan, limiter, windows * plan.window, seed).simulate()
