"""A load that kills itself when the journal writes the state of a file.

`python load_killed_at_journal_write.py WRITE URL DATASET FOLDER`: the first argument is one of
`WRITES`, a journal method with `-before` or `-after` (the commit). The file is `FILE`; the journal
is `FOLDER/../journal.db`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from load_environment import KEY, POLICY

from dify_kb import AsyncClient
from dify_kb.ingest.journal import Journal

FILE = "00003.md"

METHODS = ("record_intent", "record_accepted", "record_state")
WRITES = [f"{name}-{when}" for name in METHODS for when in ("before", "after")]


def kill_at(write: str) -> None:
    """Patch the journal to kill this process at the given write."""
    name, _, when = write.partition("-")
    original = getattr(Journal, name)

    async def record_intent(self: Journal, row: Any) -> None:
        row = row() if callable(row) else row
        if row.key == FILE and when == "before":
            kill_self()
        await original(self, row)
        if row.key == FILE:
            kill_self()

    def record(self: Journal, key: str, *rest: Any, **named: Any) -> None:
        if key == FILE and when == "before":
            kill_self()
        original(self, key, *rest, **named)
        if key == FILE:
            self.close()
            self._database._writer.join()  # until it is committed
            kill_self()

    setattr(Journal, name, record_intent if name == "record_intent" else record)


def kill_self() -> None:
    """Kill this process as the out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, dataset: str, folder: Path) -> None:
    """Load until killed."""
    async with AsyncClient(url, KEY, policy=POLICY) as client:
        await client.load(dataset, folder, journal=folder.parent / "journal.db", stall_after=1.0)


if __name__ == "__main__":
    kill_at(sys.argv[1])
    anyio.run(main, sys.argv[2], sys.argv[3], Path(sys.argv[4]))
