"""A discrete-event model of a Dify API server, to compare ways of pacing creates.

A create holds the processor of its process for `cpu` seconds (gamma, one at a time), waits `io`
seconds (gamma) for the database, and passes the lock of its dataset (`lock` seconds, one at a
time). `slots` keep-alive connections are served; a request on a further one waits up to 5 s.
Calibrated on creates of 1.4.3 and 1.12.1: one process, cpu .036, io .006, 10 connections.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field, frozen

from dify_kb.ingest.pacing.budget import Budget
from dify_kb.ingest.pacing.concurrency_limit import ConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 2.5
"""Seconds that the client keeps an idle connection."""


@frozen(kw_only=True)
class Pod:
    """What one server is like."""

    name: str
    workers: int = 1
    cpu: float = 0.036
    io: float = 0.006
    lock: float = 0.0
    slots: int = 10
    starve: float = 5.0
    shape: float = 4.0
    """Of the gamma distributions: 4 is steady, 0.5 is wild."""
    newest_first: float = 0.0
    """Share of turns that go to the newest waiting request; what makes p95 grow before p50."""
    slow: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """From, until, times so slow."""
    failing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From, until, share of 5xx."""
    stalls: float = 0.0
    """Share of creates that take `stall` seconds more for no reason of ours."""
    stall: float = 1.0


class Controller(Protocol):
    """What decides how many may be in flight."""

    @property
    def limit(self) -> int: ...  # noqa: D102
    def replied(self, now: float, seconds: float, in_flight: int) -> None: ...  # noqa: D102
    def overloaded(self, now: float) -> None: ...  # noqa: D102


class Fixed:
    """The same number always."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def replied(self, now: float, seconds: float, in_flight: int) -> None:
        """Learn nothing."""

    def overloaded(self, now: float) -> None:
        """Learn nothing."""


class Guarded:
    """A load: `ConcurrencyLimit` with a `Budget`, probes at 1, 2, 4 … 30 s when that is empty."""

    def __init__(self) -> None:
        self._knee, self._budget = ConcurrencyLimit(), Budget()
        self._probe_at = math.inf
        self._delay = 1.0
        self._good = 0

    @property
    def limit(self) -> int:
        """Nothing while the server is thought to be gone."""
        return 0 if self._budget.broken else self._knee.limit

    def replied(self, now: float, seconds: float, in_flight: int) -> None:
        """Tell both."""
        self._budget.succeeded(now)
        self._knee.replied(now, seconds, in_flight)

    def overloaded(self, now: float) -> None:
        """Tell both."""
        if not self._budget.broken:
            self._budget.failed(now, "failed")
            self._probe_at, self._delay, self._good = now + 1.0, 1.0, 0
        self._knee.overloaded(now)

    def probe(self, now: float, *, works: bool) -> None:
        """Ask, when it is time, whether the server `works`; go on after two answers."""
        if not self._budget.broken or now < self._probe_at:
            return
        self._good = self._good + 1 if works else 0
        if self._good == 2:
            self._budget.mended(now)
            self._knee.reopen(now)
            return
        self._delay = 1.0 if works else min(30.0, 2 * self._delay)
        self._probe_at = now + self._delay


@define
class Outcome:
    """What a run did."""

    times: list[float] = field(factory=list)
    ends: list[float] = field(factory=list)
    starved: int = 0
    wasted: int = 0
    limits: list[tuple[float, int]] = field(factory=list)

    def quantile(self, part: float) -> float:
        """Give the time that `part` of the creates did not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0

    def rate(self, since: float, until: float) -> float:
        """Give creates a second between two moments."""
        return sum(since <= end < until for end in self.ends) / (until - since)


@define
class _Request:
    began: float
    connection: int
    fails: bool = False


class Run:
    """One load of `seconds` against one pod: a loop that keeps `controller.limit` in flight."""

    def __init__(self, pod: Pod, controller: Controller, seconds: float, seed: int) -> None:
        self.pod, self.controller, self.seconds = pod, controller, seconds
        self.random = Random(seed)
        self.outcome = Outcome()
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._in_flight = 0
        self._busy = [0] * pod.workers
        self._waiting: list[list[_Request]] = [[] for _ in range(pod.workers)]
        self._lock_free = 0.0
        self._idle: list[tuple[float, int]] = []
        self._open: dict[int, int] = {}

    def go(self) -> Outcome:
        """Run it."""
        self._feed()
        if isinstance(self.controller, Guarded):
            self._at(0.1, self._tick)
        while self._events:
            self._now, _, then = heapq.heappop(self._events)
            if self._now > self.seconds:
                break
            then()
        return self.outcome

    def _at(self, when: float, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, then))

    def _feed(self) -> None:
        while self._in_flight < self.controller.limit:
            self._in_flight += 1
            self._begin()

    def _tick(self) -> None:
        if isinstance(self.controller, Guarded):
            self.controller.probe(self._now, works=not self._fails())
        self._feed()
        self._at(self._now + 0.1, self._tick)

    def _begin(self) -> None:
        request = _Request(self._now, self._connection())
        if request.connection:
            self._arrive(request)
            return
        self.outcome.starved += 1
        wait = self.random.uniform(0.2, 1) * self.pod.starve
        self._at(self._now + wait, lambda: self._arrive(request))

    def _connection(self) -> int:
        """Take the connection used last, else open one; 0 when the pod serves no more."""
        while self._idle and self._now - self._idle[0][0] > KEPT:
            del self._open[self._idle.pop(0)[1]]
        if self._idle:
            return self._idle.pop()[1]
        if len(self._open) >= self.pod.slots:
            return 0
        self._count += 1
        held = Counter(self._open.values())
        self._open[self._count] = min(range(self.pod.workers), key=held.__getitem__)
        return self._count

    def _arrive(self, request: _Request) -> None:
        # A connection stays with the process that took it.
        worker = self._open.get(request.connection, 0)
        self._waiting[worker].append(request)
        self._serve(worker)

    def _serve(self, worker: int) -> None:
        waiting = self._waiting[worker]
        if self._busy[worker] or not waiting:
            return
        newest = self.random.random() < self.pod.newest_first
        request = waiting.pop(-1 if newest else 0)
        self._busy[worker] = 1
        self._at(self._now + self._drawn(self.pod.cpu), lambda: self._served(worker, request))

    def _served(self, worker: int, request: _Request) -> None:
        self._busy[worker] = 0
        self._serve(worker)
        request.fails = self._fails()
        done = self._now
        if self.pod.lock:
            done = self._lock_free = max(done, self._lock_free) + self._drawn(self.pod.lock)
        done += self._drawn(self.pod.io)
        if self.pod.stalls and self.random.random() < self.pod.stalls:
            done += self.pod.stall
        self._at(done, lambda: self._end(request))

    def _fails(self) -> bool:
        since, until, share = self.pod.failing
        return since <= self._now < until and self.random.random() < share

    def _drawn(self, mean: float) -> float:
        since, until, times = self.pod.slow
        shape = self.pod.shape
        drawn = self.random.gammavariate(shape, mean / shape)
        return drawn * times if since <= self._now < until else drawn

    def _end(self, request: _Request) -> None:
        seconds = self._now - request.began
        if request.fails:
            self.outcome.wasted += 1
            self.controller.overloaded(self._now)
        else:
            self.outcome.times.append(seconds)
            self.outcome.ends.append(self._now)
            self.controller.replied(self._now, seconds, self._in_flight)
        if request.connection:
            self._idle.append((self._now, request.connection))
        self._in_flight -= 1
        self.outcome.limits.append((self._now, self.controller.limit))
        self._feed()


def run(pod: Pod, controller: Controller, seconds: float = 120.0, seed: int = 1) -> Outcome:
    """Run one load against one pod."""
    return Run(pod, controller, seconds, seed).go()


DEFAULT = Pod(name="1 process x 10", lock=0.002)
NEWEST = evolve(DEFAULT, name="1 x 10, newest first", newest_first=0.8)
BUSY = Pod(name="4 x 32, busy", workers=4, slots=128)
ELSEWHERE = evolve(BUSY, name="4 x 32, database elsewhere", cpu=0.010, io=0.060)
LOCKED = evolve(ELSEWHERE, name="4 x 32, a lock of 2 ms", lock=0.002)
WAITING = Pod(name="1 x 10, database elsewhere", cpu=0.010, io=0.060)
CRAMPED = evolve(ELSEWHERE, name="4 x 10, database elsewhere", slots=40)
WIDE = Pod(name="16 x 10", workers=16, slots=160, cpu=0.020, io=0.040)
WILD = evolve(ELSEWHERE, name="4 x 32, wild times", shape=0.5)
STALLING = evolve(ELSEWHERE, name="4 x 32, 2 % stall a second", stalls=0.02)
PODS = (DEFAULT, NEWEST, WAITING, BUSY, ELSEWHERE, LOCKED, CRAMPED, WIDE, WILD, STALLING)

QUICK = Pod(name="answers at once", slots=1000, cpu=0.00045, io=0.0003)
JITTERY = evolve(QUICK, name="at once, with jitter", shape=0.3)
"""The processor here is that of our own loop."""
