"""Measure the overhead of a blocking call over the async one.

`python benchmarks/blocking_overhead.py` sends the same request by both clients, in alternating
rounds, to a null server in another process, and prints the median time per call. Fails if the
overhead exceeds its bound.
"""

from __future__ import annotations

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
MAX_OVERHEAD_MS = 0.3
"""Maximum overhead of a blocking call, in milliseconds."""

ASYNC_PING, BLOCKING_PING = "ping, async", "ping, blocking"


def main() -> int:
    """Measure, print a table, and fail if the bound is missed."""
    times = time_calls(ROUNDS)
    medians = {name: statistics.median(found) for name, found in times.items()}
    extra = statistics.median(overheads(times))
    ratio = medians[BLOCKING_PING] / medians[ASYNC_PING]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {describe_versions()}")
    print(f"{ROUNDS} rounds of {CALLS} calls one after another; ms per call")
    print(f"{'':16}{'median':>8}{'min':>8}{'max':>8}")
    for name, found in times.items():
        print(f"{name:16}{medians[name]:8.3f}{min(found):8.3f}{max(found):8.3f}")
    print(
        f"{'overhead':16}{extra:8.3f} ms (bound {MAX_OVERHEAD_MS} ms),"
        f" {ratio:.2f} times the async call"
    )
    return 0 if extra <= MAX_OVERHEAD_MS else 1


def time_calls(rounds: int) -> Mapping[str, Sequence[float]]:
    """Return the milliseconds per call of each kind, by round."""
    with null_server.run_in_process() as url, Client(url, "key") as client:
        loop = client._loop  # noqa: SLF001 -- to measure the thread hop alone
        rows: dict[str, Callable[[], float]] = {
            ASYNC_PING: lambda: anyio.run(time_async_call, url),
            BLOCKING_PING: lambda: time_blocking_call(client.ping),
            "the hop alone": lambda: time_blocking_call(lambda: loop.run(do_nothing)),
        }
        for measure in rows.values():
            measure()
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(rounds):
            for name, measure in rows.items():
                times[name].append(measure())
    return times


def overheads(times: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """Return the overhead of a blocking call, by round."""
    return [mine - twin for mine, twin in zip(times[BLOCKING_PING], times[ASYNC_PING], strict=True)]


def time_blocking_call(call: Callable[[], object]) -> float:
    """Return the milliseconds per call."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) * 1000 / CALLS


async def time_async_call(url: str) -> float:
    """Return the milliseconds per call of the async client, after a warm-up."""
    async with AsyncClient(url, "key") as client:
        for _ in range(WARM_UP):
            await client.ping()
        started = time.perf_counter()
        for _ in range(CALLS):
            await client.ping()
        return (time.perf_counter() - started) * 1000 / CALLS


async def do_nothing() -> None:
    """Return immediately."""


def describe_versions() -> str:
    """Return the versions of Python and the packages."""
    names = ("dify-kb", "aiohttp", "anyio")
    python = f"Python {platform.python_version()}"
    return ", ".join([python, *(f"{name} {version(name)}" for name in names)])


if __name__ == "__main__":
    sys.exit(main())
