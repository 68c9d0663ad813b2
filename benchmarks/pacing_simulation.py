"""Simulate how well a load finds the concurrency and the request rate of a server.

`python benchmarks/pacing_simulation.py` compares the pacing of a load with fixed concurrency on
models of servers (`server_model.py`, `rate_limit_model.py`), and prints the worst and the mean of
several seeds. The best fixed concurrency has the highest goodput without starved connections.
"""

from __future__ import annotations

import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import rate_limit_model
import server_model as model
from attrs import evolve

from dify_kb.ingest.pacing.concurrency_limit import ConcurrencyLimit

SEEDS = range(201, 208)
FIXED_LIMITS = (1, 2, 3, 4, 6, 8, 9, 10, 16, 24, 32, 48, 64)
SECONDS = 120.0


def simulate_fixed(
    pod: model.ServerCapacity, limit: int, seconds: float = SECONDS
) -> model.ModelResult:
    """Simulate a fixed concurrency."""
    return model.simulate_limit(pod, model.FixedLimit(limit), seconds)


def simulate_adaptive(
    pod: model.ServerCapacity, seed: int, seconds: float = SECONDS
) -> tuple[model.ModelResult, int]:
    """Simulate the adaptive concurrency; return the result and the median limit."""
    outcome = model.simulate_limit(pod, ConcurrencyLimit(), seconds, seed)
    return outcome, int(statistics.median(limit for _, limit in outcome.limits[-1000:]))


def print_row(name: str, *cells: object) -> None:
    """Print a row of a table."""
    print(f"{name:34}" + "".join(f"{cell!s:>10}" for cell in cells))


def print_steady_state(pool: ProcessPoolExecutor) -> None:
    """Print the goodput and latency of the adaptive limit, relative to the best fixed one."""
    print("\nBest fixed concurrency: requests/s, median in ms. Adaptive: concurrency, part")
    print("of the best goodput (mean, worst), median in ms, by the median at concurrency 1,")
    print("the median at fixed 64 by it, and starved connections.")
    print_row("processes x connections", "best", "/s", "p50", "adaptive", "mean", "worst", "p50",
              "/ at 1", "at 64 /", "starved")  # fmt: skip
    for pod in model.SERVERS:
        rows = list(pool.map(partial(simulate_fixed, pod), FIXED_LIMITS))
        fair = {
            limit: result
            for limit, result in zip(FIXED_LIMITS, rows, strict=True)
            if not result.starved
        }
        best = max(fair, key=lambda limit: len(fair[limit].ends))
        max_creates = len(fair[best].ends)
        runs = list(pool.map(partial(simulate_adaptive, pod), SEEDS))
        parts = [len(result.ends) / max_creates for result, _ in runs]
        median = statistics.mean(result.quantile(0.5) for result, _ in runs)
        print_row(pod.name, best, f"{max_creates / SECONDS:.0f}",
            f"{fair[best].quantile(0.5) * 1e3:.0f}",
            f"{statistics.median(limit for _, limit in runs):.0f}",
            f"{statistics.mean(parts):.1%}", f"{min(parts):.1%}", f"{median * 1e3:.0f}",
            f"{median / rows[0].quantile(0.5):.1f} x", f"{rows[-1].quantile(0.5) / median:.1f} x",
            f"{statistics.mean(result.starved for result, _ in runs):.1f}")  # fmt: skip


def print_fast_server(pool: ProcessPoolExecutor) -> None:
    """Print the cost of the adaptive limit on a server without a saturation point."""
    print("\nThe client is the bottleneck: requests/s at fixed 8, the worst part of it.")
    print_row("", "fixed 8", "adaptive")
    for pod in (model.QUICK, model.JITTERY):
        floor = len(simulate_fixed(pod, 8, 20.0).ends)
        runs = pool.map(partial(simulate_adaptive, pod, seconds=20.0), SEEDS)
        worst = min(len(result.ends) for result, _ in runs)
        print_row(pod.name, f"{floor / 20:.0f}", f"{worst / floor:.1%}")


def simulate_slowdown(pod: model.ServerCapacity, seed: int) -> tuple[float, float, float]:
    """Simulate 40 s at a tenth of the speed; return goodput, p99 and seconds to recover."""
    outcome, _ = simulate_adaptive(evolve(pod, slow=(30.0, 70.0, 10.0)), seed, 160.0)
    usual = 0.95 * outcome.rate(15.0, 30.0)
    back = next((at for at in range(70, 150) if outcome.rate(at, at + 10) >= usual), 999)
    return len(outcome.ends) / 160, outcome.quantile(0.99), back - 70.0


def simulate_errors(pod: model.ServerCapacity, seed: int, limit: int | None) -> tuple[int, float]:
    """Simulate 20 s with 60 % 5xx; return wasted requests and goodput."""
    stormy = evolve(pod, failing=(30.0, 50.0, 0.6))
    if limit is None:
        outcome = model.simulate_load(stormy, SECONDS, seed)
    else:
        outcome = model.simulate_limit(stormy, model.FixedLimit(limit), SECONDS, seed)
    return outcome.wasted, len(outcome.ends) / SECONDS


def print_failures(pool: ProcessPoolExecutor) -> None:
    """Print the cost of a slowdown and of an outage."""
    print("\n10 times slower for 40 s of 160: requests/s, p99 in s, worst seconds to recover.")
    print_row("", "fixed 32", "p99", "adaptive", "p99", "recovery")
    for pod in (model.DEFAULT, model.BUSY, model.ELSEWHERE):
        other = simulate_fixed(evolve(pod, slow=(30.0, 70.0, 10.0)), 32, 160.0)
        rows = list(pool.map(partial(simulate_slowdown, pod), SEEDS))
        print_row(pod.name, f"{len(other.ends) / 160:.0f}", f"{other.quantile(0.99):.1f}",
            f"{statistics.mean(result[0] for result in rows):.0f}",
            f"{statistics.mean(result[1] for result in rows):.1f}",
            f"{max(result[2] for result in rows):.0f}")  # fmt: skip
    print("\n60 % 5xx for 20 s of 120: wasted requests (worst), requests/s.")
    print_row("", "fixed 32", "/s", "adaptive", "part", "/s")
    for pod in (model.DEFAULT, model.BUSY, model.ELSEWHERE):
        wasted, rate = simulate_errors(pod, 1, 32)
        storms = list(pool.map(partial(simulate_errors, pod, limit=None), SEEDS))
        worst = max(wasted for wasted, _ in storms)
        print_row(pod.name, wasted, f"{rate:.0f}", worst, f"{worst / wasted:.1%}",
            f"{statistics.mean(rate for _, rate in storms):.0f}")  # fmt: skip


def print_rate_limits(pool: ProcessPoolExecutor) -> None:
    """Print the used part of a rate limit, and the refused part of the requests."""
    print("\nRate limits per minute, over 20 minutes: part used, part refused (worst).")
    print_row("", "used", "refused")
    for limit in (10, 60, 100, 600):
        for rate in (None, f"{limit}/min"):
            plan = rate_limit_model.RateLimitCase(limit=limit)
            tallies = list(
                pool.map(partial(rate_limit_model.simulate_rate_limit, plan, rate, 20), SEEDS)
            )
            print_row(f"{limit}, {'stated' if rate else 'learned'}",
                f"{min(result.accepted for result in tallies) / (20 * limit):.1%}",
                f"{max(result.refused_part for result in tallies):.2%}")  # fmt: skip


def main() -> None:
    """Print every table."""
    print(f"Models, {SECONDS:.0f} s, {len(SEEDS)} seeds; Python {platform.python_version()}")
    with ProcessPoolExecutor(2) as pool:
        print_steady_state(pool)
        print_fast_server(pool)
        print_failures(pool)
        print_rate_limits(pool)


if __name__ == "__main__":
    main()
