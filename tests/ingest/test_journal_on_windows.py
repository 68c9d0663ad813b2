"""Loads and journals on a platform without `fcntl`, such as Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLATFORM = """
import asyncio, sys, types  # before `msvcrt`, by which the standard library knows Windows
from pathlib import Path

sys.modules["fcntl"] = None
sys.modules["uvloop"] = None
locked = {}

def locking(descriptor, mode, size):
    # One lock a file, whoever asks; as Windows does it.
    import os
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 1 << 30
    file = os.fstat(descriptor).st_ino
    if mode == msvcrt.LK_UNLCK:
        assert locked.pop(file) == descriptor
    elif file in locked:
        raise PermissionError(13, "Permission denied")
    else:
        locked[file] = descriptor

msvcrt = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
sys.modules["msvcrt"] = msvcrt
"""

LOAD = """
import anyio
from dify_kb import AsyncClient, Item
from dify_kb.errors import JournalError

async def main():
    items = [Item(f"{number}.md", text="text") for number in range(3)]
    async with AsyncClient("emulator:") as client:
        dataset = await client.datasets.create("docs", indexing_technique="economy")
        report = await client.load(dataset, items)
        assert report.added == 3, report
        for _ in range(2):
            report = await client.load(dataset, items, journal=sys.argv[1])
            assert report, report
        assert not locked

anyio.run(main)
print("loaded")
"""

LOCK_TWICE = """
import anyio
from dify_kb.errors import JournalError
from dify_kb.ingest.journal import open_journal

async def main():
    async with open_journal(Path(sys.argv[1]), {}):
        try:
            async with open_journal(Path(sys.argv[1]), {}):
                pass
        except JournalError as error:
            print(error.summary)

anyio.run(main)
"""


def run(program: str, path: Path) -> str:
    done = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, "-c", PLATFORM + program, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_files_are_loaded_without_fcntl(tmp_path: Path) -> None:
    assert run(LOAD, tmp_path / "journal.db") == "loaded"


def test_journal_is_locked_without_fcntl(tmp_path: Path) -> None:
    assert "in use by another load of this process" in run(LOCK_TWICE, tmp_path / "journal.db")
