"""Measure upload methods in rounds, alternating, so that pauses affect all alike."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from comparison_tables import BenchmarkFigure, ComparisonTable
from upload_clients import UPLOAD_METHODS, MethodRunner, UploadMethod

PAST = time.time() - 365 * 24 * 3600
"""Modification time of the files: recently written ones would be checked again."""

MethodResult = Mapping[str, Any]
Value = Callable[[MethodResult], float | None]


@frozen(kw_only=True)
class Effort:
    """The extent of the measurements."""

    rounds: int = 5
    files: int = 5000
    seconds: float = 1.0
    """Seconds after which no new files are started, in CPU time measurements."""

    latencies: Sequence[float] = (0.0, 0.05, 0.2)
    waiting: int = 512
    """Files sent to a server with a latency."""

    many: int = 5000
    large: int = 32
    repeats: int = 3
    """Rounds of long measurements: wall time, memory, start-up."""


QUICK = Effort(
    rounds=2, files=500, seconds=0.4, latencies=(0.0, 0.05), waiting=160, many=1000, repeats=1
)


@frozen(kw_only=True)
class Workbench:
    """The environments, the files and the extent of the measurements."""

    runner: MethodRunner
    effort: Effort
    folder: Path
    uvloop: bool

    def create_files(self, number: int, size: int) -> str:
        """Return a folder with files of one size, and create it if it does not exist."""
        place = self.folder / f"{number} of {size}"
        if not place.exists():
            place.mkdir()
            content = (b"A line of text.\n" * (size // 16 + 1))[:size]
            for index in range(number):
                file = place / f"{index:05}.txt"
                file.write_bytes(content)
                os.utime(file, (PAST, PAST))
        return str(place)

    def run_rounds(
        self,
        number: int,
        what: str,
        job: Mapping[str, object],
        methods: Sequence[UploadMethod] = UPLOAD_METHODS,
    ) -> Mapping[str, list[MethodResult]]:
        """Run the job with every method, in alternating rounds."""
        results: dict[str, list[MethodResult]] = {method.label: [] for method in methods}
        for index in range(number):
            for method in methods:
                show_status(f"{what}, round {index + 1} of {number}: {method.label}")
                results[method.label].append(
                    self.runner.send(method, {**job, "uvloop": self.uvloop})
                )
        return results


def build_table(
    name: str,
    title: str,
    unit: str,
    floors: Sequence[str],
    results: Mapping[str, Sequence[MethodResult]],
    value: Value,
) -> ComparisonTable:
    """Return a table of results; a method that failed in any round has no values."""
    figures = [build_figure(method, rounds, value) for method, rounds in results.items()]
    usable = [figure for figure in figures if figure.values or figure.problem]
    return ComparisonTable(name=name, title=title, unit=unit, floors=floors, figures=usable)


def build_figure(method: str, rounds: Sequence[MethodResult], value: Value) -> BenchmarkFigure:
    """Return the figure of the results of one method."""
    problem = next((result["problem"] for result in rounds if "problem" in result), None)
    if problem is not None:
        return BenchmarkFigure(method=method, problem=problem)
    values = [results for result in rounds if (results := value(result)) is not None]
    busy = [result["server"] / result["wall"] for result in rounds if result.get("server")]
    return BenchmarkFigure(
        method=method, values=values, server=statistics.median(busy) if busy else None
    )


def show_status(text: str) -> None:
    """Print the current step, if stderr is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def open_workbench(runner: MethodRunner, effort: Effort, *, uvloop: bool) -> Iterator[Workbench]:
    """Create a temporary folder for the files, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        yield Workbench(runner=runner, effort=effort, folder=Path(folder), uvloop=uvloop)
    show_status("")
