"""What a blocking call costs over its async twin.

`python benchmarks/blocking.py` sends the same call through both clients, in turns, to a server in
another process that does nothing but answer, and prints the time of a call, the median of several
rounds. Fails when the blocking call costs more on top than is allowed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio
import null_server

from dify_kb import AsyncClient
from dify_kb.blocking import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROUNDS, CALLS, WARM_UP = 15, 400, 100
MOST = 0.3
"""Milliseconds that a blocking call may cost on top."""

AWAITED, BLOCKING = "ping, async", "ping, blocking"


def main() -> int:
    """Measure, print a table, and fail when the bound is broken."""
    times = measured(ROUNDS)
    medians = {name: statistics.median(found) for name, found in times.items()}
    extra = statistics.median(on_top(times))
    ratio = medians[BLOCKING] / medians[AWAITED]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {versions()}")
    print(f"{ROUNDS} rounds of {CALLS} calls one after another; ms per call")
    print(f"{'':16}{'median':>8}{'least':>8}{'most':>8}")
    for name, found in times.items():
        print(f"{name:16}{medians[name]:8.3f}{min(found):8.3f}{max(found):8.3f}")
    print(f"{'on top':16}{extra:8.3f} ms (bound {MOST} ms), {ratio:.2f} times the async call")
    return 0 if extra <= MOST else 1


def measured(rounds: int) -> Mapping[str, Sequence[float]]:
    """Give the milliseconds of a call of each kind, round by round."""
    with null_server.running() as url, Client(url, "key") as client:
        loop = client._loop  # noqa: SLF001 -- the hop by itself is what is measured
        rows: dict[str, Callable[[], float]] = {
            AWAITED: lambda: anyio.run(awaited, url, backend_options=backend()),
            BLOCKING: lambda: timed(client.ping),
            "the hop alone": lambda: timed(lambda: loop.wait(nothing)),
        }
        for measure in rows.values():
            measure()
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(rounds):
            for name, measure in rows.items():
                times[name].append(measure())
    return times


def on_top(times: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """Give what a blocking call took more than its async twin, round by round."""
    return [mine - twin for mine, twin in zip(times[BLOCKING], times[AWAITED], strict=True)]


def timed(call: Callable[[], object]) -> float:
    """Give the milliseconds of one call."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) * 1000 / CALLS


async def awaited(url: str) -> float:
    """Give the same for the async client, connected and warm."""
    async with AsyncClient(url, "key") as client:
        for _ in range(WARM_UP):
            await client.ping()
        started = time.perf_counter()
        for _ in range(CALLS):
            await client.ping()
        return (time.perf_counter() - started) * 1000 / CALLS


async def nothing() -> None:
    """Return at once."""


def backend() -> dict[str, bool]:
    """Give both clients the same kind of loop."""
    return {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


def versions() -> str:
    """Name what was measured."""
    names = ["dify-kb", "aiohttp", "anyio", *(["uvloop"] if backend()["use_uvloop"] else [])]
    python = f"Python {platform.python_version()}"
    return ", ".join([python, *(f"{name} {version(name)}" for name in names)])


if __name__ == "__main__":
    sys.exit(main())
