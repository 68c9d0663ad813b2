"""Test whether results of the same queries differ by more than chance. Pure.

Both tests are randomization tests of the maximum, so that the probability of any wrong "worse" in a
whole comparison is about 5 %, however many results are compared (Carterette, "Multiple testing in
statistical analysis of systems-based information retrieval experiments", TOIS 2012).
"""

from __future__ import annotations

import itertools
import math
import random
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_QUERIES = 10
"""With fewer queries, the tests find no difference: too few to tell."""

PERMUTATIONS = 1000

LEVEL = 0.05
"""The probability of a wrong difference in a comparison."""

SEED = 20

MAX_ORDERS = 720
"""Orders of results from which permutations are drawn: all, up to six results."""

TOLERANCE = 1e-9
"""Means that differ by less are equal, whatever the order of their sums."""


def find_worse_than_best(
    scores: Sequence[Sequence[float]], *, permutations: int = PERMUTATIONS
) -> Sequence[bool]:
    """Return for each result whether its mean is significantly lower than the highest mean.

    Without a true difference, the scores of a query could as well belong to other results. They are
    permuted within each query; a result is worse if it misses the best one by more than the best
    and the worst of permuted results differ in 95 % of the permutations.

    Args:
        scores: the scores of each result, by query, in the same order of queries.
    """
    rows = list(zip(*scores, strict=True))
    if len(rows) < MIN_QUERIES or len(scores) < 2:  # noqa: PLR2004 -- a comparison
        return [False] * len(scores)
    totals = [math.fsum(values) for values in scores]
    rng = random.Random(SEED)
    # A query with equal scores is the same in each order.
    varying = [row for row in rows if min(row) < max(row)]
    orders = [itemgetter(*order) for order in _draw_orders(len(scores), rng)]
    ranges: list[float] = []
    for _ in range(permutations):
        chosen = rng.choices(orders, k=len(varying))
        permuted = [order(row) for order, row in zip(chosen, varying, strict=True)]
        sums = [sum(values) for values in zip(*permuted, strict=True)] or [0.0]
        ranges.append(max(sums) - min(sums))
    limit = _quantile(ranges) + TOLERANCE * len(rows)
    return [max(totals) - total > limit for total in totals]


def find_changes(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    *,
    permutations: int = PERMUTATIONS,
) -> Sequence[int]:
    """Return how the mean of each result changed: -1 is lower, 1 is higher, 0 is not significant.

    Without a true change, the scores of a query before and after could as well be exchanged; a
    change is significant if it exceeds the largest change of all results in 95 % of the exchanges.
    Changes are compared in units of their own spread, so that results may be of different metrics.

    Args:
        before: the scores of each result, by query.
        after: the scores of the same results for the same queries.
    """
    differences = [
        _standardize([new - old for old, new in zip(*pair, strict=True)])
        for pair in zip(before, after, strict=True)
    ]
    rows = list(zip(*differences, strict=True))
    if len(rows) < MIN_QUERIES:
        return [0] * len(differences)
    rng = random.Random(SEED)
    sides = [(row, tuple(-value for value in row)) for row in rows if any(row)]
    largest: list[float] = []
    for _ in range(permutations):
        bits = rng.getrandbits(len(sides) + 1)
        chosen = [pair[bits >> number & 1] for number, pair in enumerate(sides)]
        sums = [sum(values) for values in zip(*chosen, strict=True)] or [0.0]
        largest.append(max(map(abs, sums)))
    limit = _quantile(largest) + TOLERANCE * len(rows)
    totals = [math.fsum(values) for values in differences]
    return [0 if abs(total) <= limit else -1 if total < 0 else 1 for total in totals]


def _standardize(differences: Sequence[float]) -> Sequence[float]:
    length = math.hypot(*differences)
    return [value / length for value in differences] if length else differences


def _draw_orders(count: int, rng: random.Random) -> Sequence[Sequence[int]]:
    """Return the orders of so many results, or a random selection of them."""
    if math.factorial(count) <= MAX_ORDERS:
        return list(itertools.permutations(range(count)))
    return [rng.sample(range(count), count) for _ in range(MAX_ORDERS)]


def _quantile(values: Sequence[float]) -> float:
    """Return the value that a further one of the same kind exceeds in a part of `LEVEL`."""
    rank = math.ceil((1 - LEVEL) * (len(values) + 1))
    return sorted(values)[min(rank, len(values)) - 1]
