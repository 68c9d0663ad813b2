from __future__ import annotations

import pytest

from dify_kb.bench.metrics import Latency, Spread, percentile


def test_a_percentile_is_a_value_that_was_measured() -> None:
    ordered = [float(value) for value in range(1, 21)]

    assert percentile(ordered, 0.50) == 10
    assert percentile(ordered, 0.95) == 19
    assert percentile(ordered, 0.99) == 20
    assert percentile([7.0], 0.5) == 7


def test_times_are_summed_up() -> None:
    found = Latency.from_seconds([0.3, 0.1, 0.2])

    assert found is not None
    assert (found.p50, found.p99, found.longest, found.count) == (0.2, 0.3, 0.3, 3)
    assert found.mean == pytest.approx(0.2)
    assert Latency.from_seconds([]) is None


def test_a_spread_has_its_ends() -> None:
    assert Spread.from_values([3, 1, 2]) == Spread(median=2, low=1, high=3, count=3)
