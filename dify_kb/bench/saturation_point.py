"""Where more at once stops to bring more: the knee of a curve of throughput. Pure.

A server that is driven by `n` requests at once, each followed by the next, answers more a second
with more of them until it is full; from there on they only wait. The knee is the least number at
once that brings `SATURATED_PART` of what it answers when it is full.

Single points are noisy: of 100 creates whose times scatter by half, the rate is known to 5 %. So
the curve is the rising one that is nearest to all points (isotonic regression), what a full server
answers is the mean of the points from the knee on, and between two points the curve is straight.
Where those points scatter, a point may miss the goal by a part of that.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from attrs import define, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SATURATED_PART = 0.95
"""The part of what a full server answers that the knee brings."""

NEARLY_FULL_PART = 0.85
"""Points that reach this part of the best one may be of a full server; later ones that do not are
of an overloaded one, and no part of the curve."""

ITERATIONS = 5
"""How often the knee and the mean from it on are worked out from each other; mostly two do."""

NOISE_FACTOR = 0.3
"""Standard deviations of the points of a full server by which a point may miss its goal: more
shifts the knee down, less lets single points shift it up (tests/bench has the queues that it was
chosen on)."""

ROUNDING_TOLERANCE = 0.05
"""A knee at 2.03 is 2: no curve is known that well."""


@frozen(kw_only=True)
class ThroughputPoint:
    """A number of requests at once, and how many a second were answered."""

    concurrency: int
    rate: float
    weight: float = 1.0
    """How well the rate is known: the number of answers behind it."""


@frozen(kw_only=True)
class SaturationPoint:
    """Where a server is full."""

    at_once: int
    """The least number at once that brings 95 % of `most`."""

    most: float
    """Answers a second when it is full."""

    reached: bool
    """Whether a larger number was measured and brought no more. Else the server may take more,
    and `at_once` is the largest that was tried."""


def find_saturation_point(points: Iterable[ThroughputPoint]) -> SaturationPoint | None:
    """Tell the knee of a curve; None where fewer than two numbers at once were answered."""
    answered_points = [point for point in points if point.rate > 0]
    curve = _drop_overloaded(answered_points)
    if len(curve) < 2:  # noqa: PLR2004 -- one point is no curve
        return None
    full_points = _nearly_full_points(curve)
    full_rate, exact_concurrency = statistics.median(point.rate for point in full_points), 0.0
    for _ in range(ITERATIONS):
        exact_concurrency = _concurrency_at_rate(
            _fit_rising_curve(curve),
            SATURATED_PART * full_rate - _noise_allowance(full_points, full_rate),
        )
        full_points = [point for point in curve if point.concurrency >= exact_concurrency]
        full_rate = _weighted_mean_rate(full_points)
    reached = len(full_points) > 1 or len(curve) < len(answered_points)
    at_once = (
        max(1, math.ceil(exact_concurrency - ROUNDING_TOLERANCE))
        if reached
        else curve[-1].concurrency
    )
    return SaturationPoint(at_once=at_once, most=full_rate, reached=reached)


def _drop_overloaded(points: Sequence[ThroughputPoint]) -> Sequence[ThroughputPoint]:
    """Put in order, and leave out what is overloaded."""
    ordered = sorted(points, key=lambda point: point.concurrency)
    best = max((point.rate for point in ordered), default=0.0)
    while ordered and ordered[-1].rate < NEARLY_FULL_PART * best:
        ordered.pop()
    return ordered


def _nearly_full_points(curve: Sequence[ThroughputPoint]) -> Sequence[ThroughputPoint]:
    best = max(point.rate for point in curve)
    first = next(
        index for index, point in enumerate(curve) if point.rate >= NEARLY_FULL_PART * best
    )
    return curve[first:]


def _weighted_mean_rate(points: Sequence[ThroughputPoint]) -> float:
    total = sum(point.weight for point in points)
    return sum(point.rate * point.weight for point in points) / total


def _noise_allowance(full_points: Sequence[ThroughputPoint], full_rate: float) -> float:
    """Tell by how much a point may miss its goal by chance, as the points of a full server do."""
    if len(full_points) < 3:  # noqa: PLR2004 -- two that differ may be a rise
        return 0.0
    return min(
        (1 - SATURATED_PART) * full_rate,
        NOISE_FACTOR * statistics.stdev(point.rate for point in full_points),
    )


@define
class _Block:
    """Neighbours whose rates fell, and count as one."""

    points: list[ThroughputPoint]

    @property
    def rate(self) -> float:
        return _weighted_mean_rate(self.points)


def _fit_rising_curve(curve: Sequence[ThroughputPoint]) -> Sequence[ThroughputPoint]:
    """Give the rising curve that is nearest (pool adjacent violators)."""
    blocks: list[_Block] = []
    for point in curve:
        blocks.append(_Block([point]))
        while len(blocks) > 1 and blocks[-2].rate > blocks[-1].rate:
            last = blocks.pop()
            blocks[-1].points += last.points
    return [
        ThroughputPoint(concurrency=point.concurrency, rate=block.rate)
        for block in blocks
        for point in block.points
    ]


def _concurrency_at_rate(curve: Sequence[ThroughputPoint], target_rate: float) -> float:
    """Tell at which number at once a rising curve reaches the goal; at the latest at its end."""
    before: ThroughputPoint | None = None
    for point in curve:
        if point.rate >= target_rate:
            if before is None:
                return point.concurrency
            fraction = (target_rate - before.rate) / (point.rate - before.rate)
            return before.concurrency + (point.concurrency - before.concurrency) * fraction
        before = point
    return curve[-1].concurrency
