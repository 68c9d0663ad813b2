"""A discrete-event model of a Dify API server, to compare ways of pacing creates.

`simulate_limit` drives a limit alone; `simulate_load` drives the circuit breaker and the admission
of a load.

A create holds the processor of its process for `cpu` seconds (gamma, one at a time), waits `io`
seconds (gamma) for the database, and passes the lock of its dataset (`lock` seconds, one at a
time). `slots` keep-alive connections are served; a request on a further one waits up to 5 s.
Calibrated on creates of 1.4.3 and 1.12.1: one process, cpu .036, io .006, 10 connections.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Protocol, cast

import anyio
import virtual_time
from attrs import define, evolve, field, frozen

from dify_kb import LoadTiming
from dify_kb.errors import ServerError
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.transport import AttemptEvent, RequestLimiter
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from dify_kb.resources import Datasets

KEEP_ALIVE_SECONDS = 2.5
"""Seconds that the client keeps an idle connection."""


@frozen(kw_only=True)
class ServerCapacity:
    """The capacity of one server."""

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
    """A limit on the creates in flight."""

    @property
    def limit(self) -> int: ...  # noqa: D102
    def record_response(self, now: float, seconds: float, in_flight: int) -> None: ...  # noqa: D102
    def record_overload(self, now: float) -> None: ...  # noqa: D102


class FixedLimit:
    """The same number always."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def record_response(self, now: float, seconds: float, in_flight: int) -> None:
        """Learn nothing."""

    def record_overload(self, now: float) -> None:
        """Learn nothing."""


@define
class ModelResult:
    """The creates of a run."""

    times: list[float] = field(factory=list)
    ends: list[float] = field(factory=list)
    starved: int = 0
    wasted: int = 0
    limits: list[tuple[float, int]] = field(factory=list)

    def quantile(self, part: float) -> float:
        """Return the time that `part` of the creates did not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0

    def rate(self, since: float, until: float) -> float:
        """Return creates a second between two moments."""
        return sum(since <= end < until for end in self.ends) / (until - since)


@define
class _Request:
    began: float
    connection: int
    end: Callable[[_Request], None]
    fails: bool = False


class ServerModel:
    """One pod, which serves requests at the moments that `at` calls back.

    Args:
        at: calls a function back at a time.
        clock: the time now.
    """

    def __init__(
        self,
        pod: ServerCapacity,
        random: Random,
        clock: Callable[[], float],
        at: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.pod, self.starved = pod, 0
        self._random, self._clock, self._at = random, clock, at
        self._count = 0
        self._busy = [0] * pod.workers
        self._waiting: list[list[_Request]] = [[] for _ in range(pod.workers)]
        self._lock_free = 0.0
        self._idle: list[tuple[float, int]] = []
        self._open: dict[int, int] = {}

    def begin(self, end: Callable[[_Request], None]) -> None:
        """Receive a create, and call `end` when it is answered."""
        now = self._clock()
        request = _Request(now, self._connection(now), end)
        if request.connection:
            self._arrive(request)
            return
        self.starved += 1
        wait = self._random.uniform(0.2, 1) * self.pod.starve
        self._at(now + wait, lambda: self._arrive(request))

    def fails(self) -> bool:
        """Draw whether a request that is served now is answered with 5xx."""
        since, until, share = self.pod.failing
        return since <= self._clock() < until and self._random.random() < share

    def release(self, request: _Request) -> None:
        """Keep the connection of a request that was answered."""
        if request.connection:
            self._idle.append((self._clock(), request.connection))

    def _connection(self, now: float) -> int:
        """Return the connection used last, else a new one; 0 when the pod serves no more."""
        while self._idle and now - self._idle[0][0] > KEEP_ALIVE_SECONDS:
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
        newest = self._random.random() < self.pod.newest_first
        request = waiting.pop(-1 if newest else 0)
        self._busy[worker] = 1
        done = self._clock() + self._draw_seconds(self.pod.cpu)
        self._at(done, lambda: self._finish_cpu_work(worker, request))

    def _finish_cpu_work(self, worker: int, request: _Request) -> None:
        self._busy[worker] = 0
        self._serve(worker)
        request.fails = self.fails()
        done = self._clock()
        if self.pod.lock:
            done = self._lock_free = max(done, self._lock_free) + self._draw_seconds(self.pod.lock)
        done += self._draw_seconds(self.pod.io)
        if self.pod.stalls and self._random.random() < self.pod.stalls:
            done += self.pod.stall
        self._at(done, lambda: request.end(request))

    def _draw_seconds(self, mean: float) -> float:
        since, until, times = self.pod.slow
        shape = self.pod.shape
        drawn = self._random.gammavariate(shape, mean / shape)
        return drawn * times if since <= self._clock() < until else drawn


class LimitSimulation:
    """A loop that keeps `controller.limit` creates in flight for `seconds`, without a circuit
    breaker.
    """

    def __init__(
        self, pod: ServerCapacity, controller: Controller, seconds: float, seed: int
    ) -> None:
        self.controller, self.seconds = controller, seconds
        self.outcome = ModelResult()
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._in_flight = 0
        self._server = ServerModel(pod, Random(seed), lambda: self._now, self._at)

    def simulate(self) -> ModelResult:
        """Run it."""
        self._feed()
        while self._events:
            self._now, _, callback = heapq.heappop(self._events)
            if self._now > self.seconds:
                break
            callback()
        self.outcome.starved = self._server.starved
        return self.outcome

    def _at(self, at_time: float, callback: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at_time, self._count, callback))

    def _feed(self) -> None:
        while self._in_flight < self.controller.limit:
            self._in_flight += 1
            self._server.begin(self._end)

    def _end(self, request: _Request) -> None:
        seconds = self._now - request.began
        if request.fails:
            self.outcome.wasted += 1
            self.controller.record_overload(self._now)
        else:
            self.outcome.times.append(seconds)
            self.outcome.ends.append(self._now)
            self.controller.record_response(self._now, seconds, self._in_flight)
        self._server.release(request)
        self._in_flight -= 1
        self.outcome.limits.append((self._now, self.controller.limit))
        self._feed()


class LoadSimulation:
    """The circuit breaker and the admission of a load, with workers that always have a file."""

    def __init__(self, pod: ServerCapacity, seed: int, times: LoadTiming) -> None:
        self.outcome = ModelResult()
        loop = asyncio.get_running_loop()
        self._server = ServerModel(pod, Random(seed), loop.time, loop.call_at)
        self.breaker = CircuitBreaker(cast("Datasets", self), "dataset", times, Random(seed))
        self.admission = Admission(
            None, None, RequestLimiter(8), self.breaker, loop.time, Random(seed)
        )

    async def run(self, seconds: float) -> ModelResult:
        """Load for so many seconds."""
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                for _ in range(self.admission.max_limit):
                    tasks.start_soon(self._work)
        self.outcome.starved = self._server.starved
        return self.outcome

    async def get(self, dataset_id: str, /) -> object:
        """Answer a probe of the circuit breaker.

        Raises:
            ServerError: the pod fails now.
        """
        fails = self._server.fails()
        self._observe(catalog.GET_DATASET.name, 0.01, fails=fails)
        if fails:
            raise ServerError("500", endpoint=catalog.GET_DATASET.name, status=500)
        return dataset_id

    async def _work(self) -> None:
        while True:
            await self.admission.acquire()
            try:
                await self._create()
            finally:
                self.admission.release()

    async def _create(self) -> None:
        answered = anyio.Event()
        now, ended = anyio.current_time(), list[_Request]()

        def end(request: _Request) -> None:
            ended.append(request)
            answered.set()

        self._server.begin(end)
        await answered.wait()
        request, seconds = ended[0], anyio.current_time() - now
        self._observe(catalog.CREATE_DOCUMENT_BY_FILE.name, seconds, fails=request.fails)
        if request.fails:
            self.outcome.wasted += 1
        else:
            self.outcome.times.append(seconds)
            self.outcome.ends.append(now + seconds)
        self._server.release(request)
        self.outcome.limits.append((now + seconds, self.admission.limit))

    def _observe(self, endpoint: str, seconds: float, *, fails: bool) -> None:
        self.admission.record(
            AttemptEvent(
                endpoint=endpoint,
                attempt=1,
                status=500 if fails else 200,
                seconds=seconds,
                server_seconds=None if fails else seconds,
                retry_in=None,
                error="500" if fails else None,
                failure_kind="failed" if fails else None,
            )
        )


def simulate_limit(
    pod: ServerCapacity, controller: Controller, seconds: float = 120.0, seed: int = 1
) -> ModelResult:
    """Run a limit alone against one pod."""
    return LimitSimulation(pod, controller, seconds, seed).simulate()


def simulate_load(pod: ServerCapacity, seconds: float = 120.0, seed: int = 1) -> ModelResult:
    """Run the circuit breaker and the admission of a load against one pod, in virtual time."""

    async def work() -> ModelResult:
        return await LoadSimulation(pod, seed, LoadTiming()).run(seconds)

    return virtual_time.run(work)


DEFAULT = ServerCapacity(name="1 process x 10", lock=0.002)
NEWEST = evolve(DEFAULT, name="1 x 10, newest first", newest_first=0.8)
BUSY = ServerCapacity(name="4 x 32, busy", workers=4, slots=128)
ELSEWHERE = evolve(BUSY, name="4 x 32, database elsewhere", cpu=0.010, io=0.060)
LOCKED = evolve(ELSEWHERE, name="4 x 32, a lock of 2 ms", lock=0.002)
WAITING = ServerCapacity(name="1 x 10, database elsewhere", cpu=0.010, io=0.060)
CRAMPED = evolve(ELSEWHERE, name="4 x 10, database elsewhere", slots=40)
WIDE = ServerCapacity(name="16 x 10", workers=16, slots=160, cpu=0.020, io=0.040)
WILD = evolve(ELSEWHERE, name="4 x 32, wild times", shape=0.5)
STALLING = evolve(ELSEWHERE, name="4 x 32, 2 % stall a second", stalls=0.02)
SERVERS = (DEFAULT, NEWEST, WAITING, BUSY, ELSEWHERE, LOCKED, CRAMPED, WIDE, WILD, STALLING)

QUICK = ServerCapacity(name="answers at once", slots=1000, cpu=0.00045, io=0.0003)
JITTERY = evolve(QUICK, name="at once, with jitter", shape=0.3)
"""The processor here is that of our own loop."""
