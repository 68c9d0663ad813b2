"""Admission of uploads: waiting order, rates, outages, and request limits."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from virtual_time import run

from dify_kb import AsyncClient, LoadTiming, Retry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, ConnectError, RateLimitedError
from dify_kb.ingest.pacing.admission import MAX_HISTORY, Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.resources import Datasets
from dify_kb.transport import AttemptEvent, RequestLimiter

CREATE = "documents.create_by_file"


class Server:
    """A server that responds to probes unless it is down."""

    def __init__(self) -> None:
        self.down = False

    async def get(self, dataset_id: str, /) -> object:
        if self.down:
            raise ConnectError("refused", endpoint="datasets.get")
        return dataset_id


@asynccontextmanager
async def slot(admission: Admission) -> AsyncIterator[None]:
    await admission.acquire()
    try:
        yield
    finally:
        admission.release()


def make_admission(
    concurrency: int | tuple[int, int] | None = 2,
    rate: str | None = None,
    requests: RequestLimiter | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Admission:
    breaker = CircuitBreaker(cast("Datasets", Server()), "dataset", LoadTiming(), Random(1))
    return Admission(concurrency, rate, requests or RequestLimiter(8), breaker, clock, Random(1))


def make_attempt(**values: object) -> AttemptEvent:
    """Create an attempt of a successful upload, with `values` replaced."""
    defaults: dict[str, object] = {
        "endpoint": CREATE,
        "attempt": 1,
        "status": 200,
        "seconds": 0.05,
        "server_seconds": 0.04,
        "retry_in": None,
        "error": None,
    }
    return AttemptEvent(**(defaults | values))  # type: ignore[arg-type]  # as the names say


def make_failed_attempt(kind: str, status: int | None = None, **values: object) -> AttemptEvent:
    return make_attempt(failure_kind=kind, status=status, error="no", server_seconds=None, **values)


async def can_acquire(admission: Admission, within: float = 0.05) -> bool:
    """Return whether an upload is admitted within `within` seconds."""
    with anyio.move_on_after(within):
        async with slot(admission):
            return True
    return False


# --- waiting


async def test_limit_is_not_exceeded_and_the_queue_is_first_in_first_out() -> None:
    admission, order, max_in_flight = make_admission(2), list[int](), 0

    async def upload(number: int) -> None:
        nonlocal max_in_flight
        async with slot(admission):
            order.append(number)
            max_in_flight = max(max_in_flight, admission.in_flight)
            await anyio.sleep(0.001 * (number % 3))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(upload, number)

    assert order == list(range(20))
    assert max_in_flight == 2
    assert admission.in_flight == 0


async def test_cancelled_waiter_takes_no_slot() -> None:
    admission = make_admission(1)
    async with slot(admission), anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(can_acquire, admission)
        await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    assert admission.in_flight == 0
    assert await can_acquire(admission)


async def test_next_waiter_is_served_when_the_first_is_cancelled() -> None:
    admission = make_admission(1)
    entered = anyio.Event()

    async def second() -> None:
        async with slot(admission):
            entered.set()

    async with anyio.create_task_group() as group:
        async with slot(admission):
            group.start_soon(can_acquire, admission, 0.02)
            await anyio.sleep(0.001)
            group.start_soon(second)
            await anyio.sleep(0.04)
        with anyio.fail_after(10):
            await entered.wait()


async def test_next_waiter_waits_for_the_rate_when_the_first_is_cancelled() -> None:
    """Only the head of the queue has a timer; the next waiter must start another."""
    admission = make_admission(8, "10/s")
    assert await can_acquire(admission)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(can_acquire, admission, 0.01)
            await anyio.sleep(0.001)
            async with slot(admission):
                pass


async def test_raised_limit_admits_waiters() -> None:
    admission, inside = make_admission(None), 0

    async def upload() -> None:
        nonlocal inside
        async with slot(admission):
            inside += 1
            await anyio.sleep_forever()

    now = [0.0]
    admission._clock = lambda: now[0]
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(upload)
        await anyio.wait_all_tasks_blocked()
        assert inside == admission.limit == 1
        for _ in range(12):
            now[0] += 0.04
            admission.record(make_attempt())
        await anyio.wait_all_tasks_blocked()
        assert inside == admission.limit == 2
        group.cancel_scope.cancel()


async def test_waiting_uses_no_loop_iterations() -> None:
    admission, check_count = make_admission(1), 0
    earliest = admission._next_start

    def count_check(now: float) -> float:
        nonlocal check_count
        check_count += 1
        return earliest(now)

    admission._next_start = count_check  # type: ignore[method-assign]  # to count
    async with slot(admission), anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(can_acquire, admission)
        await anyio.sleep(0.02)
        group.cancel_scope.cancel()

    assert check_count < 40


# --- rates


async def test_configured_rate_spaces_creates() -> None:
    admission = make_admission(8, "50/s")
    started = anyio.current_time()
    for _ in range(6):
        async with slot(admission):
            admission.record(make_attempt())

    assert 0.09 <= anyio.current_time() - started < 5


async def test_rate_limit_refusal_stops_admission() -> None:
    admission = make_admission()
    async with slot(admission):
        admission.record(make_failed_attempt("quota", 403))

    assert not await can_acquire(admission)
    assert admission.breaker.is_closed


async def test_unsent_create_does_not_count_as_pending() -> None:
    """Otherwise each unreadable file would permanently reduce a learned limit by one call."""
    admission = make_admission(8, "3/min")
    now = 0.0
    admission._clock = lambda: now
    for attempt in (None, make_attempt(status=None, error="gone", server_seconds=None)) * 3:
        async with slot(admission):
            if attempt is not None:
                admission.record(attempt)
        now += 30

    assert admission.rate._pending == 0
    assert admission.rate.next_start(now) <= now


async def test_other_rate_limited_calls_are_counted() -> None:
    admission = make_admission(8, "2/min")
    admission.record(make_attempt(endpoint="metadata.assign"))
    admission.record(make_attempt(endpoint="datasets.retrieve"))
    admission.record(make_attempt(endpoint="documents.list"))
    admission.record(make_attempt(endpoint="tags.bind"))

    assert len(admission.rate._window) == 2


# --- overload and outages


async def test_retry_after_delays_uploads() -> None:
    admission = make_admission()
    admission.record(make_failed_attempt("overload", 503, retry_after=30.0))

    assert admission.breaker.overload_delay() > 29
    assert not await can_acquire(admission)


async def test_retry_after_of_years_is_capped() -> None:
    admission = make_admission()
    admission.record(make_failed_attempt("overload", 429, retry_after=1e9))

    assert admission.breaker.overload_delay() < 331


def run_in_virtual_time(scenario: Callable[[Admission, Server], Awaitable[None]]) -> None:
    """Run `scenario` in virtual time with an admission whose breaker probes a server."""

    async def execute() -> None:
        server = Server()
        breaker = CircuitBreaker(cast("Datasets", server), "dataset", LoadTiming(), Random(1))
        admission = Admission(
            (16, 64), None, RequestLimiter(8), breaker, anyio.current_time, Random(1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(breaker.run)
            await scenario(admission, server)
            tasks.cancel_scope.cancel()

    run(execute)


def test_outage_blocks_uploads_and_halves_the_limit() -> None:
    async def scenario(admission: Admission, server: Server) -> None:
        for _ in range(12):
            await anyio.sleep(0.04)
            admission.record(make_attempt())
        server.down = True
        while admission.breaker.is_closed:
            admission.record(make_failed_attempt("unreachable"))
        limit = admission.limit
        assert not await can_acquire(admission, 100)
        server.down = False
        began = anyio.current_time()
        await admission.acquire()

        assert anyio.current_time() - began < 33
        assert admission.limit == max(16, limit // 2)
        await admission.acquire()  # the next upload does not wait
        assert admission.in_flight == 2

    run_in_virtual_time(scenario)


def test_all_queued_uploads_continue_after_an_outage() -> None:
    """All waiters are woken, also if the first is cancelled during the outage."""
    entered: list[float] = []

    async def scenario(admission: Admission, server: Server) -> None:
        async def upload() -> None:
            async with slot(admission):
                entered.append(anyio.current_time())
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            server.down = True
            admission.breaker.trip("no response")
            tasks.start_soon(can_acquire, admission, 5.0)
            await checkpoint()
            for _ in range(100):
                tasks.start_soon(upload)
            await anyio.sleep(50)
            assert not entered
            server.down = False

    run_in_virtual_time(scenario)

    assert len(entered) == 100


def test_uploads_wait_for_the_dataset_lock() -> None:
    async def scenario(admission: Admission, _server: Server) -> None:
        await anyio.sleep(60)
        for _ in range(2):
            admission.record(make_failed_attempt("timeout", seconds=60.0))
        admission.record(make_attempt(endpoint="documents.list"))
        assert admission.breaker.has_blocked_uploads
        await admission.acquire()
        assert anyio.current_time() == LoadTiming().dataset_lock_time

    run_in_virtual_time(scenario)


def test_nothing_is_admitted_after_giving_up_on_the_server() -> None:
    async def scenario(admission: Admission, server: Server) -> None:
        server.down = True
        admission.breaker.trip("no response")
        await admission.breaker.wait_closed()
        assert admission.breaker.failure is not None
        assert not await can_acquire(admission, 1000)

    run_in_virtual_time(scenario)


async def test_refusals_of_single_calls_do_not_block_admission() -> None:
    admission = make_admission()
    for _ in range(200):
        admission.record(make_attempt(status=400, error="no such thing"))
        admission.record(make_attempt(status=None, error="the file is gone", server_seconds=None))

    assert admission.breaker.is_closed
    assert await can_acquire(admission)


async def test_limit_history_is_bounded() -> None:
    admission = make_admission(None)
    for number in range(1000):
        admission.concurrency.limit = number
        admission._adjust(float(number))

    assert len(admission.history) <= MAX_HISTORY
    assert admission.history[0][0] == 0
    assert admission.history[-1][0] >= 980


# --- connections


async def test_request_limit_follows_the_concurrency_limit() -> None:
    requests = RequestLimiter(8)
    admission = make_admission(20, requests=requests)
    assert requests.limit == 8

    admission.record(make_attempt())
    assert requests.limit == 21

    admission.close()
    assert requests.limit == 8


async def test_fixed_request_limit_is_not_raised() -> None:
    requests = RequestLimiter(4, fixed=True)
    admission = make_admission(20, requests=requests)
    admission.record(make_attempt())

    assert requests.limit == admission.limit == 4


async def test_starved_connections_lower_the_request_limit() -> None:
    requests = RequestLimiter(8)
    admission = make_admission((8, 64), requests=requests)
    now = [0.0]
    admission._clock = lambda: now[0]
    for _ in range(12):
        now[0] += 0.04
        admission.record(make_attempt())
    now[0] += 6.0
    admission.record(make_attempt(seconds=5.0, server_seconds=5.0))
    assert admission.limit == 8  # the requested lower bound

    admission = make_admission((1, 64), requests=requests)
    admission._clock = lambda: now[0]
    admission.concurrency._level = 8.0
    for _ in range(12):
        now[0] += 0.04
        admission.record(make_attempt())
    now[0] += 6.0
    admission.record(make_attempt(seconds=5.0, server_seconds=5.0))

    assert admission.limit == 6
    admission.close()


async def test_concurrent_loads_share_the_larger_request_limit() -> None:
    requests = RequestLimiter(8)
    requests.set_requested_limit("one", 6)
    assert requests.limit == 6
    requests.set_requested_limit("other", 12)
    assert requests.limit == 12
    requests.set_requested_limit("other", None)
    assert requests.limit == 6


@pytest.mark.parametrize("concurrency", [0, -1, (0, 4), (5, 4)])
async def test_invalid_concurrency_is_rejected(concurrency: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="Invalid concurrency"):
        make_admission(concurrency)


# --- with the emulator


async def test_load_is_admitted_against_the_emulator() -> None:
    admission = make_admission(None)
    seen: list[AttemptEvent] = []

    def observe(attempt: AttemptEvent) -> None:
        seen.append(attempt)
        admission.record(attempt)

    with Emulator() as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, on_event=observe) as client:
            dataset = await client.datasets.create("Pace", indexing_technique="economy")

            async def upload(number: int) -> None:
                async with slot(admission):
                    await client.documents.create_by_file(dataset, b"A line.", name=f"{number}.txt")

            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(upload, number)

    creates = [attempt for attempt in seen if attempt.endpoint == CREATE]
    assert len(creates) == 100
    assert all(
        attempt.server_seconds is not None and 0 < attempt.server_seconds <= attempt.seconds
        for attempt in creates
    )
    assert admission.in_flight == 0
    assert 2 <= max(limit for _, limit in admission.history) <= 10


async def test_rate_limit_is_distinguished_from_other_refusals() -> None:
    admission = make_admission(4)
    seen: list[AttemptEvent] = []

    def observe(attempt: AttemptEvent) -> None:
        seen.append(attempt)
        admission.record(attempt)

    once = Retry(throttled_attempts=1)
    with Emulator() as emulator:
        emulator.faults.plan(CREATE, ["rate-limit", "503"])
        async with AsyncClient(
            emulator.url, emulator.api_key, on_event=observe, retry=once
        ) as client:
            dataset = await client.datasets.create("Pace", indexing_technique="economy")
            with pytest.raises(RateLimitedError):
                await client.documents.create_by_file(dataset, b"A line.", name="a.txt")

    assert [attempt.failure_kind for attempt in seen] == [None, "quota"]
    assert admission.rate.limit is not None


async def test_clock_is_injectable() -> None:
    admission = make_admission(None, "1/s", clock=lambda: 5.0)

    assert admission._next_start(5.0) == -math.inf
