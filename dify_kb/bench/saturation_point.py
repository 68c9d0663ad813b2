"""Find the saturation point of a throughput curve. Pure.

With more concurrent requests, a server responds to more requests per second until it is saturated;
beyond that, requests only wait. The saturation point is the lowest concurrency that reaches
`SATURATED_PART` of the maximum throughput.

Single points are noisy: the rate of 100 creates whose times vary by half is known to 5 %. The
curve is therefore fitted by isotonic regression and is linear between two points, and the maximum
throughput is the mean of the points from the saturation point on. A point may miss the target rate
by a part of the standard deviation of these points.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from attrs import define, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SATURATED_PART = 0.95
"""The part of the maximum throughput that the saturation point reaches."""

NEARLY_FULL_PART = 0.85
"""Points that reach this part of the best rate may be saturated. Points of higher concurrency that
do not reach it are overloaded and not part of the curve."""

ITERATIONS = 5
"""Saturation point and maximum throughput are computed from each other; two mostly suffice."""

NOISE_FACTOR = 0.3
"""Standard deviations of the saturated points by which a point may miss the target rate. A higher
value moves the saturation point down, a lower one lets single points move it up (chosen by the
simulated queues in tests/bench)."""

ROUNDING_TOLERANCE = 0.05
"""A saturation point of 2.03 is rounded to 2: no curve is that accurate."""


@frozen(kw_only=True)
class ThroughputPoint:
    """A concurrency, and its rate of responses per second."""

    concurrency: int
    rate: float
    weight: float = 1.0
    """Accuracy of the rate: the number of responses it is based on."""


@frozen(kw_only=True)
class SaturationPoint:
    """The concurrency at which a server is saturated."""

    at_once: int
    """The lowest concurrency that reaches 95 % of `most`."""

    most: float
    """Maximum throughput, in responses per second."""

    reached: bool
    """Whether a higher concurrency was measured and did not increase the rate. If not, the server
    may allow more, and `at_once` is the highest concurrency measured."""


def find_saturation_point(points: Iterable[ThroughputPoint]) -> SaturationPoint | None:
    """Return the saturation point; None if fewer than two levels have responses."""
    answered_points = [point for point in points if point.rate > 0]
    curve = _drop_overloaded(answered_points)
    if len(curve) < 2:  # noqa: PLR2004 -- one point is not a curve
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
    """Return the points by concurrency, without the overloaded ones."""
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
    """Return by how much a point may miss the target rate by chance."""
    if len(full_points) < 3:  # noqa: PLR2004 -- two different points may be a rise
        return 0.0
    return min(
        (1 - SATURATED_PART) * full_rate,
        NOISE_FACTOR * statistics.stdev(point.rate for point in full_points),
    )


@define
class _Block:
    """Neighbouring points with falling rates, merged into one."""

    points: list[ThroughputPoint]

    @property
    def rate(self) -> float:
        return _weighted_mean_rate(self.points)


def _fit_rising_curve(curve: Sequence[ThroughputPoint]) -> Sequence[ThroughputPoint]:
    """Fit a rising curve by isotonic regression (pool adjacent violators)."""
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
    """Return the concurrency at which a rising curve reaches the rate, or its last one."""
    before: ThroughputPoint | None = None
    for point in curve:
        if point.rate >= target_rate:
            if before is None:
                return point.concurrency
            fraction = (target_rate - before.rate) / (point.rate - before.rate)
            return before.concurrency + (point.concurrency - before.concurrency) * fraction
        before = point
    return curve[-1].concurrency
