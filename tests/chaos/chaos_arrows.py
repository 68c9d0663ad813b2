"""A load that kills itself at an arrow of a file's states.

`python chaos_arrows.py ARROW URL DATASET FOLDER`: `intend`, `record_accepted` and `record_state`
are the methods of the journal that record a state, `-before` and `-after` say on which side of the
commit. The file is `FILE`; the journal is `FOLDER/../journal.db`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from chaos_scene import KEY, POLICY

from dify_kb import AsyncClient
from dify_kb.ingest.journal import Journal

FILE = "00003.md"

METHODS = ("intend", "record_accepted", "record_state")
ARROWS = [f"{name}-{when}" for name in METHODS for when in ("before", "after")]


def kill_at(arrow: str) -> None:
    """Have the journal end this process there."""
    name, _, when = arrow.partition("-")
    original = getattr(Journal, name)

    async def intend(self: Journal, row: Any) -> None:
        row = row() if callable(row) else row
        if row.key == FILE and when == "before":
            die()
        await original(self, row)
        if row.key == FILE:
            die()

    def note(self: Journal, key: str, *rest: Any, **named: Any) -> None:
        if key == FILE and when == "before":
            die()
        original(self, key, *rest, **named)
        if key == FILE:
            self.close()
            self._database._writer.join()  # until it is committed
            die()

    setattr(Journal, name, intend if name == "intend" else note)


def die() -> None:
    """End this process as the system does when it has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, dataset: str, folder: Path) -> None:
    """Load until killed."""
    async with AsyncClient(url, KEY, policy=POLICY) as client:
        await client.load(dataset, folder, journal=folder.parent / "journal.db", stall_after=1.0)


if __name__ == "__main__":
    kill_at(sys.argv[1])
    anyio.run(main, sys.argv[2], sys.argv[3], Path(sys.argv[4]))
