"""How the parts of a comparison are measured: round by round, each way in turn."""

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
"""When files were written: what has just been written may still change, and is looked at again."""

MethodResult = Mapping[str, Any]
Value = Callable[[MethodResult], float | None]


@frozen(kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    files: int = 5000
    seconds: float = 1.0
    """A way begins no more files after this time, where its processor time is measured."""

    latencies: Sequence[float] = (0.0, 0.05, 0.2)
    waiting: int = 512
    """Files that are sent to a server with a latency."""

    many: int = 5000
    large: int = 32
    repeats: int = 3
    """Rounds where one takes long: wall time, memory, start-up."""


QUICK = Effort(
    rounds=2, files=500, seconds=0.4, latencies=(0.0, 0.05), waiting=160, many=1000, repeats=1
)


@frozen(kw_only=True)
class Workbench:
    """What every part needs: the environments, files to send, and how much to measure."""

    runner: MethodRunner
    effort: Effort
    folder: Path
    uvloop: bool

    def create_files(self, number: int, size: int) -> str:
        """Give a folder of so many files, which stay the same from part to part."""
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
        ways: Sequence[UploadMethod] = UPLOAD_METHODS,
    ) -> Mapping[str, list[MethodResult]]:
        """Have each way do the job, in turn, so that a slow moment meets all alike."""
        results: dict[str, list[MethodResult]] = {way.label: [] for way in ways}
        for index in range(number):
            for way in ways:
                show_status(f"{what}, round {index + 1} of {number}: {way.label}")
                results[way.label].append(self.runner.send(way, {**job, "uvloop": self.uvloop}))
        return results


def build_table(
    name: str,
    title: str,
    unit: str,
    floors: Sequence[str],
    results: Mapping[str, Sequence[MethodResult]],
    value: Value,
) -> ComparisonTable:
    """Make a table of what the ways told; one that failed in any round has no figure."""
    figures = [build_figure(way, rounds, value) for way, rounds in results.items()]
    usable = [figure for figure in figures if figure.values or figure.problem]
    return ComparisonTable(name=name, title=title, unit=unit, floors=floors, figures=usable)


def build_figure(way: str, rounds: Sequence[MethodResult], value: Value) -> BenchmarkFigure:
    """Make a figure of what one way told, round by round."""
    problem = next((result["problem"] for result in rounds if "problem" in result), None)
    if problem is not None:
        return BenchmarkFigure(way=way, problem=problem)
    values = [results for result in rounds if (results := value(result)) is not None]
    busy = [result["server"] / result["wall"] for result in rounds if result.get("server")]
    return BenchmarkFigure(way=way, values=values, server=statistics.median(busy) if busy else None)


def show_status(text: str) -> None:
    """Tell on a terminal what is under way."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def open_workbench(runner: MethodRunner, effort: Effort, *, uvloop: bool) -> Iterator[Workbench]:
    """Make room for the files that are sent."""
    with tempfile.TemporaryDirectory() as folder:
        yield Workbench(runner=runner, effort=effort, folder=Path(folder), uvloop=uvloop)
    show_status("")
