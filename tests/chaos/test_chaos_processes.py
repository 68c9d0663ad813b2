"""Loads in separate processes: killed, interrupted, forked, very large: F20, F38, F39, F40."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from fault_case import check_next_load, count_outcomes
from invariants import count_violations, find_secrets
from load_environment import (
    CREATE,
    KEY,
    LoadEnvironment,
    LoadResult,
    create_environment,
    wait_until,
)
from load_killed_at_journal_write import FILE, WRITES
from random_kills import HERE, PATIENCE
from result_table import LONG

from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.journal.read_journal import iter_rows

FILES = 8

STALL = "commit-then-stall 0.3"

EXPECTED_STATES: Mapping[str, JournalState | None] = {
    "record_intent-before": None,
    "record_intent-after": JournalState.SENDING,
    "record_accepted-before": JournalState.SENDING,
    "record_accepted-after": JournalState.ACCEPTED,
    "record_state-before": JournalState.ACCEPTED,
    "record_state-after": JournalState.DONE,
}
"""State of the file in the journal after the load was killed at a write."""


@contextmanager
def start_script(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a script of this folder; kill it at the end of the block."""
    process = subprocess.Popen(  # noqa: S603 -- fixed scripts
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_journal_states(environment: LoadEnvironment) -> dict[str, JournalState]:
    """Return the state of each file in the journal."""
    return {row.key: row.state for row in iter_rows(environment.journal)}


async def check_resumed_load(
    environment: LoadEnvironment, root: Path, said: str = ""
) -> LoadResult:
    """Resume the load in this process, and check the invariants."""
    loaded = await environment.load()
    counted = count_violations(environment, loaded)
    assert not counted.violations, counted.violations
    assert bool(loaded.report), list(loaded.report.failures())
    assert counted.extra == 0
    await check_next_load(environment)
    assert not find_secrets(environment, root, said)
    return loaded


@pytest.mark.parametrize(
    "write", WRITES if LONG else ["record_intent-after", "record_accepted-before"]
)
async def test_f20_load_killed_at_a_journal_write_can_be_resumed(
    write: str, tmp_path: Path
) -> None:
    """One file was in flight, together with others."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, FILES) as environment:
            arguments = (write, emulator.url, environment.dataset.id, str(environment.folder))
            with start_script("load_killed_at_journal_write.py", *arguments) as process:
                code = await anyio.to_thread.run_sync(process.wait, PATIENCE)
            assert code == -signal.SIGKILL
            assert read_journal_states(environment).get(FILE) is EXPECTED_STATES[write]
            sends = environment.sends

            await check_resumed_load(environment, tmp_path)

            assert environment.sends <= FILES + 1
            assert sends <= FILES


def wait_for_exit(process: subprocess.Popen[str], interrupts: int) -> int:
    """Wait for the end of a process; return its exit code.

    A second interrupt can make asyncio wait forever for a lost wakeup (Python 3.11, once in 20 on a
    busy machine); then the process is killed.
    """
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        if interrupts == 1:
            raise
        process.kill()
        return process.wait()


@pytest.mark.parametrize("times", [1, 2] if LONG else [2])
async def test_f39_interrupted_load_can_be_resumed(times: int, tmp_path: Path) -> None:
    """Once: creates in flight may finish. Twice: it ends immediately; the next run finds them."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.05)) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.plan(CREATE, ["ok x5", f"{STALL} x3"])
            arguments = (emulator.url, environment.dataset.id, str(environment.folder))
            with start_script("load_process.py", *arguments) as process:
                await wait_until(
                    lambda: "commit-then-stall 0.3" in emulator.faults.met().get(CREATE, {})
                )
                for _ in range(times):
                    process.send_signal(signal.SIGINT)
                    await anyio.sleep(0.02)
                code = await anyio.to_thread.run_sync(wait_for_exit, process, times)
                assert process.stderr is not None
                said = process.stderr.read()
            assert code != 0
            assert set(read_journal_states(environment).values()) <= {*JournalState} - {
                JournalState.FAILED
            }
            emulator.faults.clear()

            loaded = await check_resumed_load(environment, tmp_path, said)

            assert count_outcomes(loaded).keys() <= {"added", "unchanged"}
            assert loaded.report.found == 60


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_f40_fork_during_a_load_is_harmless(tmp_path: Path) -> None:
    """A surviving child process keeps neither the journal's lock nor the connections."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.01)) as emulator:
        async with create_environment(emulator, tmp_path, 40) as environment:
            children: list[int] = []

            def fork(_: object) -> None:
                if len(children) < 3:
                    child = os.fork()
                    if child == 0:
                        signal.pause()
                    children.append(child)

            try:
                loaded = await environment.load(on_event=fork)
                await check_next_load(environment)
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                for child in children:
                    await anyio.to_thread.run_sync(os.waitpid, child, 0)

            assert len(children) == 3
            assert count_outcomes(loaded) == {"added": 40}
            assert not count_violations(environment, loaded).violations


MILLION = 1_000_000

LITTLE = 1_000
"""Number of items whose peak memory is the baseline for a million items."""


@pytest.mark.skipif(not LONG, reason="takes minutes")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("what", "outcome", "failures"), [("plan", "pending", 0), ("fail", "failed", MILLION)]
)
async def test_f38_million_items_need_memory_only_for_their_keys(
    what: str, outcome: str, failures: int, tmp_path: Path
) -> None:
    """Keys are 64 bits each, in a set; everything else, including the report, is bounded."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 0) as environment:

            async def loaded(number: int) -> dict[str, int]:
                journal = tmp_path / f"{number}.db"
                arguments = (str(number), emulator.url, environment.dataset.id, str(journal), what)
                with start_script("load_million_items.py", *arguments) as process:
                    out, err = await anyio.to_thread.run_sync(process.communicate)
                assert process.returncode == 0, err
                return dict(json.loads(out))

            little, much = await loaded(LITTLE), await loaded(MILLION)

            assert little["found"] == little[outcome] == LITTLE
            assert much["found"] == much[outcome] == MILLION
            assert much["failures"] == failures
            assert much["peak"] - little["peak"] < 150 * 2**20
            assert environment.sends == 0
