"""Which uploads wait for a slot, which is next, and what attempts change."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint
from virtual_time import run

from dify_kb import AsyncClient, Loading, Retry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, ConnectError, RateLimitedError
from dify_kb.ingest.pacing.admission import POINTS, Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.transport import Attempted, RequestLimiter

CREATE = "documents.create_by_file"


class Server:
    """One that answers probes unless it is down."""

    def __init__(self) -> None:
        self.down = False

    async def get(self, dataset_id: str, /) -> object:
        if self.down:
            raise ConnectError("refused", endpoint="datasets.get")
        return dataset_id


@asynccontextmanager
async def slot(gate: Admission) -> AsyncIterator[None]:
    await gate.enter()
    try:
        yield
    finally:
        gate.leave()


def admission(
    concurrency: int | tuple[int, int] | None = 2,
    rate: str | None = None,
    requests: RequestLimiter | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Admission:
    breaker = CircuitBreaker(Server(), "dataset", Loading(), Random(1))
    return Admission(concurrency, rate, requests or RequestLimiter(8), breaker, clock, Random(1))


def event(**given: object) -> Attempted:
    """Return an upload that succeeded, but for what is given."""
    usual: dict[str, object] = {
        "endpoint": CREATE,
        "attempt": 1,
        "status": 200,
        "seconds": 0.05,
        "waited": 0.04,
        "retry_in": None,
        "error": None,
    }
    return Attempted(**(usual | given))  # type: ignore[arg-type]  # as the names say


def failure(trouble: str, status: int | None = None, **given: object) -> Attempted:
    return event(trouble=trouble, status=status, error="no", waited=None, **given)


async def enters(gate: Admission, within: float = 0.05) -> bool:
    """Return whether an upload is admitted at once."""
    with anyio.move_on_after(within):
        async with slot(gate):
            return True
    return False


# --- who waits


async def test_no_more_are_in_than_the_limit_and_the_first_is_next() -> None:
    gate, order, most = admission(2), list[int](), 0

    async def one(number: int) -> None:
        nonlocal most
        async with slot(gate):
            order.append(number)
            most = max(most, gate.in_flight)
            await anyio.sleep(0.001 * (number % 3))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)

    assert order == list(range(20))
    assert most == 2
    assert gate.in_flight == 0


async def test_who_gives_up_waiting_takes_no_slot() -> None:
    gate = admission(1)
    async with slot(gate), anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(enters, gate)
        await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    assert gate.in_flight == 0
    assert await enters(gate)


async def test_the_next_is_served_when_the_first_gives_up() -> None:
    gate = admission(1)
    came = anyio.Event()

    async def second() -> None:
        async with slot(gate):
            came.set()

    async with anyio.create_task_group() as group:
        async with slot(gate):
            group.start_soon(enters, gate, 0.02)
            await anyio.sleep(0.001)
            group.start_soon(second)
            await anyio.sleep(0.04)
        with anyio.fail_after(10):
            await came.wait()


async def test_the_next_waits_on_for_the_rate_when_the_first_gives_up() -> None:
    """Only the first in line has a timer; another must take its place."""
    gate = admission(8, "10/s")
    assert await enters(gate)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(enters, gate, 0.01)
            await anyio.sleep(0.001)
            async with slot(gate):
                pass


async def test_a_wider_limit_lets_those_in_who_wait() -> None:
    gate, inside = admission(None), 0

    async def one() -> None:
        nonlocal inside
        async with slot(gate):
            inside += 1
            await anyio.sleep_forever()

    now = [0.0]
    gate._clock = lambda: now[0]
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        assert inside == gate.limit == 1
        for _ in range(12):
            now[0] += 0.04
            gate.observe(event())
        await anyio.wait_all_tasks_blocked()
        assert inside == gate.limit == 2
        group.cancel_scope.cancel()


async def test_waiting_costs_no_turns_of_the_loop() -> None:
    gate, looks = admission(1), 0
    earliest = gate._earliest

    def counted(now: float) -> float:
        nonlocal looks
        looks += 1
        return earliest(now)

    gate._earliest = counted  # type: ignore[method-assign]  # to count
    async with slot(gate), anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(enters, gate)
        await anyio.sleep(0.02)
        group.cancel_scope.cancel()

    assert looks < 40


# --- rates


async def test_a_stated_rate_spaces_creates() -> None:
    gate = admission(8, "50/s")
    started = anyio.current_time()
    for _ in range(6):
        async with slot(gate):
            gate.observe(event())

    assert 0.09 <= anyio.current_time() - started < 5


async def test_a_refusal_for_the_rate_closes() -> None:
    gate = admission()
    async with slot(gate):
        gate.observe(failure("quota", 403))

    assert not await enters(gate)
    assert gate.breaker.is_closed


async def test_a_create_that_was_never_sent_is_not_waited_for() -> None:
    """Else a learned limit would lose a call for ever each time that a file cannot be read."""
    gate = admission(8, "3/min")
    now = 0.0
    gate._clock = lambda: now
    for told in (None, event(status=None, error="gone", waited=None)) * 3:
        async with slot(gate):
            if told is not None:
                gate.observe(told)
        now += 30

    assert gate.rate._pending == 0
    assert gate.rate.next_start(now) <= now


async def test_other_calls_that_count_are_counted() -> None:
    gate = admission(8, "2/min")
    gate.observe(event(endpoint="metadata.assign"))
    gate.observe(event(endpoint="datasets.retrieve"))
    gate.observe(event(endpoint="documents.list"))
    gate.observe(event(endpoint="tags.bind"))

    assert len(gate.rate._window) == 2


# --- trouble


async def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    gate = admission()
    gate.observe(failure("overload", 503, retry_after=30.0))

    assert gate.breaker.overload_delay() > 29
    assert not await enters(gate)


async def test_a_hint_of_years_is_cut() -> None:
    gate = admission()
    gate.observe(failure("overload", 429, retry_after=1e9))

    assert gate.breaker.overload_delay() < 331


def virtual(act: Callable[[Admission, Server], Awaitable[None]]) -> None:
    """Run with an admission whose breaker probes a server, in virtual time."""

    async def scene() -> None:
        server = Server()
        breaker = CircuitBreaker(server, "dataset", Loading(), Random(1))
        gate = Admission((16, 64), None, RequestLimiter(8), breaker, anyio.current_time, Random(1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(breaker.run)
            await act(gate, server)
            tasks.cancel_scope.cancel()

    run(scene)


def test_an_outage_holds_uploads_until_it_is_over_and_halves_the_limit() -> None:
    async def act(gate: Admission, server: Server) -> None:
        for _ in range(12):
            await anyio.sleep(0.04)
            gate.observe(event())
        server.down = True
        while gate.breaker.is_closed:
            gate.observe(failure("unreachable"))
        limit = gate.limit
        assert not await enters(gate, 100)
        server.down = False
        began = anyio.current_time()
        await gate.enter()

        assert anyio.current_time() - began < 33
        assert gate.limit == max(16, limit // 2)
        await gate.enter()  # the next waits for nothing
        assert gate.in_flight == 2

    virtual(act)


def test_an_outage_while_uploads_wait_in_a_queue_ends_for_all_of_them() -> None:
    """Those behind the first must be woken as well, also when the first is cancelled meanwhile."""
    came: list[float] = []

    async def act(gate: Admission, server: Server) -> None:
        async def upload() -> None:
            async with slot(gate):
                came.append(anyio.current_time())
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            server.down = True
            gate.breaker.trip("no answer")
            tasks.start_soon(enters, gate, 5.0)
            await checkpoint()
            for _ in range(100):
                tasks.start_soon(upload)
            await anyio.sleep(50)
            assert not came
            server.down = False

    virtual(act)

    assert len(came) == 100


def test_uploads_wait_for_the_lock_of_the_dataset() -> None:
    async def act(gate: Admission, _server: Server) -> None:
        await anyio.sleep(60)
        for _ in range(2):
            gate.observe(failure("timeout", seconds=60.0))
        gate.observe(event(endpoint="documents.list"))
        assert gate.breaker.uploads_blocked
        await gate.enter()
        assert anyio.current_time() == Loading().dataset_lock

    virtual(act)


def test_nothing_is_admitted_once_the_server_was_given_up() -> None:
    async def act(gate: Admission, server: Server) -> None:
        server.down = True
        gate.breaker.trip("no answer")
        await gate.breaker.wait_closed()
        assert gate.breaker.failure is not None
        assert not await enters(gate, 1000)

    virtual(act)


async def test_refusals_of_the_call_itself_break_nothing() -> None:
    gate = admission()
    for _ in range(200):
        gate.observe(event(status=400, error="no such thing"))
        gate.observe(event(status=None, error="the file is gone", waited=None))

    assert gate.breaker.is_closed
    assert await enters(gate)


async def test_history_is_kept_short() -> None:
    gate = admission(None)
    for number in range(1000):
        gate.concurrency.limit = number
        gate._adjust(float(number))

    assert len(gate.history) <= POINTS
    assert gate.history[0][0] == 0
    assert gate.history[-1][0] >= 980


# --- connections


async def test_connections_follow_the_limit() -> None:
    pace = RequestLimiter(8)
    gate = admission(20, requests=pace)
    assert pace.limit == 8

    gate.observe(event())
    assert pace.limit == 21

    gate.close()
    assert pace.limit == 8


async def test_a_fixed_pace_is_not_widened() -> None:
    pace = RequestLimiter(4, fixed=True)
    gate = admission(20, requests=pace)
    gate.observe(event())
    pace.widen(30)

    assert pace.limit == gate.limit == 4


async def test_starved_connections_narrow_the_pace() -> None:
    pace = RequestLimiter(8)
    gate = admission((8, 64), requests=pace)
    now = [0.0]
    gate._clock = lambda: now[0]
    for _ in range(12):
        now[0] += 0.04
        gate.observe(event())
    now[0] += 6.0
    gate.observe(event(seconds=5.0, waited=5.0))
    assert gate.limit == 8  # a lower bound that was asked for

    gate = admission((1, 64), requests=pace)
    gate._clock = lambda: now[0]
    gate.concurrency._level = 8.0
    for _ in range(12):
        now[0] += 0.04
        gate.observe(event())
    now[0] += 6.0
    gate.observe(event(seconds=5.0, waited=5.0))

    assert gate.limit == 6
    gate.close()


async def test_loads_side_by_side_get_what_the_larger_asks_for() -> None:
    pace = RequestLimiter(8)
    pace.ask("one", 6)
    assert pace.limit == 6
    pace.ask("other", 12)
    assert pace.limit == 12
    pace.ask("other", None)
    assert pace.limit == 6


@pytest.mark.parametrize("concurrency", [0, -1, (0, 4), (5, 4)])
async def test_what_lets_nothing_in_is_an_error(concurrency: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="Invalid concurrency"):
        admission(concurrency)


# --- with a server


async def test_a_load_goes_through_a_server() -> None:
    gate = admission(None)
    seen: list[Attempted] = []

    def observe(event: Attempted) -> None:
        seen.append(event)
        gate.observe(event)

    with Emulator() as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, on_event=observe) as client:
            dataset = await client.datasets.create("Pace", indexing_technique="economy")

            async def one(number: int) -> None:
                async with slot(gate):
                    await client.documents.create_by_file(dataset, b"A line.", name=f"{number}.txt")

            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(one, number)

    creates = [event for event in seen if event.endpoint == CREATE]
    assert len(creates) == 100
    assert all(event.waited is not None and 0 < event.waited <= event.seconds for event in creates)
    assert gate.in_flight == 0
    assert 2 <= max(limit for _, limit in gate.history) <= 10


async def test_a_rate_limit_is_told_from_other_refusals() -> None:
    gate = admission(4)
    seen: list[Attempted] = []

    def observe(event: Attempted) -> None:
        seen.append(event)
        gate.observe(event)

    once = Retry(throttled=1)
    with Emulator() as emulator:
        emulator.faults.plan(CREATE, ["rate-limit", "503"])
        async with AsyncClient(
            emulator.url, emulator.api_key, on_event=observe, retry=once
        ) as client:
            dataset = await client.datasets.create("Pace", indexing_technique="economy")
            with pytest.raises(RateLimitedError):
                await client.documents.create_by_file(dataset, b"A line.", name="a.txt")

    assert [event.trouble for event in seen] == [None, "quota"]
    assert gate.rate.limit is not None


async def test_clocks_are_arguments() -> None:
    gate = admission(None, "1/s", clock=lambda: 5.0)

    assert gate._earliest(5.0) == -math.inf
