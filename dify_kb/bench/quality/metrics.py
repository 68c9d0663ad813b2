"""How good a ranking is, by what is known to be relevant. Pure.

A ranking is told by the rank (1 is the best) at which each relevant thing was first found, or None
where it was not. A thing that is found again lower down counts once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from attrs import frozen

Ranks = Sequence[int | None]


@frozen(kw_only=True)
class Mean:
    """A mean over queries; `error` is two standard errors: it is within that 19 times of 20."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
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


def apart(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Tell whether two searches of the same queries differ by more than chance (paired, 95 %)."""
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    mean = Mean.of(differences)
    return abs(mean.value) > mean.error
