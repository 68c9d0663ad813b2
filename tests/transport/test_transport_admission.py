"""Letting creates in: who waits, who is next, and what events change."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import anyio
import pytest
from test_transport_sockets import D1, Request, Server, created, serving, sparse

from dify_kb import AsyncClient, Policy, Retry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, RateLimitedError
from dify_kb.ingest.pacing.admission import POINTS, Admission
from dify_kb.transport import Attempted, RequestLimiter

CREATE = "documents.create_by_file"


def admission(
    concurrency: int | tuple[int, int] | None = 2,
    rate: str | None = None,
    pace: RequestLimiter | None = None,
) -> Admission:
    return Admission(concurrency, rate, pace or RequestLimiter(8), random=Random(1))


def event(**given: object) -> Attempted:
    """Give a create that succeeded, but for what is given."""
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
    """Tell whether it lets one in, for a moment."""
    with anyio.move_on_after(within):
        async with gate:
            return True
    return False


# --- who waits


async def test_no_more_are_in_than_the_limit_and_the_first_is_next() -> None:
    gate, order, most = admission(2), list[int](), 0

    async def one(number: int) -> None:
        nonlocal most
        async with gate:
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
    async with gate, anyio.create_task_group() as group:
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
        async with gate:
            came.set()

    async with anyio.create_task_group() as group:
        async with gate:
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
            async with gate:
                pass


async def test_a_wider_limit_lets_those_in_who_wait() -> None:
    gate, inside = admission(None), 0

    async def one() -> None:
        nonlocal inside
        async with gate:
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
    async with gate, anyio.create_task_group() as group:
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
        async with gate:
            gate.observe(event())

    assert 0.09 <= anyio.current_time() - started < 5


async def test_a_refusal_for_the_rate_closes() -> None:
    gate = admission()
    async with gate:
        gate.observe(failure("quota", 403))

    assert not await enters(gate)
    assert not gate.broken


async def test_a_create_that_was_never_sent_is_not_waited_for() -> None:
    """Else a learned limit would lose a call for ever each time that a file cannot be read."""
    gate = admission(8, "3/min")
    now = 0.0
    gate._clock = lambda: now
    for told in (None, event(status=None, error="gone", waited=None)) * 3:
        async with gate:
            if told is not None:
                gate.observe(told)
        now += 30

    assert gate.quota._pending == 0
    assert gate.quota.earliest(now) <= now


async def test_other_calls_that_count_are_counted() -> None:
    gate = admission(8, "2/min")
    gate.observe(event(endpoint="metadata.assign"))
    gate.observe(event(endpoint="datasets.retrieve"))
    gate.observe(event(endpoint="documents.list"))
    gate.observe(event(endpoint="tags.bind"))

    assert len(gate.quota._window) == 2


# --- trouble


async def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    gate = admission()
    gate.observe(failure("overload", 503, retry_after=30.0))

    assert gate._closed_until - gate._clock() > 29
    assert not await enters(gate)


async def test_a_hint_of_years_is_cut() -> None:
    gate = admission()
    gate.observe(failure("overload", 429, retry_after=1e9))

    assert gate._closed_until - gate._clock() < 331


async def test_an_outage_closes_until_it_is_reopened_at_half() -> None:
    gate = admission((16, 64))
    now = 0.0
    gate._clock = lambda: now
    for _ in range(12):
        now += 0.04
        gate.observe(event())
    told = anyio.Event()

    async def outage() -> None:
        await gate.outage()
        told.set()

    async with anyio.create_task_group() as group:
        group.start_soon(outage)
        while not gate.broken:
            gate.observe(failure("unreachable"))
        with anyio.fail_after(10):
            await told.wait()
    limit = gate.limit
    assert not await enters(gate)

    gate.reopen()

    assert gate.limit == max(16, limit // 2)
    assert await enters(gate)


async def test_refusals_of_the_call_itself_break_nothing() -> None:
    gate = admission()
    for _ in range(200):
        gate.observe(event(status=400, error="no such thing"))
        gate.observe(event(status=None, error="the file is gone", waited=None))

    assert not gate.broken
    assert await enters(gate)


async def test_history_is_kept_short() -> None:
    gate = admission(None)
    for number in range(1000):
        gate.knee.limit = number
        gate._follow(float(number))

    assert len(gate.history) <= POINTS
    assert gate.history[0][0] == 0
    assert gate.history[-1][0] >= 980


# --- connections


async def test_connections_follow_the_limit() -> None:
    pace = RequestLimiter(8)
    gate = admission(20, pace=pace)
    assert pace.limit == 8

    gate.observe(event())
    assert pace.limit == 21

    gate.close()
    assert pace.limit == 8


async def test_a_fixed_pace_is_not_widened() -> None:
    pace = RequestLimiter(4, fixed=True)
    gate = admission(20, pace=pace)
    gate.observe(event())
    pace.widen(30)

    assert pace.limit == gate.limit == 4


async def test_starved_connections_narrow_the_pace() -> None:
    pace = RequestLimiter(8)
    gate = admission((8, 64), pace=pace)
    now = [0.0]
    gate._clock = lambda: now[0]
    for _ in range(12):
        now[0] += 0.04
        gate.observe(event())
    now[0] += 6.0
    gate.observe(event(seconds=5.0, waited=5.0))
    assert gate.limit == 8  # a lower bound that was asked for

    gate = admission((1, 64), pace=pace)
    gate._clock = lambda: now[0]
    gate.knee._level = 8.0
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
    with pytest.raises(ConfigError, match="lets nothing in"):
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
                async with gate:
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
    assert gate.quota.limit is not None


async def test_the_servers_time_does_not_hold_the_uploads(tmp_path: Path) -> None:
    """A slow line is no sign of a server that has too much to do."""
    seen: list[Attempted] = []

    async def slow(request: Request) -> None:
        await request.drain(rate=16e6)
        request.length = 0
        await created([])(request)

    file = sparse(tmp_path / "a.txt", 8 * 1024 * 1024)
    async with serving(Server(slow), on_event=seen.append, policy=Policy().scaled(0.001)) as client:
        await client.documents.create_by_file(D1, file, name="a.txt")

    assert seen[0].waited is not None
    assert seen[0].seconds > 0.4
    assert seen[0].waited < 0.9 * seen[0].seconds


def test_clocks_are_arguments() -> None:
    clock: Callable[[], float] = lambda: 5.0  # noqa: E731
    gate = Admission(None, "1/s", RequestLimiter(8), clock, Random(1))

    assert gate._earliest(clock()) == -math.inf
