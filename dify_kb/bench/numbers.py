"""Many measurements as few numbers. Pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen(kw_only=True)
class Spread:
    """The median of repeated measurements, with the least and the most of them."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up one value at least."""
        return cls(
            median=statistics.median(values), low=min(values), high=max(values), count=len(values)
        )


@frozen(kw_only=True)
class Latency:
    """How long requests took, in seconds. A percentile is a time that was really measured."""

    mean: float
    p50: float
    p95: float
    p99: float
    longest: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """Sum up the times of requests; None of none."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return cls(
            mean=statistics.fmean(ordered),
            p50=percentile(ordered, 0.50),
            p95=percentile(ordered, 0.95),
            p99=percentile(ordered, 0.99),
            longest=ordered[-1],
            count=len(ordered),
        )


def percentile(ordered: Sequence[float], part: float) -> float:
    """Give the least of the ordered values that `part` of them do not exceed (nearest rank)."""
    rank = max(1, -int(-part * len(ordered) // 1))
    return ordered[rank - 1]
