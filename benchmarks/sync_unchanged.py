"""Measure an unchanged sync: `python benchmarks/sync_unchanged.py [FILES]`.

Loads a folder of small files once (the embedded server in another process) and syncs it again,
unchanged, with both states. Prints requests, processor time and wall time of these runs. Fails if
there are more than 1 request with the journal, or with the state in the dataset one for the dataset
and one per 100 documents, or if a run takes more than 2 s of processor time per 10,000 files.
"""

from __future__ import annotations

import operator
import os
import sys
import tempfile
import time
from pathlib import Path

import anyio
from emulator_process import run_emulator

from dify_kb import AsyncClient, Dataset, SyncReport, SyncState
from dify_kb.emulator import Settings

STATES: tuple[SyncState, ...] = ("journal", "base")
MAX_SECONDS = 2.0
"""Processor time per 10,000 files."""


async def main(files: int) -> int:
    """Measure both states, and fail if a bound is missed."""
    with tempfile.TemporaryDirectory() as root, run_emulator(Settings(workers=4)) as server:
        os.environ["XDG_STATE_HOME"] = str(Path(root, "state"))
        folder = await anyio.to_thread.run_sync(_write_files, Path(root, "docs"), files)
        async with AsyncClient(server.url, server.key) as client:
            results = [await _measure(client, folder, state, files) for state in STATES]
    return 0 if all(results) else 1


async def _measure(client: AsyncClient, folder: Path, state: SyncState, files: int) -> bool:
    dataset = await client.datasets.create(state, indexing_technique="economy")
    await client.sync(dataset, folder, state=state)
    cpu, wall, report = min(
        [await _sync_once(client, dataset, folder, state) for _ in range(3)],
        key=operator.itemgetter(0),
    )
    limit = 1 if state == "journal" else 1 + -(-files // 100)
    print(
        f"{state:8} {files:,} files: {report.requests} requests (at most {limit}),"
        f" {cpu:.2f} s of processor time, {wall:.2f} s"
    )
    within = report.requests <= limit and cpu <= MAX_SECONDS * max(1, files / 10_000)
    return within and report.unchanged == files


async def _sync_once(
    client: AsyncClient, dataset: Dataset, folder: Path, state: SyncState
) -> tuple[float, float, SyncReport]:
    """Return processor time, wall time and the report of a sync."""
    cpu, wall = time.process_time(), time.monotonic()
    report = await client.sync(dataset, folder, state=state)
    return time.process_time() - cpu, time.monotonic() - wall, report


def _write_files(folder: Path, files: int) -> Path:
    for number in range(files):
        path = folder / f"{number // 1000:03}" / f"{number:06}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the wombat {number} digs at night\n")
    return folder


if __name__ == "__main__":
    sys.exit(anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
