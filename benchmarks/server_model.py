"""A discrete-event model of a Dify API server, to compare pacing methods.

`simulate_limit` simulates a concurrency limit; `simulate_load` simulates the circuit breaker and
the admission of a load.

A create request uses the CPU of its process for `cpu` seconds (gamma, one at a time), waits `io`
seconds (gamma) for the database, and acquires the lock of its dataset (`lock` seconds, one at a
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
    """Shape of the gamma distributions: 4 is steady, 0.5 varies widely."""
    newest_first: float = 0.0
    """Share of turns given to the newest waiting request, so that p95 grows before p50."""
    slow: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Start and end, in seconds, and the factor of the slowdown."""
    failing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Start and end, in seconds, and the share of 5xx responses."""
    stalls: float = 0.0
    """Share of create requests that take `stall` seconds longer."""
    stall: float = 1.0


class Controller(Protocol):
    """A limit of the create requests in flight."""

    @property
    def limit(self) -> int: ...  # noqa: D102
    def record_response(self, now: float, seconds: float, in_flight: int) -> None: ...  # noqa: D102
    def record_overload(self, now: float) -> None: ...  # noqa: D102


class FixedLimit:
    """A constant limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def record_response(self, now: float, seconds: float, in_flight: int) -> None:
        """Learn nothing."""

    def record_overload(self, now: float) -> None:
        """Learn nothing."""


@define
class ModelResult:
    """The create requests of a run."""

    times: list[float] = field(factory=list)
    ends: list[float] = field(factory=list)
    starved: int = 0
    wasted: int = 0
    limits: list[tuple[float, int]] = field(factory=list)

    def quantile(self, part: float) -> float:
        """Return the quantile `part` (0 to 1) of the request times."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0

    def rate(self, since: float, until: float) -> float:
        """Return the create requests per second between two times."""
        return sum(since <= end < until for end in self.ends) / (until - since)


@define
class _Request:
    began: float
    connection: int
    end: Callable[[_Request], None]
    fails: bool = False


class ServerModel:
    """A pod that serves requests in simulated time.

    Args:
        clock: returns the current time.
        at: schedules a callback at a time.
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
        """Receive a create request, and call `end` with the response."""
        now = self._clock()
        request = _Request(now, self._connection(now), end)
        if request.connection:
            self._arrive(request)
            return
        self.starved += 1
        wait = self._random.uniform(0.2, 1) * self.pod.starve
        self._at(now + wait, lambda: self._arrive(request))

    def fails(self) -> bool:
        """Return, at random, whether a request served now fails with 5xx."""
        since, until, share = self.pod.failing
        return since <= self._clock() < until and self._random.random() < share

    def release(self, request: _Request) -> None:
        """Return the connection of a finished request to the idle ones."""
        if request.connection:
            self._idle.append((self._clock(), request.connection))

    def _connection(self, now: float) -> int:
        """Return the last used idle connection or a new one; 0 if the pod has no free slot."""
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
        # A connection stays with the process that accepted it.
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
    """A closed loop of `controller.limit` create requests, without a circuit breaker."""

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
        """Run the simulation."""
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
    """The circuit breaker and the admission of a load with an endless supply of files."""

    def __init__(self, pod: ServerCapacity, seed: int, times: LoadTiming) -> None:
        self.outcome = ModelResult()
        loop = asyncio.get_running_loop()
        self._server = ServerModel(pod, Random(seed), loop.time, loop.call_at)
        self.breaker = CircuitBreaker(cast("Datasets", self), "dataset", times, Random(seed))
        self.admission = Admission(
            None, None, RequestLimiter(8), self.breaker, loop.time, Random(seed)
        )

    async def run(self, seconds: float) -> ModelResult:
        """Run the load for `seconds`."""
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                for _ in range(self.admission.max_limit):
                    tasks.start_soon(self._work)
        self.outcome.starved = self._server.starved
        return self.outcome

    async def get(self, dataset_id: str, /) -> object:
        """Respond to a probe of the circuit breaker.

        Raises:
            ServerError: the pod is failing.
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
    """Simulate a concurrency limit against one pod."""
    return LimitSimulation(pod, controller, seconds, seed).simulate()


def simulate_load(pod: ServerCapacity, seconds: float = 120.0, seed: int = 1) -> ModelResult:
    """Simulate the circuit breaker and the admission of a load against one pod."""

    async def work() -> ModelResult:
        return await LoadSimulation(pod, seed, LoadTiming()).run(seconds)

    return virtual_time.run(work)


DEFAULT = ServerCapacity(name="1 process x 10", lock=0.002)
NEWEST = evolve(DEFAULT, name="1 x 10, newest first", newest_first=0.8)
BUSY = ServerCapacity(name="4 x 32, busy", workers=4, slots=128)
ELSEWHERE = evolve(BUSY, name="4 x 32, remote database", cpu=0.010, io=0.060)
LOCKED = evolve(ELSEWHERE, name="4 x 32, lock of 2 ms", lock=0.002)
WAITING = ServerCapacity(name="1 x 10, remote database", cpu=0.010, io=0.060)
CRAMPED = evolve(ELSEWHERE, name="4 x 10, remote database", slots=40)
WIDE = ServerCapacity(name="16 x 10", workers=16, slots=160, cpu=0.020, io=0.040)
WILD = evolve(ELSEWHERE, name="4 x 32, high variance", shape=0.5)
STALLING = evolve(ELSEWHERE, name="4 x 32, 2 % stall for 1 s", stalls=0.02)
SERVERS = (DEFAULT, NEWEST, WAITING, BUSY, ELSEWHERE, LOCKED, CRAMPED, WIDE, WILD, STALLING)

QUICK = ServerCapacity(name="immediate responses", slots=1000, cpu=0.00045, io=0.0003)
JITTERY = evolve(QUICK, name="immediate, with jitter", shape=0.3)
"""Here the client's event loop is the bottleneck."""
