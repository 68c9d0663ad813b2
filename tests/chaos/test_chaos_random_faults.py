"""Random faults at every endpoint and in the indexer at the same time.

A normal test run uses one seed, `poe chaos` twenty; `CHAOS_SEED` sets the first. With the same seed
the n-th call of an endpoint meets the same fault.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from fault_case import check_next_load
from invariants import InvariantCounts, count_violations, find_secrets
from load_environment import CREATE, KEY, LoadEnvironment, create_environment
from result_table import FIRST_SEED, LONG, ResultRow, add_row

from dify_kb import Outcome
from dify_kb.emulator import Emulator, Settings

FILES: Final = 60

WEDGED: Final = "00042.md"
"""In the long run the worker is killed while indexing this file. The file stalls, and the next run
creates it again."""

LOOKS: Final[Mapping[str, float]] = {
    "503": 0.05,
    "500": 0.03,
    "504-html": 0.03,
    "reset": 0.05,
    "close": 0.02,
    "truncate": 0.03,
    "stall 0.1": 0.05,
    "trickle 0.1": 0.02,
}

RATES: Final[Mapping[str, Mapping[str, float]]] = {
    CREATE: {
        "503": 0.05,
        "503-html": 0.02,
        "429 retry-after=0": 0.03,
        "rate-limit": 0.01,
        "500": 0.03,
        "502-html": 0.02,
        "reset": 0.02,
        "close": 0.02,
        "reset-after 50%": 0.03,
        "login-page": 0.01,
        "empty": 0.01,
        "late 0.1": 0.04,
        "late 0.2 silent": 0.02,
        "stall 0.1": 0.03,
        "trickle 0.1": 0.02,
        "truncate": 0.03,
        "commit-then-reset": 0.04,
        "commit-then-close": 0.02,
        "commit-then-500": 0.02,
        "commit-then-504-html": 0.03,
        "commit-then-login-page": 0.01,
    },
    "documents.list": LOOKS,
    "documents.indexing_status": LOOKS,
    "datasets.get": {"503": 0.1, "reset": 0.05},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + (20 if LONG else 1)))
async def test_random_failures_lose_or_duplicate_no_file(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two loads meet faults; a third without faults completes all files."""
    caplog.set_level("DEBUG")
    began = time.monotonic()
    with Emulator(api_key=KEY, settings=Settings(workers=2)) as emulator:
        async with create_environment(emulator, tmp_path, FILES) as environment:
            inject_faults(emulator, seed)
            counts = [await _load_and_check(environment, seed)]
            (environment.folder / "00001.md").write_text("another text about echidnas\n")
            environment.changed_files.append("00001.md")
            counts.append(await _load_and_check(environment, seed))
            emulator.faults.clear()
            await check_next_load(environment)
        met = sum(sum(words.values()) for words in emulator.faults.met().values())
        add_row(_row(seed, met, counts, time.monotonic() - began))
        assert met > FILES / 4, "too few faults were met"
        assert counts[-1].extra <= 2, f"seed {seed}"
        assert not find_secrets(environment, tmp_path, caplog.text)


def inject_faults(emulator: Emulator, seed: int) -> None:
    """Configure random faults of calls and indexing runs."""
    if LONG:
        emulator.faults.indexing(["hang"], names=WEDGED)
    emulator.faults.indexing(["error no text in it"], names="*13.md")
    emulator.faults.indexing(["error Connection reset", "ok"], names="*7.md", always=True)
    emulator.faults.random(seed, RATES)


async def _load_and_check(environment: LoadEnvironment, seed: int) -> InvariantCounts:
    loaded = await environment.load(retry_failed=True, stall_after=2.5)
    counted = count_violations(environment, loaded)
    stalled = (one for one in loaded.results.values() if one.outcome is Outcome.STALLED)
    environment.wedged_documents.update(str(one.name) for one in stalled)
    assert not counted.violations, "\n".join([f"seed {seed}", *counted.violations])
    assert environment.loads[-1].report.stopped is None, f"seed {seed}"
    return counted


def _row(seed: int, met: int, counts: list[InvariantCounts], seconds: float) -> ResultRow:
    last = counts[-1]
    return ResultRow(
        name="random faults",
        seed=seed,
        files=FILES,
        faults=met,
        lost=sum(one.lost for one in counts),
        doubled=last.doubled,
        twins=last.twins,
        reposted=last.reposted,
        false=sum(one.false for one in counts),
        extra=last.extra,
        seconds=seconds,
    )
