from __future__ import annotations

import anyio
from queued_server import QueuedServer

from dify_kb.bench.concurrency_sweep import ConcurrencySweep
from dify_kb.errors import ServerError

FAILED = ServerError("down", endpoint="x", status=503)


def create_sweep(
    server: QueuedServer, levels: tuple[int, ...], levels_seen: list[int]
) -> ConcurrencySweep:
    return ConcurrencySweep(server, levels, 2, 0.15, 10_000, levels_seen.append)


async def test_sweep_stops_far_beyond_the_saturation_point() -> None:
    levels_seen: list[int] = []
    sweep = create_sweep(
        QueuedServer(capacity=2, seconds=0.005), (1, 2, 4, 8, 16, 32, 64), levels_seen
    )

    await sweep.run()

    saturation = sweep.find_saturation()
    assert saturation is not None
    assert saturation.reached
    first_pass = levels_seen[: len(levels_seen) // 2]
    # How exactly it is found is no matter of a busy machine: see test_saturation_point.
    assert 4 <= first_pass[-1] < 64
    assert levels_seen == first_pass * 2
    assert [level.rate.count for level in sweep.levels()] == [2] * len(first_pass)


async def test_sweep_stops_when_requests_fail() -> None:
    levels_seen: list[int] = []

    async def fail() -> None:
        await anyio.sleep(0.001)
        raise FAILED

    sweep = ConcurrencySweep(fail, (1, 2, 4), 1, 0.05, 1000, levels_seen.append)
    await sweep.run()

    assert levels_seen == [1]
    assert sweep.first_error() is FAILED
    assert sweep.levels()[0].errors > 0
