"""Measure how well a load finds the best concurrency of an HTTP server.

`python benchmarks/load_concurrency.py [--rounds N] [--seconds S]` loads small files into embedded
servers with the capacity of Dify installations, in another process, with fixed concurrency and
with automatic concurrency, in alternating rounds. Prints the median goodput, latency and starved
connections, and fails if a bound is missed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import frozen
from emulator_process import EmulatorProcess, run_emulator

from dify_kb import AsyncClient, AttemptEvent
from dify_kb.emulator import Settings
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_GOODPUT_PART, MAX_LATENCY_RATIO = 0.95, 2.5
"""Part of the goodput at the best fixed concurrency; multiple of the unloaded latency."""

CREATE = catalog.CREATE_DOCUMENT_BY_FILE.name


@frozen(kw_only=True)
class ServerCase:
    """A server of about `rate` documents per second, and the fixed concurrency levels."""

    name: str
    settings: Settings
    fixed: Sequence[int]
    rate: int


SERVER_CASES = (
    ServerCase(name="1 process, 10 connections", settings=Settings.default_pod(), rate=27,
        fixed=(1, 2, 3, 4, 6, 8)),
    ServerCase(name="4 processes, 32 connections each", settings=Settings.pods(4, 32), rate=100,
        fixed=(1, 8, 12, 16, 24, 32)),
)  # fmt: skip


@frozen
class LoadResult:
    """Documents per second, seconds per create request, and starved connections of a load."""

    goodput: float
    seconds: Sequence[float]
    starved: int

    @property
    def median(self) -> float:
        """Median seconds of a create request."""
        return statistics.median(self.seconds)


def main() -> int:
    """Measure, print a table per server, and fail if a bound is missed."""
    options = parse_arguments()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, dify-kb {version('dify-kb')}"
    )
    print(f"{options.rounds} alternating rounds of {options.seconds} s per level; medians")
    within = [measure_server(pod, options) for pod in SERVER_CASES]
    return 0 if all(within) else 1


def measure_server(pod: ServerCase, options: argparse.Namespace) -> bool:
    """Load with every concurrency in alternating rounds, and print the table of a server."""
    runs: dict[int | None, list[LoadResult]] = {number: [] for number in (*pod.fixed, None)}
    with tempfile.TemporaryDirectory() as temporary, run_emulator(pod.settings) as server:
        server.plan_faults({"indexing": ["die"]})
        folder = Path(temporary) / "files"
        folder.mkdir()
        for number in range(int(pod.rate * options.seconds)):
            (folder / f"{number:05}.txt").write_bytes(b"A line of text.\n")
        for _ in range(options.rounds):
            for at_once, rows in runs.items():
                rows.append(anyio.run(load, server, folder, at_once))
    return print_results(pod, runs)


async def load(server: EmulatorProcess, folder: Path, at_once: int | None) -> LoadResult:
    """Load the folder into a new dataset, until all files are accepted."""
    seconds: list[float] = []

    def record_attempt(event: AttemptEvent) -> None:
        if event.endpoint == CREATE:
            seconds.append(event.seconds)

    before = server.count_starved()
    async with AsyncClient(server.url, server.key, on_event=record_attempt) as client:
        dataset = await client.datasets.create(str(uuid.uuid4()), indexing_technique="economy")
        report = await client.load(
            dataset,
            folder,
            include=("000*",) if at_once == 1 else ("*",),  # 100 files suffice
            wait="accepted",
            concurrency=at_once,
            journal=folder.with_name(f"{dataset.id}.db"),
        )
    assert report, report  # noqa: S101 -- else the result is meaningless
    return LoadResult(report.goodput, seconds, server.count_starved() - before)


def print_results(pod: ServerCase, runs: Mapping[int | None, Sequence[LoadResult]]) -> bool:
    """Print a row per concurrency; return whether the automatic one is within the bounds."""
    goodput = {at: statistics.median(run.goodput for run in rows) for at, rows in runs.items()}
    latency = {at: statistics.median(run.median for run in rows) for at, rows in runs.items()}
    starved = {at: max(run.starved for run in rows) for at, rows in runs.items()}
    best = max(goodput[at] for at in pod.fixed if not starved[at])
    print(f"\n{pod.name}")
    print(f"{'level':>8}{'/s':>8}{'min':>8}{'max':>8}{'part':>7}{'p50 ms':>8}{'/ at 1':>8}"
          f"{'max ms':>8}{'starved':>9}")  # fmt: skip
    for at, rows in runs.items():
        every = [run.goodput for run in rows]
        longest = max(max(run.seconds) for run in rows)
        print(f"{at or 'auto':>8}{goodput[at]:8.1f}{min(every):8.1f}{max(every):8.1f}"
              f"{goodput[at] / best:7.1%}{latency[at] * 1e3:8.0f}{latency[at] / latency[1]:8.2f}"
              f"{longest * 1e3:8.0f}{starved[at]:9}", flush=True)  # fmt: skip
    calm = latency[None] <= MAX_LATENCY_RATIO * latency[1] and not starved[None]
    return calm and goodput[None] >= MIN_GOODPUT_PART * best


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
