from __future__ import annotations

import anyio
import pytest

from dify_kb.bench.concurrency_sweep import ConcurrencySweep
from dify_kb.bench.load_generator import generate_load
from dify_kb.errors import OutcomeUnknownError, ServerError, UnauthorizedError

REFUSED = UnauthorizedError("no", endpoint="x", status=401)
FAILED = ServerError("down", endpoint="x", status=503)


class Server:
    """Serves so many at a time, each for so long, and remembers the most that it saw."""

    def __init__(self, places: int, seconds: float) -> None:
        self._places = anyio.Semaphore(places)
        self._seconds = seconds
        self.here = self.most = self.served = self.begun = 0

    async def __call__(self) -> None:
        self.begun += 1
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            async with self._places:
                await anyio.sleep(self._seconds)
            self.served += 1
        finally:
            self.here -= 1


async def test_so_many_are_in_flight_and_their_time_is_told() -> None:
    server = Server(places=100, seconds=0.02)

    found = await generate_load(server, concurrency=5, seconds=0.4, max_requests=1000)

    assert server.most == 5
    assert found.answered > 20
    assert min(found.times) >= 0.019
    assert found.seconds >= 0.3


async def test_no_more_requests_are_made_than_allowed() -> None:
    server = Server(places=100, seconds=0.001)

    found = await generate_load(server, concurrency=8, seconds=5, max_requests=50)

    assert server.begun == 50
    assert 10 <= found.answered <= 40
    assert found.seconds < 4


async def test_a_slow_server_gets_time_for_an_answer_each() -> None:
    found = await generate_load(
        Server(places=1, seconds=0.03), concurrency=4, seconds=0.05, max_requests=100
    )

    assert found.answered >= 2
    assert 0.05 <= found.seconds + 0.04 <= 5.0


async def test_requests_without_an_answer_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dify_kb.bench.load_generator.DRAIN_SECONDS", 0.05)

    found = await generate_load(anyio.sleep_forever, concurrency=3, seconds=0.4, max_requests=100)

    assert found.answered == 0
    assert [error.summary[:14] for error in found.errors] == ["No answer came"] * 3


async def test_passing_errors_are_counted() -> None:
    async def fail() -> None:
        await anyio.sleep(0.001)
        raise FAILED

    found = await generate_load(fail, concurrency=2, seconds=0.4, max_requests=1000)

    assert found.answered == 0
    assert set(found.errors) == {FAILED}


async def test_a_refusal_ends_it() -> None:
    calls = 0

    async def refuse() -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.001)
        raise REFUSED

    with pytest.raises(UnauthorizedError):
        await generate_load(refuse, concurrency=2, seconds=30, max_requests=1000)

    assert calls <= 2


async def test_a_lost_answer_is_no_refusal() -> None:
    async def lose() -> None:
        await anyio.sleep(0.001)
        raise OutcomeUnknownError("lost", endpoint="x")

    found = await generate_load(lose, concurrency=1, seconds=5, max_requests=3)

    assert len(found.errors) == 3


async def test_an_interrupt_lets_requests_under_way_finish() -> None:
    """One that is cut off is carried out all the same, after its dataset is gone."""
    server = Server(places=100, seconds=0.8)

    with anyio.move_on_after(0.1) as scope:
        await generate_load(server, concurrency=4, seconds=30, max_requests=1000)

    assert scope.cancelled_caught
    assert server.served == server.begun == 4


def sweep(server: Server, levels: tuple[int, ...], heard: list[int]) -> ConcurrencySweep:
    return ConcurrencySweep(server, levels, 2, 0.15, 10_000, heard.append)


async def test_it_climbs_no_further_than_far_beyond_the_knee() -> None:
    heard: list[int] = []
    swept = sweep(Server(places=2, seconds=0.005), (1, 2, 4, 8, 16, 32, 64), heard)

    await swept.run()

    knee = swept.find_saturation()
    assert knee is not None
    assert knee.reached
    climbed = heard[: len(heard) // 2]
    # How exactly it is found is no matter of a busy machine: see test_bench_knee.
    assert 4 <= climbed[-1] < 64
    assert heard == climbed * 2
    assert [level.rate.count for level in swept.levels()] == [2] * len(climbed)


async def test_it_climbs_no_further_where_requests_fail() -> None:
    heard: list[int] = []

    async def fail() -> None:
        await anyio.sleep(0.001)
        raise FAILED

    swept = ConcurrencySweep(fail, (1, 2, 4), 1, 0.05, 1000, heard.append)
    await swept.run()

    assert heard == [1]
    assert swept.first_error() is FAILED
    assert swept.levels()[0].errors > 0
