"""Tables of `bench` and `eval` on terminals of 60 and 80 columns: names of methods stay whole."""

from __future__ import annotations

import io

import pytest
from attrs import evolve
from sample_reports import INSTANCE, QUALITY, TIMES

from dify_kb.bench.metrics import Spread
from dify_kb.bench.render_instance_report import describe_saturation
from dify_kb.bench.results import ConcurrencyLevel, SearchResult
from dify_kb.bench.saturation_point import SaturationPoint
from dify_kb.cli import benchmark_output, output
from dify_kb.cli.output import MessageConsole

METHODS = ("semantic, reranked", "hybrid, reranked", "full text", "hybrid 0.7")
LEVEL = ConcurrencyLevel(
    at_once=4, rate=Spread(median=80.5, low=69.5, high=91.6, count=3), latency=TIMES, errors=0
)
SEARCHES = [SearchResult(method=method, top_k=4, levels=[LEVEL], knee=None) for method in METHODS]


@pytest.fixture(params=[60, 80, 100])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    console = MessageConsole(
        file=text, force_terminal=True, width=request.param, color_system=None, soft_wrap=True
    )
    monkeypatch.setattr(output, "out", console)
    return text


def check_lines(screen: io.StringIO) -> None:
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= output.out.width
    for method in METHODS:
        assert any(method in line for line in lines), method


def test_bench_names_each_method_whole(screen: io.StringIO) -> None:
    benchmark_output.print_instance_report(evolve(INSTANCE, searches=SEARCHES))
    check_lines(screen)


def test_eval_names_each_method_whole(screen: io.StringIO) -> None:
    (row, *_) = QUALITY.rows
    rows = [evolve(row, base="a long name of a dataset", method=method) for method in METHODS]
    benchmark_output.print_quality_report(evolve(QUALITY, rows=rows))
    check_lines(screen)


def test_the_saturation_point_agrees_with_the_table() -> None:
    """The maximum is a mean, which single rows exceed; a point between two rows is marked."""
    (upload,) = INSTANCE.uploads
    levels = [evolve(LEVEL, at_once=4), evolve(LEVEL, at_once=8)]
    point = SaturationPoint(at_once=6, most=312.0, reached=True)

    text = describe_saturation(evolve(upload, levels=levels, knee=point))
    measured = describe_saturation(evolve(upload, levels=levels, knee=evolve(point, at_once=4)))

    assert text == (
        "Saturation point: concurrency 6 (interpolated); from there on, 312 responses per second"
        " on average."
    )
    assert "interpolated" not in measured
