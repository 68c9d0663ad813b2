"""A load in a separate process, to be killed: `python load_process.py URL DATASET FOLDER`.

Prints the result of each file and the report as JSON Lines. The journal is `FOLDER/../journal.db`.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import anyio
import attrs
from load_environment import KEY, POLICY
from random_kills import CONCURRENCY

from dify_kb import AsyncClient, ItemResult


async def main(url: str, dataset: str, folder: Path) -> None:
    """Load the folder and print the results."""

    def print_result(event: object) -> None:
        if isinstance(event, ItemResult):
            sys.stdout.write(json.dumps(attrs.asdict(event)) + "\n")
            sys.stdout.flush()

    sys.stdout.write('{"started": true}\n')
    sys.stdout.flush()
    async with AsyncClient(url, KEY, policy=POLICY) as client:
        report = await client.load(
            dataset,
            folder,
            journal=folder.parent / "journal.db",
            concurrency=CONCURRENCY,
            stall_after=5.0,
            on_event=print_result,
        )
    sys.stdout.write(report.to_json() + "\n")


if __name__ == "__main__":
    # Shells start background jobs, possibly the test run, with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    anyio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]))
