"""Many measurements as few numbers, and the quality of rankings. Pure.

A ranking is told by the rank (1 is the best) at which each relevant thing was first found, or None
where it was not. A thing that is found again lower down counts once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class Spread:
    """The median of repeated measurements, with the least and the most of them."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread:
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
    def from_seconds(cls, seconds: Sequence[float]) -> Latency | None:
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


Ranks = Sequence[int | None]


@frozen(kw_only=True)
class Mean:
    """A mean over queries; `error` is two standard errors: it is within that 19 times of 20."""

    value: float
    error: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Mean:
        """Take the mean of one value at least."""
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(value=statistics.fmean(values), error=2 * spread / math.sqrt(len(values)))


def recall(ranks: Ranks, k: int) -> float:
    """Tell which part of what is relevant is among the first `k`."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def reciprocal_rank(ranks: Ranks, k: int) -> float:
    """Give one by the rank of the first relevant thing; 0 if it is not among the first `k`."""
    first = min((rank for rank in ranks if rank is not None), default=k + 1)
    return 1 / first if first <= k else 0.0


def ndcg(ranks: Ranks, k: int) -> float:
    """Give the discounted gain within `k`, by that of the best order; relevance is 0 or 1.

    Things that are found in the same passage share its rank. So the best order can be surpassed,
    which counts as 1.
    """
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank is not None and rank <= k)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(ranks), k) + 1))
    return min(1.0, gain / best)


def differ_significantly(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Tell whether two searches of the same queries differ by more than chance (paired, 95 %)."""
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    mean = Mean.from_values(differences)
    return abs(mean.value) > mean.error
