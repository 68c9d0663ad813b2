"""Render a report as a self-contained HTML page with tables and SVG charts. Pure.

The page needs no network, adapts to dark mode and to phones, and forbids everything but its own
style and script. The script sorts tables; without it, the page is complete.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape

from attrs import frozen

from .svg_charts import (
    DARK_COLOURS,
    LIGHT_COLOURS,
    Chart,
    colour_rules,
    render_legend,
    render_svg,
)

NUMBER_PATTERN = re.compile(r"-|[\d.,e-]+( [KM]iB| bytes| %)?")
"""A number, a range, a size, or "-" for a missing value."""

STYLE = f"""
:root {{ color-scheme: light dark; --page: #fff; --text: #1c1c1c; --soft: #555; --line: #dedede;
        --mark: #fff3c9 }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 76rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }}
h1 {{ font-size: 1.15rem; color: var(--soft); margin-bottom: 0 }}
h2 {{ font-size: 1.15rem; margin-top: 2.2rem }}
.verdict {{ font-size: 1.4rem; line-height: 1.35; font-weight: 600; margin: .4rem 0 1rem;
           max-width: 52rem }}
.warning {{ background: var(--mark); padding: .4rem .7rem; border-radius: .3rem; max-width: 52rem }}
p.note {{ max-width: 46rem }}
.charts {{ display: flex; flex-wrap: wrap; gap: 0 2rem }}
figure {{ margin: 1rem 0; flex: 1 1 20rem; max-width: 34rem; min-width: 0 }}
figcaption {{ font-weight: 600 }}
svg {{ max-width: 100%; height: auto }}
svg text {{ font: 12px system-ui, sans-serif; fill: var(--text) }}
svg .grid {{ stroke: var(--line) }} svg .ring {{ fill: var(--page) }}
svg line.mark {{ stroke: var(--soft); stroke-dasharray: 3 3 }}
ul.legend {{ list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap;
            gap: 0 1.4rem }}
ul.legend svg {{ vertical-align: middle; margin-right: .3rem }}
ul.legend span {{ color: var(--text) }}
.scroll {{ overflow-x: auto; max-width: 100% }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0;
        font-size: 14px; overflow-wrap: normal }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line);
         white-space: nowrap; vertical-align: top }}
th button {{ all: unset; cursor: pointer }} th button:focus-visible {{ outline: 2px solid }}
th button::after {{ content: " ↕"; color: var(--soft) }}
th[aria-sort=ascending] button::after {{ content: " ↑" }}
th[aria-sort=descending] button::after {{ content: " ↓" }}
.number {{ text-align: right }}
td.long {{ white-space: normal; min-width: 14rem; overflow-wrap: anywhere }}
tr.chosen td {{ font-weight: 600 }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 0 }}
dt {{ color: var(--soft) }} dd {{ margin: 0 }}
{colour_rules(LIGHT_COLOURS)}
@media (prefers-color-scheme: dark) {{
:root {{ --page: #16181c; --text: #e8e8e8; --soft: #a9adb3; --line: #3a3e45; --mark: #4a3d12 }}
{colour_rules(DARK_COLOURS)}
}}
@media (max-width: 30rem) {{
body {{ margin: 1rem auto }} .verdict {{ font-size: 1.15rem }} svg text {{ font-size: 15.5px }}
dl {{ grid-template-columns: 1fr }} dd {{ margin-bottom: .4rem }}
}}
"""

SCRIPT = """
"use strict";
const UNITS = {KiB: 1024, MiB: 1048576, GiB: 1073741824};
function valueOf(row, place) {
  const text = row.cells[place].textContent.trim();
  const parts = /^(-?[\\d,.]+(?:e-?\\d+)?)(?:-[\\d,.]+)?(?: (.+))?$/.exec(text);
  if (parts === null) return text === "" || text === "-" ? null : text;
  return Number(parts[1].replaceAll(",", "")) * (UNITS[parts[2]] ?? 1);
}
function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    if (head.textContent === "") return;
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.ariaSort !== "ascending";
      for (const each of heads) each.ariaSort = null;
      head.ariaSort = rising ? "ascending" : "descending";
      const rows = [...table.tBodies[0].rows].map(row => [valueOf(row, place), row]);
      rows.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        return rising ? compare(one, other) : compare(other, one);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
"""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline';"
    f" script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"
)


@frozen(kw_only=True)
class ReportTable:
    """A table of text cells. `highlighted` has the indexes of the rows in bold."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlighted: Sequence[int] = ()
    sortable: bool = True
    """False if the order of the rows has a meaning."""

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


LONG_CELL = 40
"""Cells of this length, in characters, may wrap."""


def render_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[PageSection],
    *,
    verdict: str = "",
    warnings: Sequence[str] = (),
) -> str:
    """Return the HTML page.

    Args:
        verdict: the result in a sentence, above everything else.
        warnings: what one has to know to judge the result, below it.
    """
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    body = "\n".join(_render_section(section) for section in sections)
    # Its percentages are not separated from their sign at the end of a line.
    unbroken = escape(verdict).replace(" %", "&nbsp;%")
    top = f'<p class="verdict">{unbroken}</p>\n' if verdict else ""
    top += "".join(f'<p class="warning">{escape(text)}</p>\n' for text in warnings)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{top}<dl>{listed}</dl>\n{body}\n</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _render_section(section: PageSection) -> str:
    parts = [f"<section><h2>{escape(section.heading)}</h2>"]
    if section.text:
        parts.append(f'<p class="note">{escape(section.text)}</p>')
    if section.charts:
        figures = (
            f"<figure><figcaption>{escape(chart.title)}</figcaption>\n{render_svg(chart)}\n"
            f"{render_legend(chart)}</figure>"
            for chart in section.charts
        )
        parts.append("\n".join(['<div class="charts">', *figures, "</div>"]))
    if section.table is not None:
        parts.append(_render_table(section.table))
    return "\n".join([*parts, "</section>"])


def _render_table(table: ReportTable) -> str:
    numeric = [table.is_numeric(place) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_class_attribute("", is_number=is_number)}>{escape(column)}</th>'
        for is_number, column in zip(numeric, table.columns, strict=True)
    )
    rows = "".join(
        ('<tr class="chosen">' if number in table.highlighted else "<tr>")
        + "".join(
            f"<td{_class_attribute(cell, is_number=is_number)}>{escape(cell)}</td>"
            for is_number, cell in zip(numeric, row, strict=True)
        )
        + "</tr>\n"
        for number, row in enumerate(table.rows)
    )
    kind = ' class="sortable"' if table.sortable and len(table.rows) > 1 else ""
    return (
        f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _class_attribute(cell: str, *, is_number: bool) -> str:
    if is_number:
        return ' class="number"'
    return ' class="long"' if len(cell) >= LONG_CELL else ""
