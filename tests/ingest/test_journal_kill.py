from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journal_examples import IDENTITY
from load_examples import LONG

from dify_kb.ingest.journal import JournalRow, JournalState, open_journal

WRITER = """
import os, sys
from pathlib import Path

import anyio
from journal_examples import IDENTITY, intent
from dify_kb.ingest.journal import JournalState, open_journal

path = Path(sys.argv[1])


def report(*words):
    os.write(1, (" ".join(words) + "\\n").encode())


async def load(journal, worker):
    for number in range(100000):
        key = f"{worker}/{number}.md"
        await journal.record_intent(intent(key))
        report("intended", key)
        journal.record_accepted(key, f"d {key}", f"b {key}", f"f {key}")
        await journal.flush()
        report("accepted", key)
        if number % 3 == 0:
            journal.record_state(key, JournalState.DONE)
            await journal.flush()
            report("done", key)


async def main():
    async with open_journal(path, IDENTITY) as journal, anyio.create_task_group() as tasks:
        for worker in range(16):
            tasks.start_soon(load, journal, f"{journal.run}-{worker}")


anyio.run(main)
"""

ORDER = {"intended": 1, "accepted": 2, "done": 3}
STATES = {JournalState.SENDING: 1, JournalState.ACCEPTED: 2, JournalState.DONE: 3}


def write_until_killed(path: Path, seconds: float) -> dict[str, int]:
    """Write to a journal in a process until it is killed; return the last confirmed step by key."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)  # noqa: S603 -- our own
    with process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        lines = (first + process.stdout.read()).decode().splitlines(keepends=True)
    last_steps: dict[str, int] = {}
    for line in lines:
        if line.endswith("\n"):
            word, key = line.split()
            last_steps[key] = max(last_steps.get(key, 0), ORDER[word])
    return last_steps


def copy_truncated(path: Path, part: float) -> Path:
    """Copy a journal and the beginning of its write-ahead log."""
    copy = path.with_name(f"{part}.db")
    shutil.copyfile(path, copy)
    log = Path(f"{path}-wal").read_bytes()
    Path(f"{copy}-wal").write_bytes(log[: int(len(log) * part)])
    return copy


async def read_rows(path: Path) -> dict[str, JournalRow]:
    async with open_journal(path, IDENTITY) as journal:
        keys = [row["key"] for row in journal._database.select("SELECT key FROM item", ())]
        return dict(journal.get_rows(keys)) if keys else {}


def check(rows: dict[str, JournalRow], last_steps: dict[str, int]) -> None:
    """Compare with the confirmed steps; each worker may be one step ahead."""
    for key, step in last_steps.items():
        assert key in rows
        assert STATES[rows[key].state] >= step
    for key, row in rows.items():
        if row.state is not JournalState.SENDING:
            assert (row.document_id, row.batch) == (f"d {key}", f"b {key}")
            assert row.upload_file_id == f"f {key}"
        else:
            assert row.document_id is None


async def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    """After the confirmation, the request is sent and cannot be undone."""
    path = tmp_path / "journal.db"
    draw = random.Random(7)
    acknowledged: dict[str, int] = {}
    for _ in range(6 if LONG else 3):
        acknowledged |= write_until_killed(path, draw.uniform(0.0, 0.25))

        check(await read_rows(path), acknowledged)

    assert len(acknowledged) > 100


@pytest.mark.parametrize("seed", range(3 if LONG else 1))
async def test_truncated_log_is_an_earlier_consistent_state(tmp_path: Path, seed: int) -> None:
    """A disk that reports writes too early leaves such a log after a power failure."""
    path = tmp_path / "journal.db"
    write_until_killed(path, 0.15)
    draw = random.Random(seed)
    before = -1
    for part in sorted(draw.random() for _ in range(12)):
        rows = await read_rows(copy_truncated(path, part))

        check(rows, {})
        steps = sum(STATES[row.state] for row in rows.values())
        assert steps >= before
        before = steps
    assert before > 0
