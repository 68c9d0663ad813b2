"""Where more at once stops to bring more: the knee of a curve of throughput. Pure.

A server that is driven by `n` requests at once, each followed by the next, answers more a second
with more of them until it is full; from there on they only wait. The knee is the least number at
once that brings `ENOUGH` of what it answers when it is full.

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

ENOUGH = 0.95
"""The part of what a full server answers that the knee brings."""

NEAR = 0.85
"""Points that reach this part of the best one may be of a full server; later ones that do not are
of an overloaded one, and no part of the curve."""

ROUNDS = 5
"""How often the knee and the mean from it on are worked out from each other; mostly two do."""

DOUBT = 0.3
"""Standard deviations of the points of a full server by which a point may miss its goal: more
shifts the knee down, less lets single points shift it up (tests/bench has the queues that it was
chosen on)."""

BLUR = 0.05
"""A knee at 2.03 is 2: no curve is known that well."""


@frozen(kw_only=True)
class Point:
    """A number of requests at once, and how many a second were answered."""

    at_once: int
    rate: float
    weight: float = 1.0
    """How well the rate is known: the number of answers behind it."""


@frozen(kw_only=True)
class Knee:
    """Where a server is full."""

    at_once: int
    """The least number at once that brings 95 % of `most`."""

    most: float
    """Answers a second when it is full."""

    reached: bool
    """Whether a larger number was measured and brought no more. Else the server may take more,
    and `at_once` is the largest that was tried."""


def find(points: Iterable[Point]) -> Knee | None:
    """Tell the knee of a curve; None where fewer than two numbers at once were answered."""
    known = [point for point in points if point.rate > 0]
    curve = _curve(known)
    if len(curve) < 2:  # noqa: PLR2004 -- one point is no curve
        return None
    full = _near(curve)
    most, exact = statistics.median(point.rate for point in full), 0.0
    for _ in range(ROUNDS):
        exact = _crossing(_rising(curve), ENOUGH * most - _allowance(full, most))
        full = [point for point in curve if point.at_once >= exact]
        most = _mean(full)
    reached = len(full) > 1 or len(curve) < len(known)
    at_once = max(1, math.ceil(exact - BLUR)) if reached else curve[-1].at_once
    return Knee(at_once=at_once, most=most, reached=reached)


def _curve(points: Sequence[Point]) -> Sequence[Point]:
    """Put in order, and leave out what is overloaded."""
    ordered = sorted(points, key=lambda point: point.at_once)
    best = max((point.rate for point in ordered), default=0.0)
    while ordered and ordered[-1].rate < NEAR * best:
        ordered.pop()
    return ordered


def _near(curve: Sequence[Point]) -> Sequence[Point]:
    best = max(point.rate for point in curve)
    first = next(place for place, point in enumerate(curve) if point.rate >= NEAR * best)
    return curve[first:]


def _mean(points: Sequence[Point]) -> float:
    total = sum(point.weight for point in points)
    return sum(point.rate * point.weight for point in points) / total


def _allowance(full: Sequence[Point], most: float) -> float:
    """Tell by how much a point may miss its goal by chance, as the points of a full server do."""
    if len(full) < 3:  # noqa: PLR2004 -- two that differ may be a rise
        return 0.0
    return min((1 - ENOUGH) * most, DOUBT * statistics.stdev(point.rate for point in full))


@define
class _Block:
    """Neighbours whose rates fell, and count as one."""

    points: list[Point]

    @property
    def rate(self) -> float:
        return _mean(self.points)


def _rising(curve: Sequence[Point]) -> Sequence[Point]:
    """Give the rising curve that is nearest (pool adjacent violators)."""
    blocks: list[_Block] = []
    for point in curve:
        blocks.append(_Block([point]))
        while len(blocks) > 1 and blocks[-2].rate > blocks[-1].rate:
            last = blocks.pop()
            blocks[-1].points += last.points
    return [
        Point(at_once=point.at_once, rate=block.rate) for block in blocks for point in block.points
    ]


def _crossing(curve: Sequence[Point], goal: float) -> float:
    """Tell at which number at once a rising curve reaches the goal; at the latest at its end."""
    before: Point | None = None
    for point in curve:
        if point.rate >= goal:
            if before is None:
                return point.at_once
            part = (goal - before.rate) / (point.rate - before.rate)
            return before.at_once + (point.at_once - before.at_once) * part
        before = point
    return curve[-1].at_once
