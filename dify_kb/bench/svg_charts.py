"""Render line charts as SVG. Pure.

The series of a chart differ by colour, marker and dashes, to be distinguishable in print and for
colour-blind readers. Each point has its values as a tooltip, and each chart has a title for screen
readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from attrs import field, frozen

WIDTH, HEIGHT = 480, 280
"""Units of a chart. It is shown at 300 to 544 pixels: with 12 units, texts have 11 pixels and more
on a phone by a larger font there (`html_report.STYLE`)."""

LEFT, RIGHT, TOP, BOTTOM = 66, 14, 14, 50

LIGHT_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#a2508a", "#7a5c00", "#3b3b3b", "#b3173d", "#3a8fb7",
)  # fmt: skip
"""Palette of Okabe and Ito, darkened where too light for lines on white."""

DARK_COLOURS = (
    "#56b4e9", "#ff9a4d", "#3ecfa0", "#e39bd3", "#dcc04a", "#d0d0d0", "#ff8098", "#a5dcf2",
)  # fmt: skip
"""The same hues, lightened for lines on black."""

DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 4", "1 4", "14 4", "9 2 2 2 2 2")
MARKERS = ("circle", "square", "diamond", "triangle", "cross", "ring", "wedge", "plus")

TICKS = 5

ROUND_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
"""Allowed distances between ticks, times a power of ten."""

Scale = Literal["linear", "doubling"]
"""`doubling` is logarithmic with base 2."""


@frozen(kw_only=True)
class ChartSeries:
    """A named line. `spreads` has the minimum and maximum of each point."""

    name: str
    points: Sequence[tuple[float, float]]
    spreads: Sequence[tuple[float, float]] = ()


@frozen(kw_only=True)
class Chart:
    """A line chart. The y axis begins at zero."""

    title: str
    x: str
    y: str
    series: Sequence[ChartSeries]
    scale: Scale = "linear"
    marks: Mapping[float, str] = field(factory=dict)
    """Labels of vertical lines, by their x value."""


def render_svg(chart: Chart) -> str:
    """Return a chart as SVG; a chart without points is empty."""
    xs = [x for series in chart.series for x, _ in series.points] + list(chart.marks)
    ys = [y for series in chart.series for _, y in series.points]
    ys += [high for series in chart.series for _, high in series.spreads]
    top = round_up_axis(max(ys, default=1.0))
    scale_x = _x_scale(xs or [1.0], chart.scale)

    def scale_y(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(chart.title)}</title>",
        *_render_grid(top, scale_y),
        *_render_ticks(xs or [1.0], chart.scale, scale_x),
        _render_label(chart.x, f'x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}"'),
        _render_label(
            chart.y, f'transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"'
        ),
        *_render_marks(chart.marks, scale_x),
    ]
    for number, series in enumerate(chart.series):
        parts += _render_series(series, number, scale_x, scale_y)
    return "\n".join([*parts, "</svg>"])


def render_legend(chart: Chart) -> str:
    """Return the legend of a chart as HTML; empty for a single series."""
    if len(chart.series) < 2:  # noqa: PLR2004 -- one series needs no legend
        return ""
    items = "".join(
        f"<li {_colour_class(number)}>"
        '<svg viewBox="0 0 40 12" width="40" height="12" aria-hidden="true">'
        f'<line x1="0" y1="6" x2="40" y2="6" {_stroke_attributes(number)}/>'
        f"{_render_marker(number, 20, 6)}</svg>"
        f"<span>{escape(series.name)}</span></li>"
        for number, series in enumerate(chart.series)
    )
    return f'<ul class="legend">{items}</ul>'


def round_up_axis(value: float) -> float:
    """Return the lowest maximum of an axis, not below the value, with five round steps."""
    step = value / TICKS
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    round_step = next(factor for factor in ROUND_STEPS if factor * power >= step * (1 - 1e-9))
    return TICKS * round_step * power


def format_number(value: float) -> str:
    """Return a number with three significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= 100:  # noqa: PLR2004 -- three digits
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _render_label(text: str, where: str) -> str:
    return f'<text class="axis" {where} text-anchor="middle">{escape(text)}</text>'


def _x_scale(xs: Sequence[float], scale: Scale) -> Callable[[float], float]:
    plot_width = WIDTH - LEFT - RIGHT
    if scale == "linear":
        max_x = max(xs) or 1.0
        return lambda x: LEFT + plot_width * x / max_x
    low, high = math.log2(min(xs)), math.log2(max(xs))
    width = high - low or 1.0
    return lambda x: LEFT + 12 + (plot_width - 24) * (math.log2(x) - low) / width


def _render_grid(top: float, scale_y: Callable[[float], float]) -> Sequence[str]:
    lines: list[str] = []
    for step in range(TICKS + 1):
        value = top * step / TICKS
        y = scale_y(value)
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{format_number(value)}</text>'
        )
    return lines


def _render_ticks(
    xs: Sequence[float], scale: Scale, scale_x: Callable[[float], float]
) -> Sequence[str]:
    places = sorted(set(xs))
    if scale == "linear":
        max_x = max(places) or 1.0
        top = round_up_axis(max_x)
        places = [top * step / TICKS for step in range(TICKS + 1) if top * step / TICKS <= max_x]
    return [
        f'<text x="{scale_x(x):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
        f"{format_number(x)}</text>"
        for x in places
    ]


def _render_marks(marks: Mapping[float, str], scale_x: Callable[[float], float]) -> Sequence[str]:
    lines: list[str] = []
    for row, (x, text) in enumerate(marks.items()):
        place = scale_x(x)
        right = place < WIDTH * 0.7
        lines.append(
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}"'
            f' y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="mark" x="{place + (5 if right else -5):.1f}"'
            f' y="{TOP + 10 + 15 * row}" text-anchor="{"start" if right else "end"}">'
            f"{escape(text)}</text>"
        )
    return lines


def _render_series(
    series: ChartSeries,
    index: int,
    scale_x: Callable[[float], float],
    scale_y: Callable[[float], float],
) -> Sequence[str]:
    places = [(scale_x(x), scale_y(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f"<g {_colour_class(index)}>",
        f'<polyline points="{path}" fill="none" {_stroke_attributes(index)}/>',
    ]
    for (x, _), (low, high) in zip(places, series.spreads, strict=False):
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale_y(low):.1f}" y2="{scale_y(high):.1f}"'
            ' stroke="currentColor" stroke-width="1"/>'
        )
    for (x, y), (right, up) in zip(places, series.points, strict=True):
        tooltip = escape(f"{series.name}: {format_number(up)} at {format_number(right)}")
        parts.append(f"<g><title>{tooltip}</title>{_render_marker(index, x, y)}</g>")
    return [*parts, "</g>"]


def _stroke_attributes(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="currentColor" stroke-width="2"{dashed}'


def _colour_class(index: int) -> str:
    """Return the class of the colour of a series, which `colour_rules` defines."""
    return f'class="series{index % len(LIGHT_COLOURS)}"'


def colour_rules(colours: Sequence[str]) -> str:
    """Return the CSS rules of the colours of series."""
    return "\n".join(
        f".series{index} {{ color: {colour} }}" for index, colour in enumerate(colours)
    )


def _render_marker(index: int, x: float, y: float) -> str:
    match MARKERS[index % len(MARKERS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="currentColor"/>'
        case "square":
            return (
                f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"'
                ' fill="currentColor"/>'
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
            return f'<path d="{shape}" stroke="currentColor" stroke-width="2" fill="none"/>'
        case _:
            return (
                f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="currentColor"'
                ' stroke-width="2"/>'
            )
    return f'<path d="{shape}" fill="currentColor"/>'
