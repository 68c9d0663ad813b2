from __future__ import annotations

import pytest

from dify_kb import AsyncClient, Policy
from dify_kb.bench.server_settings import CONNECTIONS_TRIED, SettingCheck, SettingsTrial
from dify_kb.emulator import Emulator, Settings


async def run_trial(
    emulator: Emulator, *, patience: float = 60.0, quota_pause: float = 60.0
) -> dict[str, SettingCheck]:
    """Run a trial without models, and return its checks by name."""
    checks: list[SettingCheck] = []
    policy = Policy().scaled(0.01)
    async with AsyncClient(
        emulator.url, emulator.api_key, policy=policy, concurrency=CONNECTIONS_TRIED
    ) as client:
        trial = SettingsTrial(
            client=client, report=checks.append, patience=patience, quota_pause=quota_pause
        )
        await trial.run()
        assert [row.name async for row in client.datasets.iter()] == []
    return {check.check: check for check in checks}


async def test_trial_ends_at_the_limit_of_a_subscription_and_leaves_nothing() -> None:
    """The delete counts too, so it waits until the window of the limit is over."""
    with Emulator(settings=Settings(quota=5, quota_window=1.0)) as emulator:
        checks = await run_trial(emulator, quota_pause=1.2)

    assert checks == {}


@pytest.mark.parametrize("stage", ["parsing", "indexing"])
async def test_a_halted_worker_is_found(stage: str) -> None:
    """Documents stay in one status for ever if no worker takes them, or it was killed."""
    with Emulator(settings=Settings(workers=1, **{stage: 300.0})) as emulator:  # type: ignore[arg-type]  # a duration
        checks = await run_trial(emulator, patience=0.5)

    assert checks["worker"].status == "failed"
    assert checks["worker"].settings == ("celery worker -Q",)
    assert "none of 8 documents was indexed" in checks["worker"].detail
