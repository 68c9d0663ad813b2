"""Ratios by round, tables, and bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from client_comparison import check_bounds
from comparison_tables import BenchmarkFigure, Bound, ComparisonTable, run_to_json

from dify_kb.bench.metrics import Spread


def comparison_table(methods: Mapping[str, Sequence[float]]) -> ComparisonTable:
    figures = [BenchmarkFigure(method=method, values=values) for method, values in methods.items()]
    return ComparisonTable(
        name="cpu 32", title="time", unit="us", floors=["floor"], figures=figures
    )


def test_ratio_is_computed_by_round() -> None:
    """A pause of the machine affects both sides of a round."""
    ours = BenchmarkFigure(method="ours", values=[2.0, 20.0, 4.0])

    ratio = ours.ratio(BenchmarkFigure(method="floor", values=[1.0, 10.0, 1.0]))

    assert ratio == Spread(median=2.0, low=2.0, high=4.0, count=3)


def test_failed_method_is_shown_with_its_reason() -> None:
    """No method is omitted silently."""
    broken = BenchmarkFigure(method="peer", problem="could not be installed: no such version")
    floor = BenchmarkFigure(method="floor", values=[1.0], server=0.25)
    found = ComparisonTable(
        name="t", title="time", unit="us", floors=["floor"], figures=[floor, broken]
    )

    text, table_json = found.text(), found.json()

    assert "peer                         could not be installed: no such version" in text
    assert "25%" in text
    assert table_json["figures"]["peer"] == {"problem": "could not be installed: no such version"}
    assert found.ratio("peer", "floor") is None


def test_json_has_each_figure_with_its_ratio_to_the_floor() -> None:
    found = run_to_json({"t": comparison_table({"floor": [1.0, 2.0], "load": [3.0, 5.0]})}, [])

    load = json.loads(json.dumps(found))["tables"]["t"]["figures"]["load"]
    assert load == {
        "median": 4.0,
        "low": 3.0,
        "high": 5.0,
        "count": 2,
        "ratios": {"floor": {"median": 2.75, "low": 2.5, "high": 3.0, "count": 2}},
    }


def test_unmeasured_bound_is_missed() -> None:
    missing = Bound(description="x", limit=1.0, measured=None)

    assert not missing.is_held
    assert missing.text() == "x: not measured (at most 1) MISSED"


def test_missed_aim_is_reported_as_an_aim() -> None:
    aim = Bound(description="x", limit=10.0, measured=9.0, is_minimum=True, is_aim=True)

    assert aim.text() == "x: 9 (at least 10) aim missed"
    assert Bound(description="x", limit=10.0, measured=10.0, is_minimum=True).is_held


def test_upload_bounds_are_relative_to_form_data() -> None:
    """Bounds: 1.0 for a call and 1.5 for a load; httpx takes at least ten times as much."""
    methods = {
        "bare sockets": 0.1,
        "aiohttp FormData": 1.0,
        "aiohttp, joined bytes": 0.5,
        "create_by_file(path)": 0.9,
        "create_by_file(bytes)": 1.2,
        "load": 1.4,
        "load, wait='accepted'": 1.6,
        "httpx, async": 9.5,
        "dify-oapi2, async": 8.0,
    }

    judged = list(
        check_bounds(
            {"cpu 32": comparison_table({method: [value] for method, value in methods.items()})}
        )
    )

    assert [bound.is_held for bound in judged] == [True, False, True, False, False, True, False]
