from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from sample_reports import INSTANCE, QUALITY

from dify_kb.bench.metrics import Spread
from dify_kb.bench.report_comparison import compare_reports
from dify_kb.bench.results import FORMAT, InstanceReport, dump_report, load_report
from dify_kb.cli import run
from dify_kb.errors import ConfigError


def speed_up(times: float) -> InstanceReport:
    (uploads,) = INSTANCE.uploads
    (level,) = uploads.levels
    rate = level.rate
    quick = Spread(
        median=times * rate.median, low=times * rate.low, high=times * rate.high, count=3
    )
    return evolve(INSTANCE, uploads=[evolve(uploads, levels=[evolve(level, rate=quick)])])


def find_verdict(after: InstanceReport, name: str) -> str:
    return next(row.verdict for row in compare_reports(INSTANCE, after) if row.name == name)


@pytest.mark.parametrize(
    ("times", "expected"),
    [(2, "better"), (1.3, "better"), (1.15, "same"), (1, "same"), (0.95, "same"), (0.5, "worse")],
)
def test_a_difference_counts_beyond_the_spread_of_both(times: float, expected: str) -> None:
    assert find_verdict(speed_up(times), "upload 4 KiB, concurrency 2") == expected


def test_longer_latency_is_worse() -> None:
    indexed = INSTANCE.indexed
    assert indexed is not None
    slow = evolve(indexed, available=Spread(median=9, low=8, high=10, count=5))

    after = evolve(INSTANCE, indexed=slow)

    assert find_verdict(after, "indexing, time to available") == "worse"


def test_narrow_spread_alone_does_not_make_a_difference() -> None:
    listed = INSTANCE.listed[0]
    after = evolve(
        INSTANCE,
        listed=[evolve(listed, first=Spread(median=0.0105, low=0.0105, high=0.0105, count=5))],
    )

    assert find_verdict(after, "list page, 100 documents") == "same"


def test_only_common_values_are_compared() -> None:
    after = evolve(INSTANCE, uploads=[])

    names = [row.name for row in compare_reports(INSTANCE, after)]

    assert names
    assert not any("upload" in name for name in names)


def test_quality_is_compared_by_base_and_method() -> None:
    names = [row.name for row in compare_reports(QUALITY, QUALITY)]

    assert names == [
        "500 characters, semantic: recall@1",
        "500 characters, semantic: recall@3",
        "500 characters, semantic: MRR",
        "500 characters, semantic: nDCG@3",
    ]


def test_reports_round_trip_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(f"{dump_report(INSTANCE)}\n{dump_report(QUALITY)}\n")

    assert dump_report(load_report(file)) == dump_report(QUALITY)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "contains no report"),
        ("nonsense\n[1]\n", "contains no report"),
        (json.dumps({"type": "bench", "format": FORMAT + 1}), "format 2; supported: 1"),
        (json.dumps({"type": "bench", "format": FORMAT}), "invalid report"),
    ],
)
def test_files_without_a_valid_report_are_rejected(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)

    with pytest.raises(ConfigError, match=what):
        load_report(file)
    with pytest.raises(ConfigError, match="Cannot read"):
        load_report(tmp_path / "none.json")


def test_the_command_shows_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, other = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    before.write_text(dump_report(INSTANCE))
    after.write_text(dump_report(speed_up(2)))
    other.write_text(dump_report(QUALITY))

    assert run(["bench", "compare", str(before), str(after)]) == 0
    shown = capsys.readouterr()
    assert "upload 4 KiB, concurrency 2" in shown.out
    assert "2.00  better" in shown.out
    assert "indexing" not in shown.out
    assert "7 of 8 values unchanged" in shown.err

    assert run(["--json", "bench", "compare", str(before), str(after)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["verdict"] for row in rows} == {"same", "better"}
    assert run(["bench", "compare", str(before), str(other)]) == 2
    assert "Reports of different commands" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("times", "options", "expected"),
    [
        (0.5, (), 0),
        (0.5, ("--fail-on", "10%"), 1),
        (0.5, ("--fail-on", "60"), 0),
        (2, ("--fail-on", "10%"), 0),
        (0.95, ("--fail-on", "0%"), 0),
        (1, ("--fail-on", "much"), 2),
    ],
)
def test_fail_on_exits_with_1_if_a_value_is_worse(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    times: float,
    options: tuple[str, ...],
    expected: int,
) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(dump_report(INSTANCE))
    after.write_text(dump_report(speed_up(times)))

    code = run(["bench", "compare", str(before), str(after), *options])

    assert code == expected
    told = "worse by more than 10%: upload 4 KiB, concurrency 2" in capsys.readouterr().err
    assert told == (expected == 1)


def test_new_failures_are_worse_than_none() -> None:
    indexed = INSTANCE.indexed
    assert indexed is not None
    after = evolve(INSTANCE, indexed=evolve(indexed, failed=1, completed=4))

    (row,) = (
        one for one in compare_reports(INSTANCE, after) if one.name == "indexing, not indexed"
    )

    assert (row.verdict, row.ratio) == ("worse", None)
    assert row.is_worse_by(10)
