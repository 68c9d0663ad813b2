"""Rate and concurrency of loads after the server requested a slowdown: F9, F10, F11, F42."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from itertools import count
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import pytest
from attrs import frozen
from fault_case import FaultCase, check_load, check_next_load
from load_environment import CREATE, KEY, create_environment, find_free_port, wait_until
from result_table import LONG
from virtual_dify import FaultSchedule, Mode, VirtualDify, VirtualLoad

from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.pacing.concurrency_limit import SAFE_LIMIT

MINUTE = 60.0
"""Maximum seconds until the concurrency limit has recovered."""

LATENCY = 0.25
"""Mean latency of the simulated server."""


@frozen
class LimitHistory:
    """The concurrency limit of a load, around its failed creates."""

    limits: Sequence[tuple[float, int]]
    failures: Sequence[float]

    @classmethod
    def of(cls, load: VirtualLoad) -> LimitHistory:
        """Return the history of a finished load."""
        assert load.run is not None
        failures = [
            when + LATENCY
            for when, name, mode in load.server.calls
            if name == CREATE and mode != "ok"
        ]
        return cls(load.run.server.admission.history, failures)

    @property
    def peak(self) -> int:
        """The highest limit before the first failure."""
        return max(limit for when, limit in self.limits if when < self.failures[0])

    @property
    def lowest(self) -> int:
        """The lowest limit between the first and the last failure."""
        first, last = self.failures[0], self.failures[-1]
        return min(limit for when, limit in self.limits if first - LATENCY <= when <= last)

    @property
    def recovery(self) -> float:
        """Seconds from the last failure until the limit was at its peak again."""
        last = self.failures[-1]
        return (
            next(when for when, limit in self.limits if when > last and limit >= self.peak) - last
        )


def simulate_server(fault_schedule: FaultSchedule) -> VirtualDify:
    """Create a server whose latency does not depend on this machine."""
    factor = functools.partial(Random(1).uniform, 0.8, 1.2)
    return VirtualDify(fault_schedule, latency=LATENCY, jitter=factor)


@pytest.mark.skipif(not LONG, reason="takes seconds: dates have whole seconds")
async def test_f9_retry_after_date_is_respected(tmp_path: Path) -> None:
    """Nothing is sent before this date, which has whole seconds."""
    when = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 5) as environment:
            emulator.faults.plan(
                CREATE, ["ok", f"503 retry-after={format_datetime(when, usegmt=True)}"]
            )
            loaded = await environment.load(concurrency=1)

            check_load(FaultCase(name="", files=5), environment, loaded)
            sends = [call for call in loaded.calls if call.endpoint == CREATE]
            assert [call.status for call in sends] == [200, 503, 200, 200, 200, 200]
            # The Date header of the response, the client's reference, has whole seconds too.
            assert sends[1].ended < when.timestamp() - 1 < sends[2].started
            assert time.time() < when.timestamp() + 3
            await check_next_load(environment)


def test_f10_limit_falls_by_a_third_and_recovers() -> None:
    creates = count()

    def refuse_every_fifth(_: float, name: str) -> Mode:
        number = next(creates) if name == CREATE else 0
        return "429" if 200 <= number < 240 and number % 5 == 4 else "ok"

    load = VirtualLoad(simulate_server(refuse_every_fifth), 600)

    report = load()

    assert (report.added, report.stopped) == (600, None)
    assert set(load.server.creates.values()) == {1}
    history = LimitHistory.of(load)
    assert len(history.failures) == 8
    assert history.peak > SAFE_LIMIT
    assert history.lowest <= 0.7 * history.peak
    assert history.recovery <= MINUTE


@pytest.mark.skipif(not LONG, reason="takes twenty windows of 0.6 s")
async def test_f11_quota_is_used_and_hardly_exceeded(
    tmp_path: Path,
) -> None:
    """Uses at least 75 % of the quota; at most 3.5 % of the creates are rejected."""
    allowed, window, files = 60, 0.6, 1200
    settings = Settings(quota=allowed, quota_window=window)
    with Emulator(api_key=KEY, settings=settings) as emulator:
        async with create_environment(emulator, tmp_path, files) as environment:
            began = time.monotonic()
            loaded = await environment.load()
            legal = allowed / window * (time.monotonic() - began)

            check_load(FaultCase(name="", files=files), environment, loaded)
            refused = sum(call.status == HTTPStatus.FORBIDDEN for call in loaded.calls)
            assert files >= 0.75 * legal
            assert 0 < refused <= 0.035 * loaded.sends


def test_f42_limit_recovers_after_restarts() -> None:
    """The server refuses connections for 3 s, three times."""
    restarts = list[float]()

    def fault_schedule(now: float, _: str) -> Mode:
        created = sum(load.server.creates.values())
        if len(restarts) < 3 and created >= 100 * (len(restarts) + 1):
            restarts.append(now + 3.0)
        return "refused" if restarts and now < restarts[-1] else "ok"

    load = VirtualLoad(simulate_server(fault_schedule), 800)

    report = load()

    assert (report.added, report.stopped) == (800, None)
    assert set(load.server.creates.values()) == {1}
    assert len(restarts) == 3
    assert LimitHistory.of(load).peak > SAFE_LIMIT
    assert LimitHistory.of(load).recovery <= MINUTE
    assert sum(name != CREATE for _, name, _ in load.server.calls) <= 400


async def test_f42_restarts_lose_or_duplicate_no_file(tmp_path: Path) -> None:
    server = Emulator(
        tmp_path / "server.db",
        port=find_free_port(),
        api_key=KEY,
        settings=Settings(create_io=0.02),
    )
    with server as emulator:
        async with create_environment(emulator, tmp_path, 80) as environment:
            restarts = 0

            async def restart() -> None:
                nonlocal restarts
                for number in range(1, 4):
                    await wait_until(functools.partial(sent, 20 * number))
                    await anyio.to_thread.run_sync(emulator.stop)
                    await anyio.to_thread.run_sync(emulator.start)
                    restarts += 1

            def sent(least: int) -> bool:
                return environment.sends >= least

            async with anyio.create_task_group() as group:
                group.start_soon(restart)
                await environment.load()

            assert restarts == 3
            case = FaultCase(name="", files=80, max_lookups=400)
            check_load(case, environment, environment.loads[-1])
            await check_next_load(environment)
