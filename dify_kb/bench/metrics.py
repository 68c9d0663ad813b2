"""Statistics of measurements, and metrics of rankings. Pure.

A ranking is given by the best rank of each relevant item (1 is the first result), or None if the
item was not found.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class Spread:
    """The median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread:
        """Summarize values, of which there must be at least one."""
        return cls(
            median=statistics.median(values), low=min(values), high=max(values), count=len(values)
        )


@frozen(kw_only=True)
class Latency:
    """Request times, in seconds. Percentiles are measured values, not interpolated."""

    mean: float
    p50: float
    p95: float
    p99: float
    longest: float
    count: int

    @classmethod
    def from_seconds(cls, seconds: Sequence[float]) -> Latency | None:
        """Summarize request times; return None if there are none."""
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
    """Return the percentile `part` (0 to 1) of sorted values, by the nearest-rank method."""
    rank = max(1, -int(-part * len(ordered) // 1))
    return ordered[rank - 1]


Ranks = Sequence[int | None]


@frozen(kw_only=True)
class Mean:
    """A mean over queries; `error` is two standard errors, a confidence interval of 95 %."""

    value: float
    error: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Mean:
        """Return the mean of values, of which there must be at least one."""
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(value=statistics.fmean(values), error=2 * spread / math.sqrt(len(values)))


def recall(ranks: Ranks, k: int) -> float:
    """Return the part of the relevant items that are among the first `k` results."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def reciprocal_rank(ranks: Ranks, k: int) -> float:
    """Return 1 / the rank of the first relevant item; 0 if no item is among the first `k`."""
    first = min((rank for rank in ranks if rank is not None), default=k + 1)
    return 1 / first if first <= k else 0.0


def ndcg(ranks: Ranks, k: int) -> float:
    """Return the normalized discounted cumulative gain within `k`, with binary relevance.

    Items found in the same chunk share its rank. The gain can therefore exceed that of the ideal
    order; the result is limited to 1.
    """
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank is not None and rank <= k)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(ranks), k) + 1))
    return min(1.0, gain / best)
