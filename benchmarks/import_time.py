"""Measure the import time of the package, relative to that of aiohttp.

`python benchmarks/import_time.py` runs each import in separate processes, alternating, and prints
the median wall times and their ratios to aiohttp's, process start included.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDS = 15
FLOOR = "import aiohttp"
CASES = ("pass", FLOOR, "import dify_kb", "from dify_kb import AsyncClient")


def time_commands(
    cases: Mapping[str, Sequence[str]], rounds: int, surroundings: Mapping[str, str] | None = None
) -> Mapping[str, Sequence[float]]:
    """Time commands, alternating, so that pauses affect all alike. The first round warms up."""
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for case, command in cases.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, env=surroundings)
            if number:
                seconds[case].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure and print a table."""
    seconds = time_commands({case: [sys.executable, "-c", case] for case in CASES}, ROUNDS)
    floor = statistics.median(seconds[FLOOR])
    print(f"{platform.platform()}, Python {platform.python_version()}", end="")
    print(f", aiohttp {version('aiohttp')}, dify-kb {version('dify-kb')}; {ROUNDS} rounds")
    print(f"{'':32} {'median':>9} {'spread':>17} {'ratio':>6}")
    for case, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}"
        print(f"{case:32} {median * 1e3:6.0f} ms {spread:>14} ms {median / floor:6.2f}")


if __name__ == "__main__":
    main()
