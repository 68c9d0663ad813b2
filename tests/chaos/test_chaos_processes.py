"""Loads in processes of their own: killed at each arrow, interrupted, forked: F20, F39, F40."""

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
from chaos_arrows import ARROWS, FILE
from chaos_cell import converge, outcomes
from chaos_kills import HERE, PATIENCE
from chaos_scene import CREATE, KEY, Loaded, Scene, staged, until
from chaos_tables import LONG
from chaos_verdict import count, secrets

from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.journal import State
from dify_kb.ingest.journal.reading import items

FILES = 8

STALL = "commit-then-stall 0.3"

LEFT: Mapping[str, State | None] = {
    "intend-before": None,
    "intend-after": State.SENDING,
    "record_accepted-before": State.SENDING,
    "record_accepted-after": State.ACCEPTED,
    "record_state-before": State.ACCEPTED,
    "record_state-after": State.DONE,
}
"""What the journal says of a file at which a load was killed."""


@contextmanager
def started(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start one of our scripts, and leave none behind."""
    process = subprocess.Popen(  # noqa: S603 -- our own scripts
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


def remembered(scene: Scene) -> dict[str, State]:
    """Read what the journal says of each file."""
    return {row.key: row.state for row in items(scene.journal)}


async def all_well(scene: Scene, root: Path, said: str = "") -> Loaded:
    """Go on in this process, and hold what came of it to the invariants."""
    loaded = await scene.load()
    counted = count(scene, loaded)
    assert not counted.wrong, counted.wrong
    assert bool(loaded.report), list(loaded.report.failures())
    assert counted.extra == 0
    await converge(scene)
    assert not secrets(scene, root, said)
    return loaded


@pytest.mark.parametrize("arrow", ARROWS if LONG else ["intend-after", "record_accepted-before"])
async def test_f20_a_load_that_is_killed_at_an_arrow_goes_on(arrow: str, tmp_path: Path) -> None:
    """With one file that was in flight, and others around it."""
    with Emulator(api_key=KEY) as emulator:
        async with staged(emulator, tmp_path, FILES) as scene:
            given = (arrow, emulator.url, scene.dataset.id, str(scene.folder))
            with started("chaos_arrows.py", *given) as process:
                code = await anyio.to_thread.run_sync(process.wait, PATIENCE)
            assert code == -signal.SIGKILL
            assert remembered(scene).get(FILE) is LEFT[arrow]
            sends = scene.sends

            await all_well(scene, tmp_path)

            assert scene.sends <= FILES + 1
            assert sends <= FILES


def ended(process: subprocess.Popen[str], interrupts: int) -> int:
    """Wait for the end of a process. A second interrupt that meets asyncio at a bad moment makes it
    wait for a wakeup that was lost (Python 3.11, once in 20 on a busy machine): that one is killed.
    """
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        if interrupts == 1:
            raise
        process.kill()
        return process.wait()


@pytest.mark.parametrize("times", [1, 2] if LONG else [2])
async def test_f39_a_load_that_is_interrupted_goes_on(times: int, tmp_path: Path) -> None:
    """Once: creates under way may finish. Twice: it ends at once, and they are looked for."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.05)) as emulator:
        async with staged(emulator, tmp_path, 200) as scene:
            emulator.faults.plan(CREATE, ["ok x5", f"{STALL} x3"])
            given = (emulator.url, scene.dataset.id, str(scene.folder))
            with started("chaos_kill_load.py", *given) as process:
                await until(
                    lambda: "commit-then-stall 0.3" in emulator.faults.met().get(CREATE, {})
                )
                for _ in range(times):
                    process.send_signal(signal.SIGINT)
                    await anyio.sleep(0.02)
                code = await anyio.to_thread.run_sync(ended, process, times)
                assert process.stderr is not None
                said = process.stderr.read()
            assert code != 0
            assert set(remembered(scene).values()) <= {*State} - {State.FAILED}
            emulator.faults.clear()

            loaded = await all_well(scene, tmp_path, said)

            assert outcomes(loaded).keys() <= {"added", "unchanged"}
            assert loaded.report.found == 200


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_f40_a_fork_during_a_load_disturbs_nothing(tmp_path: Path) -> None:
    """A child that lives on takes nothing along: not the journal's lock, not the connections."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.01)) as emulator:
        async with staged(emulator, tmp_path, 40) as scene:
            children: list[int] = []

            def fork(_: object) -> None:
                if len(children) < 3:
                    child = os.fork()
                    if child == 0:
                        signal.pause()
                    children.append(child)

            try:
                loaded = await scene.load(on_event=fork)
                await converge(scene)
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                for child in children:
                    await anyio.to_thread.run_sync(os.waitpid, child, 0)

            assert len(children) == 3
            assert outcomes(loaded) == {"added": 40}
            assert not count(scene, loaded).wrong


MILLION = 1_000_000

LITTLE = 1_000
"""Items of which the memory is compared with that of very many."""


@pytest.mark.skipif(not LONG, reason="minutes")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("what", "outcome", "told"), [("plan", "pending", 0), ("fail", "failed", MILLION)]
)
async def test_f38_a_million_items_take_memory_for_their_keys_alone(
    what: str, outcome: str, told: int, tmp_path: Path
) -> None:
    """Those are 64 bits each, in a set; all else is bounded, a report and its failures too."""
    with Emulator(api_key=KEY) as emulator:
        async with staged(emulator, tmp_path, 0) as scene:

            async def loaded(number: int) -> dict[str, int]:
                journal = tmp_path / f"{number}.db"
                given = (str(number), emulator.url, scene.dataset.id, str(journal), what)
                with started("chaos_million.py", *given) as process:
                    out, err = await anyio.to_thread.run_sync(process.communicate)
                assert process.returncode == 0, err
                return dict(json.loads(out))

            little, much = await loaded(LITTLE), await loaded(MILLION)

            assert little["found"] == little[outcome] == LITTLE
            assert much["found"] == much[outcome] == MILLION
            assert much["told"] == told
            assert much["peak"] - little["peak"] < 150 * 2**20
            assert scene.sends == 0
