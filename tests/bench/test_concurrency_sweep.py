from __future__ import annotations

import anyio
from in_virtual_time import in_virtual_time
from queued_server import QueuedServer

from dify_kb.bench.concurrency_sweep import ConcurrencySweep
from dify_kb.errors import ServerError

FAILED = ServerError("down", endpoint="x", status=503)


@in_virtual_time
async def test_sweep_stops_far_beyond_the_saturation_point() -> None:
    levels_seen: list[int] = []
    server = QueuedServer(capacity=2, seconds=0.005)
    sweep = ConcurrencySweep(
        server, (1, 2, 4, 8, 16, 32, 64), 2, 1.0, 1_000_000, levels_seen.append
    )

    await sweep.run()

    saturation = sweep.find_saturation()
    assert saturation is not None
    assert (saturation.at_once, saturation.reached) == (2, True)
    assert levels_seen == [1, 2, 4, 8] * 2
    assert [level.rate.count for level in sweep.levels()] == [2] * 4


@in_virtual_time
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
