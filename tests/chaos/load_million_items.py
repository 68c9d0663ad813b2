"""Load a large number of generated items in a separate process.

`python load_million_items.py COUNT URL DATASET JOURNAL plan|fail`: `plan` is a dry run; with `fail`
every item is too large. Prints the report and the peak memory of the process.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
from load_environment import KEY, POLICY

from dify_kb import AsyncClient, Item


def items(count: int) -> Iterator[Item]:
    """Yield generated items; no files are written."""
    for number in range(count):
        yield Item(f"{number // 1000}/{number:07}.md", text="a wombat")


async def main(count: int, url: str, dataset: str, journal: Path, what: str) -> None:
    """Load the items and print the report."""
    async with AsyncClient(url, KEY, policy=POLICY) as client:
        report = await client.load(
            dataset,
            items(count),
            journal=journal,
            dry_run=what == "plan",
            max_file_size=15 * 2**20 if what == "plan" else 1,
        )
        failures = sum(1 for _ in report.failures())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({**report.to_dict(), "peak": peak, "failures": failures}) + "\n")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5])
