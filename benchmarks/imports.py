"""What importing the package costs, against importing aiohttp alone.

`python benchmarks/imports.py` starts each import in processes of their own, in turn, and prints
the median wall time of each and its ratio to aiohttp's, process start included.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

ROUNDS = 15
FLOOR = "import aiohttp"
CASES = ("pass", FLOOR, "import dify_kb", "from dify_kb import AsyncClient")


def main() -> None:
    """Measure in turn, so that a slow moment meets all alike, and print a table."""
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(ROUNDS + 1):
        for case in CASES:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", case], check=True)
            if number:
                seconds[case].append(time.perf_counter() - started)
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
