"""Whether the client's memory grows with the size of the files that it sends.

`python benchmarks/memory.py` loads 48 files of 14 MB, 32 at once, into an embedded server in
another process, and prints the client's resident memory before and at its peak.
"""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from emulated import Emulated, emulated

from dify_kb import AsyncClient
from dify_kb.emulator import Settings

if TYPE_CHECKING:
    from dify_kb import LoadReport

FILES, SIZE, AT_ONCE = 48, 14_000_000, 32
MOST = 120 * 2**20


def main() -> int:
    """Measure, print a table, and fail when the bound is broken."""
    with tempfile.TemporaryDirectory() as temporary, emulated(Settings()) as server:
        server.load({"indexing": ["die"]})
        folder = Path(temporary) / "files"
        folder.mkdir()
        for number in range(FILES):
            (folder / f"{number:02}.txt").write_bytes(b"A line of text.\n" * (SIZE // 16))
        before = resident()
        started = time.perf_counter()
        report = anyio.run(load, server, folder)
        seconds = time.perf_counter() - started
    peak = resident()
    print(f"{platform.platform()}, Python {platform.python_version()}, {versions()}")
    print(f"{FILES} files of {SIZE / 1e6:.0f} MB, {AT_ONCE} at once: {report.added} accepted")
    print(f"{'resident before':20} {before / 2**20:8.1f} MiB")
    print(f"{'resident at its peak':20} {peak / 2**20:8.1f} MiB (bound {MOST / 2**20:.0f} MiB)")
    print(f"{'sent':20} {report.bytes / seconds / 1e6:8.1f} MB/s")
    return 0 if report.added == FILES and peak <= MOST else 1


async def load(server: Emulated, folder: Path) -> LoadReport:
    """Send every file, and do not wait for the index: this is about the client."""
    journal = folder.with_name("journal.db")
    async with AsyncClient(server.url, server.key, concurrency=AT_ONCE) as client:
        dataset = await client.datasets.create("memory", indexing_technique="economy")
        return await client.load(
            dataset, folder, wait="accepted", concurrency=AT_ONCE, journal=journal
        )


def resident() -> int:
    """Give the most memory that this process had resident so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> str:
    """Name what was measured."""
    return ", ".join(f"{name} {version(name)}" for name in ("dify-kb", "aiohttp", "anyio"))


if __name__ == "__main__":
    sys.exit(main())
