from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.bench.metrics import (
    Latency,
    Mean,
    Ranks,
    Spread,
    ndcg,
    percentile,
    recall,
    reciprocal_rank,
)


@pytest.mark.parametrize(
    ("ranks", "k", "found", "first", "gain"),
    [
        ([1], 3, 1, 1, 1),
        ([2], 3, 1, 0.5, 1 / math.log2(3)),
        ([4], 3, 0, 0, 0),
        ([None], 3, 0, 0, 0),
        ([1, None], 3, 0.5, 1, 1 / (1 + 1 / math.log2(3))),
        ([3, 1], 3, 1, 1, (1 + 0.5) / (1 + 1 / math.log2(3))),
        ([2, 3], 2, 0.5, 0.5, (1 / math.log2(3)) / (1 + 1 / math.log2(3))),
        ([1, 1], 5, 1, 1, 1),
        ([1, 2, 3], 1, 1 / 3, 1, 1),
    ],
)
def test_metrics_match_manual_calculation(
    ranks: Ranks, k: int, found: float, first: float, gain: float
) -> None:
    assert recall(ranks, k) == pytest.approx(found)
    assert reciprocal_rank(ranks, k) == pytest.approx(first)
    assert ndcg(ranks, k) == pytest.approx(gain)


@settings(deadline=None)
@given(ranks=st.lists(st.none() | st.integers(1, 30), min_size=1, max_size=8), k=st.integers(1, 20))
def test_metrics_lie_between_zero_and_one_and_grow_with_k(ranks: Ranks, k: int) -> None:
    for metric in (recall, reciprocal_rank, ndcg):
        assert 0 <= metric(ranks, k) <= 1
    assert recall(ranks, k) <= recall(ranks, k + 1)
    assert reciprocal_rank(ranks, k) <= reciprocal_rank(ranks, k + 1)


def test_a_mean_has_two_standard_errors() -> None:
    found = Mean.from_values([1, 0, 1, 0])

    assert found.value == 0.5
    assert found.error == pytest.approx(2 * math.sqrt(1 / 3) / 2)
    assert Mean.from_values([0.3]) == Mean(value=0.3, error=0)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    ordered = [float(value) for value in range(1, 21)]

    assert percentile(ordered, 0.50) == 10
    assert percentile(ordered, 0.95) == 19
    assert percentile(ordered, 0.99) == 20
    assert percentile([7.0], 0.5) == 7


def test_latency_summarizes_request_times() -> None:
    found = Latency.from_seconds([0.3, 0.1, 0.2])

    assert found is not None
    assert (found.p50, found.p99, found.longest, found.count) == (0.2, 0.3, 0.3, 3)
    assert found.mean == pytest.approx(0.2)
    assert Latency.from_seconds([]) is None


def test_spread_has_minimum_and_maximum() -> None:
    assert Spread.from_values([3, 1, 2]) == Spread(median=2, low=1, high=3, count=3)
