"""Draws that are the same in every version of Python: only `random()` is promised to be."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

_NORMAL = statistics.NormalDist()


class Chance:
    """Draws of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, number: int) -> int:
        """Draw from 0 to `number` - 1."""
        return int(self._random.random() * number)

    def between(self, low: int, high: int) -> int:
        """Draw from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of the values."""
        return values[self.below(len(values))]

    def size(self, median: float, spread: float, low: int, high: int) -> int:
        """Draw from a log-normal distribution, within bounds."""
        normal = _NORMAL.inv_cdf(min(max(self._random.random(), 1e-9), 1 - 1e-9))
        return round(min(max(median * math.exp(spread * normal), low), high))
