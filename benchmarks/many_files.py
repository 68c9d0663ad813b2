"""Measure the memory of a load of many files, and the time of a load with nothing to do.

`python benchmarks/many_files.py [--files N] [--uvloop]` loads 100,000 files of 64 bytes into a null
server in another process, then loads the same files again, each in a separate process, and prints
CPU time, wall time, requests and peak memory. Fails if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import anyio
from null_server import run_in_process

from dify_kb import AsyncClient

FILES_PER_FOLDER = 1000
"""Files per folder."""

MAX_RESIDENT_BYTES = 150 * 2**20
"""Maximum resident memory, in bytes, for any number of files."""

MAX_SECOND_LOAD_SECONDS = 3.0
"""Maximum duration of the second load of 100,000 files."""


def main() -> int:
    """Measure, print a table, and fail if a bound is missed."""
    options = parse_arguments()
    if options.load is not None:
        backend = {"use_uvloop": options.uvloop}
        print(json.dumps(anyio.run(load, *options.load, backend_options=backend)))
        return 0
    print(
        f"{platform.platform()}, Python {platform.python_version()}, dify-kb {version('dify-kb')}"
    )
    print(f"{options.files} files of 64 bytes; seconds, and resident memory in MiB")
    print(f"{'':16}{'wall':>8}{'cpu':>8}{'requests':>10}{'before':>8}{'peak':>8}")
    with tempfile.TemporaryDirectory() as temporary, run_in_process() as url:
        folder, journal = Path(temporary) / "files", Path(temporary) / "journal.db"
        create_files(folder, options.files)
        load_arguments = (url, str(uuid.uuid4()), str(folder), str(journal))
        within = all(
            run_and_print(name, [*sys.argv[1:], "--load", *load_arguments], options.files)
            for name in ("first load", "nothing to do")
        )
    return 0 if within else 1


def run_and_print(name: str, arguments: list[str], files: int) -> bool:
    """Load in a separate process, print a row, and return whether the bounds are met."""
    run = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(run.stdout)
    memory = f"{result['before'] / 2**20:8.0f}{result['peak'] / 2**20:8.0f}"
    print(
        f"{name:16}{result['wall']:8.2f}{result['cpu']:8.2f}{result['requests']:10}{memory}",
        flush=True,
    )
    if name == "first load":
        return result["added"] == files and result["peak"] <= MAX_RESIDENT_BYTES
    quick = (
        result["wall"] <= MAX_SECOND_LOAD_SECONDS * max(1.0, files / 100_000)
        and result["requests"] == 1
    )
    return result["unchanged"] == files and result["peak"] <= MAX_RESIDENT_BYTES and quick


async def load(url: str, dataset: str, folder: str, journal: str) -> dict[str, float]:
    """Load the folder and return its cost."""
    before = max_resident_bytes()
    cpu, wall = time.process_time(), time.perf_counter()
    async with AsyncClient(url, "key", concurrency=8) as client:
        report = await client.load(dataset, folder, wait="accepted", concurrency=8, journal=journal)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "requests": report.requests,
        "added": report.added,
        "unchanged": report.unchanged,
        "before": before,
        "peak": max_resident_bytes(),
    }


def create_files(folder: Path, files: int) -> None:
    """Create the files with old modification times; recent ones would be checked again."""
    past = time.time() - 365 * 24 * 3600
    for number in range(files):
        file = folder / f"{number // FILES_PER_FOLDER:04}" / f"{number:07}.txt"
        if number % FILES_PER_FOLDER == 0:
            file.parent.mkdir(parents=True)
        file.write_bytes(b"%063d\n" % number)
        os.utime(file, (past, past))


def max_resident_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--uvloop", action="store_true", help="Run the client on uvloop.")
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
