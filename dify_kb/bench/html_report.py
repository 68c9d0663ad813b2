"""Render a report as a self-contained HTML page with tables and SVG charts. Pure.

The page needs no scripts, fonts or network. The series of a chart differ by colour, marker and
dashes, to be distinguishable in print and for colour-blind readers. Each point has its values as a
tooltip, and each chart has a title for screen readers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from attrs import field, frozen

NUMBER_PATTERN = re.compile(r"-|[\d.,e-]+( [KM]iB| bytes)?")
"""A number, a range, a size, or "-" for a missing value."""

LONG_CELL, LONG_CLASS = 40, ' class="long"'
"""Cells of this length, in characters, may wrap."""

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
       max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; line-height: 1.2 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
figure { margin: 1rem 0; max-width: 46rem } figcaption { font-weight: 600 }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #333 }
svg .axis { fill: #1c1c1c } svg .grid { stroke: #e3e3e3 }
svg line.mark { stroke: #777; stroke-dasharray: 3 3 } svg text.mark { fill: #555 }
ul.legend { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 0 1.4rem }
ul.legend svg { vertical-align: middle }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0 }
table { font-size: 14px }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e3e3e3;
         white-space: nowrap }
.number { text-align: right } td.long { white-space: normal; min-width: 14rem }
tr.chosen td { font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem } dt { color: #555 }
dd { margin: 0 } p.note { color: #444; max-width: 46rem }
"""


@frozen(kw_only=True)
class ReportTable:
    """A table of text cells. `highlighted` has the indexes of the rows in bold."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlighted: Sequence[int] = ()

    def is_numeric(self, place: int) -> bool:
        """Return whether a column contains numbers, which are aligned right."""
        cells = [row[place] for row in self.rows if row[place]]
        return bool(cells) and all(NUMBER_PATTERN.fullmatch(cell) for cell in cells)


@frozen(kw_only=True)
class PageSection:
    """A section with a heading, text, charts and a table."""

    heading: str
    text: str = ""
    charts: Sequence[Chart] = ()
    table: ReportTable | None = None


def render_page(
    title: str, facts: Sequence[tuple[str, str]], sections: Sequence[PageSection]
) -> str:
    """Return the HTML page."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    body = "\n".join(_render_section(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n<dl>{listed}</dl>\n{body}\n</main></body></html>\n"
    )


def _render_section(section: PageSection) -> str:
    parts = [f"<section><h2>{escape(section.heading)}</h2>"]
    if section.text:
        parts.append(f'<p class="note">{escape(section.text)}</p>')
    parts += [
        f"<figure><figcaption>{escape(chart.title)}</figcaption>\n{render_svg(chart)}\n"
        f"{render_legend(chart)}</figure>"
        for chart in section.charts
    ]
    if section.table is not None:
        parts.append(_render_table(section.table))
    return "\n".join([*parts, "</section>"])


def _render_table(table: ReportTable) -> str:
    class_attributes = [
        ' class="number"' if table.is_numeric(place) else "" for place in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{class_attribute}>{escape(column)}</th>'
        for class_attribute, column in zip(class_attributes, table.columns, strict=True)
    )
    rows = "".join(
        ('<tr class="chosen">' if number in table.highlighted else "<tr>")
        + "".join(
            f"<td{class_attribute}>{escape(cell)}</td>"
            for class_attribute, cell in zip(class_attributes, row, strict=True)
        )
        + "</tr>\n"
        for number, row in enumerate(table.rows)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#a2508a", "#7a5c00", "#3b3b3b", "#b3173d", "#3a8fb7",
)  # fmt: skip
"""Palette of Okabe and Ito, darkened where too light for lines on white."""

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
        f'<li><svg viewBox="0 0 40 12" width="40" height="12" aria-hidden="true">'
        f'<line x1="0" y1="6" x2="40" y2="6" {_stroke_attributes(number)}/>'
        f"{_render_marker(number, 20, 6)}</svg>"
        f" {escape(series.name)}</li>"
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
    colour = COLOURS[index % len(COLOURS)]
    places = [(scale_x(x), scale_y(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" {_stroke_attributes(index)}/>']
    for (x, _), (low, high) in zip(places, series.spreads, strict=False):
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale_y(low):.1f}" y2="{scale_y(high):.1f}"'
            f' stroke="{colour}" stroke-width="1"/>'
        )
    for (x, y), (right, up) in zip(places, series.points, strict=True):
        tooltip = escape(f"{series.name}: {format_number(up)} at {format_number(right)}")
        parts.append(f"<g><title>{tooltip}</title>{_render_marker(index, x, y)}</g>")
    return parts


def _stroke_attributes(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="2"{dashed}'


def _render_marker(index: int, x: float, y: float) -> str:
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
