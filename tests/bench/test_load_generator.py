from __future__ import annotations

import anyio
import pytest
from in_virtual_time import in_virtual_time
from queued_server import QueuedServer

from dify_kb.bench.load_generator import generate_load
from dify_kb.errors import OutcomeUnknownError, ServerError, UnauthorizedError

REFUSED = UnauthorizedError("no", endpoint="x", status=401)
FAILED = ServerError("down", endpoint="x", status=503)


@in_virtual_time
async def test_concurrency_is_kept_and_latencies_are_recorded() -> None:
    server = QueuedServer(capacity=100, seconds=0.02)

    found = await generate_load(server, concurrency=5, seconds=0.4, max_requests=1000)

    assert server.max_in_flight == 5
    assert found.answered == pytest.approx(5 * 0.32 / 0.02, abs=5)
    assert min(found.times) == pytest.approx(0.02) == max(found.times)
    assert found.seconds == pytest.approx(0.32, abs=0.03)


@in_virtual_time
async def test_request_limit_is_kept() -> None:
    server = QueuedServer(capacity=100, seconds=0.001)

    found = await generate_load(server, concurrency=8, seconds=5, max_requests=50)

    assert server.started == 50
    assert 30 <= found.answered <= 40
    assert found.seconds == pytest.approx(0.005, abs=0.002)


@in_virtual_time
async def test_round_is_extended_for_a_slow_server() -> None:
    found = await generate_load(
        QueuedServer(capacity=1, seconds=0.03), concurrency=4, seconds=0.05, max_requests=100
    )

    assert found.answered == 4
    assert 0.05 < found.seconds <= 0.15


@in_virtual_time
async def test_unanswered_requests_are_errors() -> None:
    found = await generate_load(anyio.sleep_forever, concurrency=3, seconds=0.4, max_requests=100)

    assert found.answered == 0
    assert [error.summary[:11] for error in found.errors] == ["No response"] * 3


@in_virtual_time
async def test_transient_errors_are_counted() -> None:
    async def fail() -> None:
        await anyio.sleep(0.001)
        raise FAILED

    found = await generate_load(fail, concurrency=2, seconds=0.4, max_requests=1000)

    assert found.answered == 0
    assert set(found.errors) == {FAILED}


@in_virtual_time
async def test_permanent_error_ends_the_round() -> None:
    calls = 0

    async def refuse() -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.001)
        raise REFUSED

    with pytest.raises(UnauthorizedError):
        await generate_load(refuse, concurrency=2, seconds=30, max_requests=1000)

    assert calls <= 2


@in_virtual_time
async def test_unknown_outcome_is_not_a_permanent_error() -> None:
    async def lose() -> None:
        await anyio.sleep(0.001)
        raise OutcomeUnknownError("lost", endpoint="x")

    found = await generate_load(lose, concurrency=1, seconds=5, max_requests=3)

    assert len(found.errors) == 3


@in_virtual_time
async def test_cancellation_lets_requests_in_flight_finish() -> None:
    """A server still executes a request that is cut off, after its dataset is deleted."""
    server = QueuedServer(capacity=100, seconds=0.8)

    with anyio.move_on_after(0.1) as scope:
        await generate_load(server, concurrency=4, seconds=30, max_requests=1000)

    assert scope.cancelled_caught
    assert server.served == server.started == 4
