from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from dify_kb.bench.metrics import ndcg
from dify_kb.bench.significance import MIN_QUERIES, find_changes, find_worse_than_best

RUNS, PERMUTATIONS = 100, 200
"""Of each simulation: enough to see a test that is wrong in 20 % instead of 5 %. Of 2,500 runs of
it, 4.4 to 5.4 % were wrong."""

MAX_WRONG, MIN_POWER = 0.08, 0.6

SHARED = 0.7
"""The part of queries for which two search methods return the same results."""


GAINS = [ndcg([rank], 10) for rank in (*range(1, 11), None)]
"""The nDCG of a query with one relevant item, by its rank."""


def draw_gain(rng: random.Random, chance: float) -> float:
    """Return the nDCG of a query whose relevant item is found at each rank with a chance."""
    rank = int(math.log(1 - rng.random()) / math.log(1 - chance))
    return GAINS[min(rank, 10)]


def simulate_equal_results(rng: random.Random, count: int, queries: int) -> list[list[float]]:
    """Return gains of equally good search methods, for queries of varying difficulty."""
    results: list[list[float]] = [[] for _ in range(count)]
    for _ in range(queries):
        chance = rng.betavariate(0.8, 1.2) * 0.9 + 0.02
        common = draw_gain(rng, chance)
        for gains in results:
            gains.append(common if rng.random() < SHARED else draw_gain(rng, chance))
    return results


def share_of_runs(simulate: Callable[[random.Random], Sequence[Sequence[float]]]) -> float:
    """Return the part of simulated runs in which any result is told apart."""
    rng = random.Random(4)
    found = [
        any(find_worse_than_best(simulate(rng), permutations=PERMUTATIONS)) for _ in range(RUNS)
    ]
    return sum(found) / RUNS


@pytest.mark.parametrize("count", [8, 12])
@pytest.mark.parametrize("queries", [10, 30, 100])
def test_equal_results_are_rarely_told_apart(count: int, queries: int) -> None:
    """Comparing each with the best as a pair told one apart in half of the runs and more."""
    assert share_of_runs(lambda rng: simulate_equal_results(rng, count, queries)) <= MAX_WRONG


@pytest.mark.parametrize("count", [8, 12])
def test_true_difference_is_found_with_a_hundred_queries(count: int) -> None:
    def simulate(rng: random.Random) -> Sequence[Sequence[float]]:
        best, *others = simulate_equal_results(rng, count, 100)
        mean = sum(map(sum, [best, *others])) / count / 100
        # Each loses a part of its gains: 0.1 of nDCG on average.
        return [
            best,
            *([0.0 if rng.random() < 0.1 / mean else gain for gain in gains] for gains in others),
        ]

    assert share_of_runs(simulate) >= MIN_POWER


def test_few_queries_tell_nothing() -> None:
    few = MIN_QUERIES - 1

    assert find_worse_than_best([[1.0] * few, [0.0] * few]) == [False, False]
    assert find_changes([[1.0] * few], [[0.0] * few]) == [0]
    assert find_worse_than_best([[1.0] * 10, [0.0] * 10]) == [False, True]
    assert find_worse_than_best([[1.0], [0.5]]) == [False, False]


def test_comparison_is_the_same_each_time_and_in_any_order() -> None:
    rng = random.Random(3)
    results = simulate_equal_results(rng, 3, 40)
    results.append([0.3 * gain for gain in results[0]])

    first = find_worse_than_best(results)

    assert first == find_worse_than_best(results)
    assert list(reversed(first)) == find_worse_than_best(results[::-1])
    assert first[3]


@pytest.mark.parametrize("results", [[], [[]], [[0.5] * 20], [[0.5] * 20, [0.5] * 20]])
def test_nothing_differs_without_a_difference(results: Sequence[Sequence[float]]) -> None:
    assert find_worse_than_best(results) == [False] * len(results)
    assert find_changes(results, results) == [0] * len(results)


def test_equal_results_are_rarely_found_changed() -> None:
    rng = random.Random(2)

    def is_told() -> bool:
        before = simulate_equal_results(rng, 8, 50)
        after = simulate_equal_results(rng, 8, 50)
        shuffled = [
            [pair if rng.random() < 0.5 else pair[::-1] for pair in zip(*rows, strict=True)]
            for rows in zip(before, after, strict=True)
        ]
        split = [list(zip(*rows, strict=True)) for rows in shuffled]
        return any(
            find_changes(
                [rows[0] for rows in split], [rows[1] for rows in split], permutations=PERMUTATIONS
            )
        )

    assert sum(is_told() for _ in range(RUNS)) / RUNS <= MAX_WRONG


def test_large_changes_are_found_with_their_direction() -> None:
    before = [[0.5, 0.6] * 10, [0.5, 0.6] * 10, [0.5, 0.6] * 10]
    after = [[0.5, 0.6] * 10, [0.2, 0.1] * 10, [0.9, 0.9] * 10]

    assert find_changes(before, after) == [0, -1, 1]
