"""Measure the start-up of the package, relative to the import of aiohttp.

`python benchmarks/import_time.py` runs each command in separate processes, alternating, and prints
the median CPU times and their ratios to aiohttp's, process start included. CPU time, because other
processes delay a start more than they slow it down.
"""

from __future__ import annotations

import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDS = 15
FLOOR = "import aiohttp"
CASES = ("pass", FLOOR, "import dify_kb", "from dify_kb import AsyncClient")

FIRST_USE = "AsyncClient(…).datasets"
"""Includes what the import leaves to the first client: the transport, models and resources."""

HELP = "dify-kb --help"


def time_commands(
    cases: Mapping[str, Sequence[str]], rounds: int, surroundings: Mapping[str, str] | None = None
) -> Mapping[str, Sequence[float]]:
    """Return the CPU seconds of commands, run in turn. A first round warms up."""
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for case, command in cases.items():
            started = _children_seconds()
            subprocess.run(command, check=True, env=surroundings, stdout=subprocess.DEVNULL)
            if number:
                seconds[case].append(_children_seconds() - started)
    return seconds


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print a table."""
    use = (
        'from dify_kb import AsyncClient; AsyncClient("http://127.0.0.1/v1", "dataset-x").datasets'
    )
    commands = {
        **{case: [sys.executable, "-c", case] for case in CASES},
        FIRST_USE: [sys.executable, "-c", use],
        HELP: [sys.executable, "-m", "dify_kb", "--help"],
    }
    seconds = time_commands(commands, ROUNDS)
    floor = statistics.median(seconds[FLOOR])
    print(f"{platform.platform()}, Python {platform.python_version()}", end="")
    print(f", aiohttp {version('aiohttp')}, dify-kb {version('dify-kb')}; {ROUNDS} rounds")
    print(f"{'CPU time':32} {'median':>9} {'spread':>17} {'ratio':>6}")
    for case, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}"
        print(f"{case:32} {median * 1e3:6.0f} ms {spread:>14} ms {median / floor:6.2f}")


if __name__ == "__main__":
    main()
