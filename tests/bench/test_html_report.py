from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.bench.html_report import PageSection, ReportTable, render_page
from dify_kb.bench.svg_charts import (
    HEIGHT,
    TICKS,
    WIDTH,
    Chart,
    ChartSeries,
    format_number,
    render_legend,
    render_svg,
    round_up_axis,
)

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: ChartSeries, marks: dict[float, str] | None = None) -> Chart:
    return Chart(title="T < 1", x="concurrency", y="/s", series=series, marks=marks or {})


def render_to_xml(chart_to_render: Chart) -> ET.Element:
    return ET.fromstring(render_svg(chart_to_render))  # noqa: S314 -- our own


def test_chart_is_xml_with_title_and_values() -> None:
    root = render_to_xml(
        chart(ChartSeries(name="a & b", points=[(1, 10), (2, 20)]), marks={2: "saturation point"})
    )

    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert titles == ["T < 1", "a & b: 10 at 1", "a & b: 20 at 2"]
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"concurrency", "/s", "saturation point", "0", "20"} <= set(texts)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 1e6), st.floats(0, 1e9, allow_subnormal=False)),
        max_size=6,
        unique_by=lambda p: p[0],
    ),
    st.sampled_from(["linear", "doubling"]),
)
def test_every_point_lies_within_the_chart(points: list[tuple[float, float]], scale: str) -> None:
    chart_to_render = Chart(
        title="t",
        x="x",
        y="y",
        scale="linear" if scale == "linear" else "doubling",
        series=[ChartSeries(name="s", points=points)],
    )

    root = render_to_xml(chart_to_render)

    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT


def test_series_differ_without_colours() -> None:
    several = [ChartSeries(name=str(index), points=[(1, index), (2, index)]) for index in range(8)]
    text = render_svg(chart(*several))

    dashes = re.findall(r'<polyline [^>]*?(?:stroke-dasharray="([^"]*)")?/>', text)
    assert len(set(dashes)) == 8
    assert render_legend(chart(*several)).count("<li ") == 8
    assert render_legend(chart(several[0])) == ""


@settings(deadline=None)
@given(st.floats(0.001, 1e9))
def test_axis_maximum_is_near_and_round(value: float) -> None:
    top = round_up_axis(value)

    assert value * (1 - 1e-6) <= top <= 1.67 * value
    assert len(f"{top / TICKS:.9e}".partition("e")[0].rstrip("0")) <= len("2.5")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (46.34, "46.3"), (1234.5, "1,234")]
)
def test_numbers_are_formatted_short(value: float, text: str) -> None:
    assert format_number(value) == text


def test_page_is_self_contained_and_escapes_names() -> None:
    table = ReportTable(columns=("a",), rows=[["<script>"], ["b"]], highlighted=[1])
    text = render_page(
        "T", [("server", "<b>")], [PageSection(heading="H", charts=[chart()], table=table)]
    )

    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text
    assert "<dd>&lt;b&gt;</dd>" in text
    assert text.count('class="chosen"') == 1
    addresses = set(re.findall(r'(?:\bsrc=|href=|url\()\s*"?([^"\s>]+)', text))
    assert addresses == set()
    assert text.startswith("<!doctype html>\n<html lang=")
