"""Whether a load finds by itself how many creates, and how many a minute, a server takes.

`python benchmarks/pace.py` runs models of servers (`pod_model.py`, `quota_model.py`) against fixed
numbers in flight and against what a load does, and prints the worst and the mean of several seeds.
Best fixed: the number that brings most a second of those that starve no connection.
"""

from __future__ import annotations

import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pod_model as model
import quota_model
from attrs import evolve

from dify_kb.transport.knee import Knee

SEEDS = range(1, 8)
FIXED = (1, 2, 3, 4, 6, 8, 9, 10, 16, 24, 32, 48, 64)
SECONDS = 120.0


def fixed(pod: model.Pod, limit: int, seconds: float = SECONDS) -> model.Outcome:
    """Run with a number that somebody chose."""
    return model.run(pod, model.Fixed(limit), seconds)


def found(pod: model.Pod, seed: int, seconds: float = SECONDS) -> tuple[model.Outcome, int]:
    """Run with a number that is found; tell also which it was."""
    outcome = model.run(pod, Knee(), seconds, seed)
    return outcome, int(statistics.median(limit for _, limit in outcome.limits[-1000:]))


def steady(pool: ProcessPoolExecutor) -> None:
    """Print how much of the best fixed number's goodput is reached, and at what waiting."""
    print(
        f"\n{'server (processes x connections)':34}{'best':>5}{'/s':>6}{'p50':>5}   found /s worst"
    )
    print(f"{'':34}{'':>5}{'':>6}{'ms':>5}{'limit':>8}{'/s':>7}{'mean':>7}{'worst':>7}"
          f"{'p50':>6}{'/ alone':>8}{'fixed 64':>9}{'starved':>8}")  # fmt: skip
    for pod in model.PODS:
        rows = list(pool.map(partial(fixed, pod), FIXED))
        fair = [(len(row.ends), limit) for limit, row in zip(FIXED, rows, strict=True)
                if not row.starved]  # fmt: skip
        most, best = max(fair)
        alone, wide = rows[0].quantile(0.5), rows[-1].quantile(0.5)
        runs = list(pool.map(partial(found, pod), SEEDS))
        parts = [len(row.ends) / most for row, _ in runs]
        median = statistics.mean(row.quantile(0.5) for row, _ in runs)
        print(f"{pod.name:34}{best:>5}{most / SECONDS:>6.0f}{rows[FIXED.index(best)].quantile(0.5) * 1e3:>5.0f}"  # noqa: E501
              f"{statistics.median(limit for _, limit in runs):>8.0f}"
              f"{statistics.mean(parts) * most / SECONDS:>7.0f}"
              f"{statistics.mean(parts):>7.1%}{min(parts):>7.1%}{median * 1e3:>6.0f}"
              f"{median / alone:>7.1f}x{wide / median:>8.1f}x"
              f"{statistics.mean(row.starved for row, _ in runs):>8.1f}")  # fmt: skip


def quick(pool: ProcessPoolExecutor) -> None:
    """Print what is lost where there is nothing to find."""
    print(f"\n{'server':34}{'fixed 8, /s':>12}{'found, worst of it':>20}")
    for pod in (model.QUICK, model.JITTERY):
        floor = len(fixed(pod, 8, 20.0).ends)
        parts = [
            len(row.ends) / floor for row, _ in pool.map(partial(found, pod, seconds=20.0), SEEDS)
        ]  # noqa: E501
        print(f"{pod.name:34}{floor / 20:>12.0f}{min(parts):>20.1%}")


def slowed(pod: model.Pod, seed: int) -> tuple[float, float, float]:
    """Run through 40 s of being 10 times as slow; give goodput, p99 and seconds to recover."""
    outcome, _ = found(evolve(pod, slow=(30.0, 70.0, 10.0)), seed, 160.0)
    usual = 0.95 * outcome.rate(15.0, 30.0)
    back = next((at for at in range(70, 150) if outcome.rate(at, at + 10) >= usual), 999)
    return len(outcome.ends) / 160, outcome.quantile(0.99), back - 70.0


def failing(pod: model.Pod, seed: int, limit: int | None) -> tuple[int, float]:
    """Run through 20 s of 60 % 5xx; give calls wasted and goodput."""
    controller = model.Guarded() if limit is None else model.Fixed(limit)
    outcome = model.run(evolve(pod, failing=(30.0, 50.0, 0.6)), controller, SECONDS, seed)
    return outcome.wasted, len(outcome.ends) / SECONDS


def trouble(pool: ProcessPoolExecutor) -> None:
    """Print what a brown-out and a storm of errors cost."""
    print(
        f"\n{'10 x slower for 40 s':34}{'fixed 32, /s':>13}{'found':>7}{'p99 s':>12}{'back after s, worst':>21}"
    )  # noqa: E501
    for pod in (model.DEFAULT, model.BUSY, model.ELSEWHERE):
        other = fixed(evolve(pod, slow=(30.0, 70.0, 10.0)), 32, 160.0)
        rows = list(pool.map(partial(slowed, pod), SEEDS))
        print(f"{pod.name:34}{len(other.ends) / 160:>13.0f}{statistics.mean(r[0] for r in rows):>7.0f}"
              f"{other.quantile(0.99):>6.1f}{statistics.mean(r[1] for r in rows):>6.1f}"
              f"{max(r[2] for r in rows):>21.0f}")  # fmt: skip
    print(
        f"\n{'60 % 5xx for 20 s':34}{'fixed 32 wastes':>16}{'found':>7}{'worst':>7}{'/s':>7}{'/s':>5}"
    )
    for pod in (model.DEFAULT, model.BUSY, model.ELSEWHERE):
        other_wasted, other_rate = failing(pod, 1, 32)
        storms = list(pool.map(partial(failing, pod, limit=None), SEEDS))
        worst = max(wasted for wasted, _ in storms)
        print(f"{pod.name:34}{other_wasted:>16}{worst:>7}{worst / other_wasted:>7.1%}{other_rate:>7.0f}"
              f"{statistics.mean(rate for _, rate in storms):>5.0f}")  # fmt: skip


def minutes(pool: ProcessPoolExecutor) -> None:
    """Print how much of a quota is used, and how many calls it refuses."""
    print(f"\n{'calls a minute, 20 windows':34}{'of it used, worst':>18}{'refused, worst':>16}")
    for limit in (10, 60, 100, 600):
        for rate in (None, f"{limit}/min"):
            plan = quota_model.Plan(limit=limit)
            tallies = list(pool.map(partial(quota_model.run, plan, rate, 20), SEEDS))
            name = f"{limit}, {'stated' if rate else 'learned'}"
            print(f"{name:34}{min(t.accepted for t in tallies) / (20 * limit):>18.1%}"
                  f"{max(t.share for t in tallies):>16.2%}")  # fmt: skip


def main() -> None:
    """Print every table."""
    print(f"Models, {SECONDS:.0f} s, {len(SEEDS)} seeds; Python {platform.python_version()}")
    with ProcessPoolExecutor(2) as pool:
        steady(pool)
        quick(pool)
        trouble(pool)
        minutes(pool)


if __name__ == "__main__":
    main()
