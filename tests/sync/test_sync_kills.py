"""`kill -9` of syncs at random moments: the next one ends as an undisturbed one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sync_world import POLICY

from dify_kb import Client, SyncState
from dify_kb.emulator import Emulator, Settings

LONG = os.environ.get("CHAOS") == "long"
KILLS = 50 if LONG else 3
LONGEST = 0.5
"""Seconds after its start at which a sync is killed at the latest."""

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[5])
from sync_world import POLICY
from dify_kb import Client
with Client(sys.argv[1], sys.argv[2], policy=POLICY) as client:
    print("started", flush=True)
    client.sync(sys.argv[3], sys.argv[4], state=sys.argv[6], max_delete="100%")
"""


def change_files(folder: Path, chance: random.Random, number: int) -> None:
    """Write, rename and remove some files."""
    for place in range(6):
        (folder / f"{number:02}-{place}.md").write_text(f"the file {number} {place} " * 5)
    for path in chance.sample(sorted(folder.iterdir()), 6):
        match chance.randrange(3):
            case 0:
                path.write_text(f"changed in {number} " * chance.randrange(1, 9))
            case 1:
                path.rename(folder / f"renamed-{number:02}-{path.name[-12:]}")
            case _:
                path.unlink()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("state", ["journal", "base"])
def test_killed_sync_ends_as_an_undisturbed_one(tmp_path: Path, state: SyncState) -> None:
    chance = random.Random(17)
    folder = tmp_path / "docs"
    folder.mkdir()
    settings = Settings(create_io=0.005, workers=2, parsing=0.005)
    with Emulator(settings=settings) as emulator:
        with Client(emulator.url, emulator.api_key, policy=POLICY) as client:
            dataset = client.datasets.create("killed", indexing_technique="economy")
            change_files(folder, chance, 90)
            killed = 0
            for number in range(KILLS):
                change_files(folder, chance, number)
                killed += _kill_sync(emulator, dataset.id, folder, state, chance)
            report = client.sync(dataset, folder, state=state, max_delete="100%")
            again = client.sync(dataset, folder, state=state, max_delete="100%")
            fresh = client.datasets.create("undisturbed", indexing_technique="economy")
            client.sync(fresh, folder, id="other")
        assert killed, "no sync was killed"
        assert report.exit_code == again.exit_code == 0
        assert not [one for one in again.changes if one.action != "foreign"]
        assert _describe(emulator, dataset.id) == _describe(emulator, fresh.id)


def _kill_sync(
    emulator: Emulator, dataset_id: str, folder: Path, state: str, chance: random.Random
) -> bool:
    """Start a sync in another process and kill it; return whether it was still running."""
    here = str(Path(__file__).parent)
    arguments = [emulator.url, emulator.api_key, dataset_id, str(folder), here, state]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 -- ours
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        time.sleep(chance.uniform(0, LONGEST))
        is_running = process.poll() is None
        process.kill()
    return is_running


def _describe(emulator: Emulator, dataset_id: str) -> list[tuple[object, ...]]:
    return sorted(
        (one.name, one.size, one.status, one.enabled, one.archived, one.chunks, one.completed)
        for one in emulator.documents(dataset_id)
    )
