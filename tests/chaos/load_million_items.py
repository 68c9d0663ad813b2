"""A load of very many items that are made as they are asked for, in a process of its own.

`python load_million_items.py COUNT URL DATASET JOURNAL plan|fail`: `plan` rehearses all of them,
with `fail` each is too large. Prints its report and the most memory that the process ever had.
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
    """Make them; no file is on a disk."""
    for number in range(count):
        yield Item(f"{number // 1000}/{number:07}.md", text="a wombat")


async def main(count: int, url: str, dataset: str, journal: Path, what: str) -> None:
    """Load, and tell what it took."""
    async with AsyncClient(url, KEY, policy=POLICY) as client:
        report = await client.load(
            dataset,
            items(count),
            journal=journal,
            dry_run=what == "plan",
            max_file_size=15 * 2**20 if what == "plan" else 1,
        )
        told = sum(1 for _ in report.failures())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({**report.to_dict(), "peak": peak, "told": told}) + "\n")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5])
