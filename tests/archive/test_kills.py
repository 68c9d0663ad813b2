"""kill -9 of exports and imports: the same command again has the same result."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from archive_examples import PARENT_CHILD, create_handbook, create_parents, read_members

from dify_kb import AsyncClient, verify_archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_server import ForkedProgram

    from dify_kb.emulator import Emulator

LONG = os.environ.get("CHAOS") == "long"
MOMENTS = 50 if LONG else 3
WORST_CASE = 60.0


def kill_at_request(
    emulator: Emulator, process: ForkedProgram, number: int, chance: random.Random
) -> None:
    """Kill a program once it has sent a number of requests, and a moment later."""
    known, until = len(emulator.history), time.monotonic() + WORST_CASE
    while len(emulator.history) < known + number and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.01))
    process.send_signal(signal.SIGKILL)
    process.wait()


def run_to_end(process: ForkedProgram) -> None:
    _, errors = process.communicate(WORST_CASE)
    assert process.returncode == 0, errors


@pytest.mark.timeout(600)
async def test_a_killed_export_continues_to_the_same_bytes(
    client: AsyncClient,
    emulator: Emulator,
    program: Callable[..., ForkedProgram],
    tmp_path: Path,
) -> None:
    chance = random.Random(1)
    await create_handbook(client, "1.16")
    before = len(emulator.history)
    run_to_end(program("export", "Handbook", str(tmp_path / "whole")))
    expected, requests = read_members(tmp_path / "whole"), len(emulator.history) - before

    for moment in range(MOMENTS):
        target = tmp_path / f"killed {moment}"
        for _ in range(2):
            process = program("export", "Handbook", str(target))
            kill_at_request(emulator, process, chance.randint(1, requests), chance)
        run_to_end(program("export", "Handbook", str(target)))

        assert read_members(target) == expected
        assert verify_archive(target)


@pytest.mark.timeout(900)
async def test_a_killed_import_continues_to_the_same_base(
    client: AsyncClient,
    emulator: Emulator,
    program: Callable[..., ForkedProgram],
    tmp_path: Path,
) -> None:
    """No document is lost, none is there twice, and their order of requests does not matter."""
    chance = random.Random(2)
    handbook = await create_handbook(client, "1.16")
    parents = await create_parents(client, PARENT_CHILD, "Parents", "1.16")
    for number, dataset in enumerate((handbook, parents)):
        archive = tmp_path / f"archive {number}"
        await client.export(dataset, archive)
        before = len(emulator.history)
        run_to_end(program("import", str(archive), "--dataset", f"whole {number}"))
        requests = len(emulator.history) - before

        for moment in range(MOMENTS // 2 + 1):
            name = f"killed {number} {moment}"
            for _ in range(2):
                process = program("import", str(archive), "--dataset", name)
                kill_at_request(emulator, process, chance.randint(1, requests), chance)
            run_to_end(program("import", str(archive), "--dataset", name))

            copy = await client.datasets.find(name)
            assert copy is not None
            report = await client.compare(archive, copy)
            assert report.counts == {}, report.differences[:3]
