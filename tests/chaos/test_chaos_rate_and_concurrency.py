"""Rate and concurrency of loads after the server requested a slowdown: F9, F10, F11, F42."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from importlib import import_module
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from fault_case import FaultCase, check_load, check_next_load
from load_environment import CREATE, KEY, create_environment, find_free_port, wait_until
from result_table import LONG

from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.transport import AttemptEvent
from dify_kb.transport.request_limiter import RequestLimiter

WELL = 3
"""A concurrency limit above that after an overload, even on the slowest machine."""

MINUTE = 60.0
"""Maximum seconds until the concurrency limit has recovered."""


class RecordedAdmission(Admission):
    """An admission that records the times of failures."""

    troubles: list[float]

    def record(self, attempt: AttemptEvent) -> None:
        """Record an attempt, and its time if it failed."""
        if attempt.failure_kind is not None:
            self.troubles.append(self._now())
        super().record(attempt)

    @property
    def peak(self) -> int:
        """The highest limit before the first failure."""
        return max(limit for when, limit in self.history if when < self.troubles[0])

    @property
    def lowest(self) -> int:
        """The lowest limit between the first and the last failure."""
        first, last = self.troubles[0], self.troubles[-1]
        return min(limit for when, limit in self.history if first <= when <= last)

    @property
    def recovery(self) -> float:
        """Seconds from the last failure until the limit was `WELL` again."""
        last = self.troubles[-1]
        return next(when for when, limit in self.history if when > last and limit >= WELL) - last


@pytest.fixture
def last_admission(monkeypatch: pytest.MonkeyPatch) -> Callable[[], RecordedAdmission]:
    """Return the admission of the last load."""
    made: list[RecordedAdmission] = []

    def make(
        concurrency: int | tuple[int, int] | None,
        rate: str | None,
        requests: RequestLimiter,
        breaker: CircuitBreaker,
        *,
        unit: float,
    ) -> RecordedAdmission:
        admission = RecordedAdmission(concurrency, rate, requests, breaker, unit=unit)
        admission.troubles = []
        made.append(admission)
        return admission

    # A function of the package has the same name as the module.
    monkeypatch.setattr(import_module("dify_kb.ingest.load"), "Admission", make)
    return lambda: made[-1]


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


async def test_f10_limit_falls_by_a_third_and_recovers(
    tmp_path: Path, last_admission: Callable[[], RecordedAdmission]
) -> None:
    with Emulator(api_key=KEY, settings=Settings(create_io=0.02)) as emulator:
        async with create_environment(emulator, tmp_path, 250) as environment:
            emulator.faults.plan(CREATE, ["ok x60", *["ok x4", "429"] * 8])
            loaded = await environment.load()

            check_load(FaultCase(name="", files=250), environment, loaded)
            assert last_admission().peak >= WELL
            assert last_admission().lowest <= 0.7 * last_admission().peak
            assert last_admission().recovery <= MINUTE


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


async def test_f42_limit_recovers_after_restarts(
    tmp_path: Path, last_admission: Callable[[], RecordedAdmission]
) -> None:
    server = Emulator(
        tmp_path / "server.db",
        port=find_free_port(),
        api_key=KEY,
        settings=Settings(create_io=0.02),
    )
    with server as emulator:
        async with create_environment(emulator, tmp_path, 200) as environment:
            came: list[float] = []

            def sent(least: int) -> bool:
                return environment.sends >= least

            async def restart() -> None:
                for number in range(1, 4):
                    await wait_until(functools.partial(sent, 20 * number))
                    await anyio.to_thread.run_sync(emulator.stop)
                    await anyio.to_thread.run_sync(emulator.start)
                    came.append(time.monotonic())

            async with anyio.create_task_group() as group:
                group.start_soon(restart)
                await environment.load()

            assert len(came) == 3
            check_load(
                FaultCase(name="", files=200, max_lookups=400), environment, environment.loads[-1]
            )
            assert last_admission().recovery <= MINUTE
            await check_next_load(environment)
