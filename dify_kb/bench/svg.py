"""Plots as SVG, without a library. Pure: a chart in, text out.

Series differ by colour, by marker and by dash, so that they are told apart in print and by people
who do not see colours; each point has its numbers as a tooltip, and the chart a title for readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from attrs import field, frozen

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#a2508a", "#7a5c00", "#3b3b3b", "#b3173d", "#3a8fb7",
)  # fmt: skip
"""Of Okabe and Ito, darkened where they are too light for lines on white."""

DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 4", "1 4", "14 4", "9 2 2 2 2 2")
MARKERS = ("circle", "square", "diamond", "triangle", "cross", "ring", "wedge", "plus")

TICKS = 5

STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
"""Times a power of ten: what is round between ticks."""

Scale = Literal["linear", "doubling"]
"""`doubling`: each step to the right is twice as much."""


@frozen(kw_only=True)
class Series:
    """A line with a name; with `lows` and `highs`, the spread of each point."""

    name: str
    points: Sequence[tuple[float, float]]
    spreads: Sequence[tuple[float, float]] = ()


@frozen(kw_only=True)
class Chart:
    """What a plot shows. The y axis begins at zero."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    scale: Scale = "linear"
    marks: Mapping[float, str] = field(factory=dict)
    """Vertical lines at places of the x axis, with what they mean."""


def svg(chart: Chart) -> str:
    """Draw a chart; one without points is drawn empty."""
    xs = [x for series in chart.series for x, _ in series.points] + list(chart.marks)
    ys = [y for series in chart.series for _, y in series.points]
    ys += [high for series in chart.series for _, high in series.spreads]
    top = ceiling(max(ys, default=1.0))
    across = _across(xs or [1.0], chart.scale)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(chart.title)}</title>",
        *_grid(top, down),
        *_ticks(xs or [1.0], chart.scale, across),
        _label(chart.x, f'x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}"'),
        _label(chart.y, f'transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"'),
        *_marks(chart.marks, across),
    ]
    for number, series in enumerate(chart.series):
        parts += _drawn(series, number, across, down)
    return "\n".join([*parts, "</svg>"])


def legend(chart: Chart) -> str:
    """Name the series of a chart, each beside its line; nothing for a single one."""
    if len(chart.series) < 2:  # noqa: PLR2004 -- one needs no key
        return ""
    items = "".join(
        f'<li><svg viewBox="0 0 40 12" width="40" height="12" aria-hidden="true">'
        f'<line x1="0" y1="6" x2="40" y2="6" {_stroke(number)}/>{_marker(number, 20, 6)}</svg>'
        f" {escape(series.name)}</li>"
        for number, series in enumerate(chart.series)
    )
    return f'<ul class="legend">{items}</ul>'


def ceiling(value: float) -> float:
    """Give the least number above it that is five round steps."""
    step = value / TICKS
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    nice = next(factor for factor in STEPS if factor * power >= step * (1 - 1e-9))
    return TICKS * nice * power


def number(value: float) -> str:
    """Write a number as short as it stays readable."""
    if value == 0:
        return "0"
    if abs(value) >= 100:  # noqa: PLR2004 -- three digits
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _label(text: str, where: str) -> str:
    return f'<text class="axis" {where} text-anchor="middle">{escape(text)}</text>'


def _across(xs: Sequence[float], scale: Scale) -> Callable[[float], float]:
    room = WIDTH - LEFT - RIGHT
    if scale == "linear":
        most = max(xs) or 1.0
        return lambda x: LEFT + room * x / most
    low, high = math.log2(min(xs)), math.log2(max(xs))
    wide = high - low or 1.0
    return lambda x: LEFT + 12 + (room - 24) * (math.log2(x) - low) / wide


def _grid(top: float, down: Callable[[float], float]) -> Sequence[str]:
    lines: list[str] = []
    for step in range(TICKS + 1):
        value = top * step / TICKS
        y = down(value)
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    return lines


def _ticks(xs: Sequence[float], scale: Scale, across: Callable[[float], float]) -> Sequence[str]:
    places = sorted(set(xs))
    if scale == "linear":
        most = max(places) or 1.0
        top = ceiling(most)
        places = [top * step / TICKS for step in range(TICKS + 1) if top * step / TICKS <= most]
    return [
        f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
        f"{number(x)}</text>"
        for x in places
    ]


def _marks(marks: Mapping[float, str], across: Callable[[float], float]) -> Sequence[str]:
    lines: list[str] = []
    for row, (x, text) in enumerate(marks.items()):
        place = across(x)
        right = place < WIDTH * 0.7
        lines.append(
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}"'
            f' y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="mark" x="{place + (5 if right else -5):.1f}"'
            f' y="{TOP + 10 + 15 * row}" text-anchor="{"start" if right else "end"}">'
            f"{escape(text)}</text>"
        )
    return lines


def _drawn(
    series: Series,
    index: int,
    across: Callable[[float], float],
    down: Callable[[float], float],
) -> Sequence[str]:
    colour = COLOURS[index % len(COLOURS)]
    places = [(across(x), down(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" {_stroke(index)}/>']
    for (x, _), (low, high) in zip(places, series.spreads, strict=False):
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{down(low):.1f}" y2="{down(high):.1f}"'
            f' stroke="{colour}" stroke-width="1"/>'
        )
    for (x, y), (right, up) in zip(places, series.points, strict=True):
        told = escape(f"{series.name}: {number(up)} at {number(right)}")
        parts.append(f"<g><title>{told}</title>{_marker(index, x, y)}</g>")
    return parts


def _stroke(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="2"{dashed}'


def _marker(index: int, x: float, y: float) -> str:
    colour = COLOURS[index % len(COLOURS)]
    match MARKERS[index % len(MARKERS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        case "square":
            return (
                f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
            )
        case "diamond":
            shape = f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"
        case "triangle":
            shape = f"M{x:.1f} {y - 5:.1f}l5 9h-10z"
        case "wedge":
            shape = f"M{x:.1f} {y + 5:.1f}l5 -9h-10z"
        case "cross" | "plus" as kind:
            slanted = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
            straight = f"M{x - 5:.1f} {y:.1f}h10m-5 -5v10"
            shape = slanted if kind == "cross" else straight
            return f'<path d="{shape}" stroke="{colour}" stroke-width="2" fill="none"/>'
        case _:
            return (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{colour}"'
                ' stroke-width="2"/>'
            )
    return f'<path d="{shape}" fill="{colour}"/>'
