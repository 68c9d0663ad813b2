"""A report as one HTML page that needs nothing else: no script, no network, no font. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from attrs import frozen

from .svg import Chart, legend, svg

NUMBER = re.compile(r"-|[\d.,e-]+( [KM]iB| bytes)?")
"""A number, a range of them, a size, or nothing to tell."""

LONG, LONGER = 40, ' class="long"'
"""Characters from which a cell may take several lines."""

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
class Table:
    """Rows of text; `chosen` are the numbers of those that stand out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: Sequence[int] = ()

    def numeric(self, place: int) -> bool:
        """Tell whether a column holds numbers, which stand to the right."""
        cells = [row[place] for row in self.rows if row[place]]
        return bool(cells) and all(NUMBER.fullmatch(cell) for cell in cells)


@frozen(kw_only=True)
class Section:
    """A heading, what it shows, and the numbers behind it."""

    heading: str
    text: str = ""
    charts: Sequence[Chart] = ()
    table: Table | None = None


def page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """Write the page."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    body = "\n".join(_section(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n<dl>{listed}</dl>\n{body}\n</main></body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.heading)}</h2>"]
    if section.text:
        parts.append(f'<p class="note">{escape(section.text)}</p>')
    parts += [
        f"<figure><figcaption>{escape(chart.title)}</figcaption>\n{svg(chart)}\n"
        f"{legend(chart)}</figure>"
        for chart in section.charts
    ]
    if section.table is not None:
        parts.append(_table(section.table))
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    sides = [
        ' class="number"' if table.numeric(place) else "" for place in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{side}>{escape(column)}</th>'
        for side, column in zip(sides, table.columns, strict=True)
    )
    rows = "".join(
        ('<tr class="chosen">' if number in table.chosen else "<tr>")
        + "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        + "</tr>\n"
        for number, row in enumerate(table.rows)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )
