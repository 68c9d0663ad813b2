"""Measure whether a load finds the number of uploads at once that suits a real HTTP server best.

`python benchmarks/load_concurrency.py [--rounds N] [--seconds S]` loads small files into embedded
servers in another process that are as large and as slow as installations of Dify are, with fixed
numbers at once and with none given, in turn. Prints goodput, latency and starved connections, the
median of the rounds, and fails when a bound is broken.
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
"""Part of the best fixed number's goodput, and multiple of the unloaded latency."""

CREATE = catalog.CREATE_DOCUMENT_BY_FILE.name


@frozen(kw_only=True)
class ServerCase:
    """A server, and the fixed numbers to try on it; it takes about `rate` documents a second."""

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
    """Documents a second, the seconds of each create, and starved connections of a load."""

    goodput: float
    seconds: Sequence[float]
    starved: int

    @property
    def median(self) -> float:
        """Seconds that a create took."""
        return statistics.median(self.seconds)


def main() -> int:
    """Measure, print a table for each server, and fail when a bound is broken."""
    options = parse_arguments()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, dify-kb {version('dify-kb')}"
    )
    print(f"{options.rounds} rounds of {options.seconds} s by each, in turn; medians")
    within = [measure_server(pod, options) for pod in SERVER_CASES]
    return 0 if all(within) else 1


def measure_server(pod: ServerCase, options: argparse.Namespace) -> bool:
    """Load in turn with each number, and print the table of a server."""
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
    """Load the folder into a dataset of its own, until everything is accepted."""
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
            include=("000*",) if at_once == 1 else ("*",),  # a hundred tell what is unloaded
            wait="accepted",
            concurrency=at_once,
            journal=folder.with_name(f"{dataset.id}.db"),
        )
    assert report, report  # noqa: S101 -- else it measured something else
    return LoadResult(report.goodput, seconds, server.count_starved() - before)


def print_results(pod: ServerCase, runs: Mapping[int | None, Sequence[LoadResult]]) -> bool:
    """Print a row for each number at once; return whether what was found is within bounds."""
    goodput = {at: statistics.median(run.goodput for run in rows) for at, rows in runs.items()}
    latency = {at: statistics.median(run.median for run in rows) for at, rows in runs.items()}
    starved = {at: max(run.starved for run in rows) for at, rows in runs.items()}
    best = max(goodput[at] for at in pod.fixed if not starved[at])
    print(f"\n{pod.name}")
    print(f"{'at once':>8}{'/s':>8}{'least':>8}{'most':>8}{'part':>7}{'p50 ms':>8}{'/alone':>8}"
          f"{'max ms':>8}{'starved':>9}")  # fmt: skip
    for at, rows in runs.items():
        every = [run.goodput for run in rows]
        longest = max(max(run.seconds) for run in rows)
        print(f"{at or 'found':>8}{goodput[at]:8.1f}{min(every):8.1f}{max(every):8.1f}"
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
