"""Whether the client's memory grows with the size of the files that it sends.

`python benchmarks/memory.py` loads 20 files of 14 MB, 16 at once, into an embedded server in
another process, and prints the client's resident memory before and at its peak.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from dify_kb import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dify_kb import LoadReport

FILES, SIZE, AT_ONCE = 20, 14_000_000, 16
MOST = 120 * 2**20


def main() -> int:
    """Measure, print a table, and fail when the bound is broken."""
    with tempfile.TemporaryDirectory() as temporary, server() as (url, key):
        folder = Path(temporary)
        for number in range(FILES):
            (folder / f"{number:02}.txt").write_bytes(b"A line of text.\n" * (SIZE // 16))
        before = resident()
        started = time.perf_counter()
        report = anyio.run(load, url, key, folder)
        seconds = time.perf_counter() - started
    peak = resident()
    print(f"{platform.platform()}, Python {platform.python_version()}, {versions()}")
    print(f"{FILES} files of {SIZE / 1e6:.0f} MB, {AT_ONCE} at once: {report.added} accepted")
    print(f"{'resident before':20} {before / 2**20:8.1f} MiB")
    print(f"{'resident at its peak':20} {peak / 2**20:8.1f} MiB (bound {MOST / 2**20:.0f} MiB)")
    print(f"{'sent':20} {report.bytes / seconds / 1e6:8.1f} MB/s")
    return 0 if report.added == FILES and peak <= MOST else 1


async def load(url: str, key: str, folder: Path) -> LoadReport:
    """Send every file, and do not wait for the index: this is about the client."""
    async with AsyncClient(url, key, concurrency=AT_ONCE) as client:
        dataset = await client.datasets.create("memory", indexing_technique="economy")
        return await client.load(dataset, folder, wait="accepted", concurrency=AT_ONCE)


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """Run the embedded server in another process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dify_kb", "--json", "emulator", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None  # noqa: S101 -- it was asked for
        told = json.loads(process.stdout.readline())
        yield told["url"], told["api_key"]
    finally:
        process.terminate()
        process.communicate()


def resident() -> int:
    """Give the most memory that this process had resident so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> str:
    """Name what was measured."""
    return ", ".join(f"{name} {version(name)}" for name in ("dify-kb", "aiohttp", "anyio"))


if __name__ == "__main__":
    sys.exit(main())
