"""Measure the requests and the delay of following documents until they are indexed.

`python benchmarks/polling_cost.py` follows documents in virtual time, sent at 25 per second and
indexed at several speeds, and prints the GET requests per document, the delay until the end of the
last document is noticed, and the median and 99th percentile of these delays. Fails if a bound is
missed. Polling each document separately, at intervals from 1 to 30 s that double, would cost 5 to
several hundred GET requests each (`polled`).
"""

from __future__ import annotations

import itertools
import platform
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

from attrs import frozen
from indexing_simulation import IndexingSimulation

DOCUMENT_COUNTS = (100, 1000, 10_000)
WORKERS = (1, 8)
SECONDS_PER_DOCUMENT = (0.1, 2.0, 60.0)
"""Seconds that a worker needs for a document, on average."""

MAX_DELAY_PART, MIN_DELAY_BOUND = 0.05, 5.0
"""Maximum delay of the last document: a part of the total time, but at least these seconds."""


@frozen
class FollowResult:
    """Requests and delays of following documents; times in seconds."""

    gets: float
    polled: float
    drained: float
    late: float
    delays: list[float]


def main() -> int:
    """Measure, print a table, and fail if a bound is missed."""
    print(f"Virtual time; Python {platform.python_version()}, dify-kb {version('dify-kb')}")
    print(f"{'documents':>9}{'workers':>9}{'s each':>8}{'total s':>10}{'GETs each':>11}"
          f"{'polled':>9}{'last late s':>13}{'part':>8}{'p50 s':>8}{'p99 s':>8}")  # fmt: skip
    cases = [*itertools.product(DOCUMENT_COUNTS, WORKERS, SECONDS_PER_DOCUMENT)]
    within = True
    with ProcessPoolExecutor(2) as pool:
        for case, row in zip(cases, pool.map(measure_following, cases), strict=True):
            within = print_result(case, row) and within
    return 0 if within else 1


def measure_following(case: tuple[int, int, float]) -> FollowResult:
    """Follow the documents of one case."""
    number, workers, seconds = case
    fleet = IndexingSimulation(number, workers, seconds)
    following = fleet.follow_all()
    results = following.results
    ends = {f"{index}.txt": end for index, end in enumerate(fleet.ends)}
    drained = max(fleet.ends)
    return FollowResult(
        gets=len(following.server.requests) / number,
        polled=statistics.mean(map(count_polls, fleet.sent_at, fleet.ends)),
        drained=drained,
        late=max(when for when, _ in results) - drained,
        delays=sorted(when - ends[result.key] for when, result in results),
    )


def count_polls(sent: float, end: float) -> int:
    """Return the polls of one document, after 1, 2, 4, 8, 16 and then every 30 s."""
    calls, now, wait = 0, sent, 1.0
    while now < end or not calls:
        now, wait, calls = now + wait, min(30.0, 2 * wait), calls + 1
    return calls


def print_result(case: tuple[int, int, float], row: FollowResult) -> bool:
    """Print a row; return whether it is within the bounds."""
    number, workers, seconds = case
    p50, p99 = (row.delays[int(part * (number - 1))] for part in (0.5, 0.99))
    print(f"{number:9}{workers:9}{seconds:8g}{row.drained:10.0f}{row.gets:11.3f}{row.polled:9.1f}"
          f"{row.late:13.1f}{row.late / row.drained:8.1%}{p50:8.1f}{p99:8.1f}",
          flush=True)  # fmt: skip
    few = row.gets <= (0.10 if number >= DOCUMENT_COUNTS[-1] else 0.25)
    return few and row.late <= max(MAX_DELAY_PART * row.drained, MIN_DELAY_BOUND)


if __name__ == "__main__":
    sys.exit(main())
