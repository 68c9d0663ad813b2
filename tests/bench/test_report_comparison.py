from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from sample_reports import INSTANCE, QUALITY

from dify_kb.bench.metrics import Spread
from dify_kb.bench.report_comparison import compare_reports, list_missing_parts
from dify_kb.bench.results import FORMAT, InstanceReport, QualityReport, dump_report, load_report
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
        "semantic: recall@1",
        "semantic: recall@3",
        "semantic: MRR",
        "semantic: nDCG@3",
    ]
    other = evolve(QUALITY.rows[0], base="200 characters")
    both = evolve(QUALITY, rows=[*QUALITY.rows, other])
    assert {row.name.split(",")[0] for row in compare_reports(both, both)} == {
        "500 characters",
        "200 characters",
    }


def with_ranks(ranks: list[int | None], *, asked: int = 30) -> QualityReport:
    row = evolve(QUALITY.rows[0], ranks=[[rank] for rank in ranks])
    return evolve(QUALITY, rows=[row], asked=[f"q{number}" for number in range(asked)])


def quality_verdicts(before: QualityReport, after: QualityReport) -> dict[str, str]:
    return {row.name.split(": ")[1]: row.verdict for row in compare_reports(before, after)}


def test_quality_changes_only_beyond_chance() -> None:
    before = with_ranks([1, 2, 3] * 10)

    assert set(quality_verdicts(before, with_ranks([2, 1, 3] * 10)).values()) == {"same"}
    assert quality_verdicts(before, with_ranks([1, 2, None] * 10))["recall@3"] == "worse"
    assert quality_verdicts(with_ranks([1, 2, None] * 10), before)["recall@3"] == "better"


def test_quality_is_compared_by_common_queries() -> None:
    before = with_ranks([1] * 30)
    few = with_ranks([None] * 9, asked=9)

    compared = compare_reports(before, few)

    assert {(row.before, row.after, row.verdict) for row in compared} == {(1.0, 0.0, "same")}
    assert quality_verdicts(before, with_ranks([None] * 12, asked=12))["MRR"] == "worse"
    assert compare_reports(before, evolve(before, asked=["other"] * 30)) == []


def test_missing_parts_are_named() -> None:
    indexed = INSTANCE.indexed
    assert indexed is not None
    failed = evolve(INSTANCE, uploads=[], listed=[], indexed=evolve(indexed, completed=0))

    assert list_missing_parts(INSTANCE, INSTANCE) == []
    assert list_missing_parts(INSTANCE, failed) == ["upload 4 KiB", "indexing", "list pages"]
    assert list_missing_parts(QUALITY, evolve(QUALITY, rows=[])) == ["semantic"]


def test_failed_requests_are_worse_than_none() -> None:
    (uploads,) = INSTANCE.uploads
    levels = [evolve(level, errors=10) for level in uploads.levels]
    after = evolve(INSTANCE, uploads=[evolve(uploads, levels=levels)])

    assert find_verdict(after, "upload 4 KiB, failed requests") == "worse"
    assert find_verdict(INSTANCE, "upload 4 KiB, failed requests") == "same"


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
    assert "8 of 9 values unchanged" in shown.err

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
