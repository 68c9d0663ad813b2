"""The summary of a finished load."""

from __future__ import annotations

import io
import shlex

import pytest
from attrs import evolve
from rich.console import Console

from dify_kb import ItemResult, LoadReport, Outcome, StopReason
from dify_kb.cli import load_summary, output


def printed(report: LoadReport) -> str:
    text = io.StringIO()
    console = Console(file=text, width=80, soft_wrap=True, highlight=False, markup=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "err", console)
        load_summary.print_summary(console, report)
        load_summary.print_failures(report, ())
    return text.getvalue()


def result(key: str, outcome: Outcome, reason: str | None = None) -> ItemResult:
    return ItemResult(key=key, outcome=outcome, reason=reason)


def test_skip_reasons_are_sorted_by_count() -> None:
    report = LoadReport(
        found=13, added=1, skipped=12, skipped_reasons={"empty": 5, "unsupported type .exe": 7}
    )

    assert "\n12 skipped: 7 unsupported type .exe, 5 empty.\n" in printed(report)
    assert "skipped:" not in printed(LoadReport(found=1, added=1))
    assert "12 skipped: 7" in printed(evolve(report, dry_run=True))


def test_stopped_load_lists_failures_but_only_counts_pending() -> None:
    """A pending file is not a failure: the run only did not reach it."""
    results = [
        *(result(f"{number}.md", Outcome.PENDING, "not sent") for number in range(500)),
        result("bad.md", Outcome.FAILED, "too large"),
        result("slow.md", Outcome.STALLED, "no progress for 900 s"),
        result("lost.md", Outcome.UNKNOWN),
    ]
    report = LoadReport(
        found=503,
        failed=1,
        stalled=1,
        unknown=1,
        pending=500,
        stopped=StopReason.DEADLINE,
        _failures=lambda: iter(results),
    )

    head, speed, *listed = printed(report).splitlines()
    assert head == ("503 files found in 0.0 s: 1 failed, 1 stalled, 1 unknown, 500 pending.")
    assert speed == "0 requests, 0 retries."
    assert listed == [
        "  failed  bad.md: too large",
        "  stalled  slow.md: no progress for 900 s",
        "  unknown  lost.md",
    ]


def test_pending_files_are_not_listed() -> None:
    def read() -> None:
        raise AssertionError

    report = LoadReport(found=9, pending=9, _failures=read)  # type: ignore[arg-type]  # never read

    assert printed(report).splitlines()[0].endswith(": 9 pending.")


def test_at_most_twenty_files_are_listed() -> None:
    results = [result(f"{number}.md", Outcome.FAILED, "refused") for number in range(25)]
    report = LoadReport(found=25, failed=25, journal="/j.db", _failures=lambda: iter(results))

    shown = printed(report)

    assert shown.count("refused") == 20
    assert "  … and 5 more; `dify-kb journal show --failures /j.db` lists all.\n" in shown


def test_warnings_are_printed_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, soft_wrap=True))

    load_summary.print_warnings(LoadReport(warnings=("The server deletes ï.", "a\x1bb")))

    assert text.getvalue() == "warning: The server deletes ï.\nwarning: a\\x1bb\n"


def test_json_report_has_reasons_and_warnings() -> None:
    report = LoadReport(skipped_reasons={"empty": 1}, warnings=("one",))

    assert '"skipped_reasons": {"empty": 1}' in report.to_json()
    assert '"warnings": ["one"]' in report.to_json()


@pytest.mark.parametrize(
    ("reasons", "options"),
    [
        (["indexing failed"], ["--retry-failed"]),
        (["too large: 19.1 MiB, more than 15.0 MiB"], ["--max-file-size=20MiB"]),
        (["unsupported type .py"], ["--as-text=*.py"]),
        (["unsupported type: no extension"], ["--as-text=*.py"]),
        (
            ["indexing failed", "too large: 19.1 MiB, more than 15.0 MiB"],
            ["--retry-failed", "--max-file-size=20MiB"],
        ),
    ],
)
def test_the_next_step_can_help_with_the_failures(reasons: list[str], options: list[str]) -> None:
    """A retry of a file that is too large, or of an unsupported type, fails again."""
    failures = [
        ItemResult(key="a.py", outcome=Outcome.FAILED, reason=reason, size=20_000_000)
        for reason in reasons
    ]
    report = LoadReport(found=2, failed=2, _failures=lambda: iter(failures))

    step = load_summary.next_step(report, ["load", "docs"])

    assert step is not None
    words = shlex.split(step.rpartition("dify-kb ")[2])
    assert words == ["load", "docs", *options]
    assert ("retry" in step.split(":")[0]) == ("--retry-failed" in options)


def test_counts_of_one_and_small_sizes_are_readable() -> None:
    report = LoadReport(found=1, added=1, bytes=27_500, requests=1, retries=1, seconds=1.0)

    assert "1 file found in 1.0 s: 1 added." in printed(report)
    assert "26.9 KiB uploaded, 0.0 documents/s, 1 request, 1 retry." in printed(report)


def test_a_dry_run_counts_what_would_be_done() -> None:
    report = LoadReport(found=1366, pending=1364, unchanged=2, dry_run=True)
    text = io.StringIO()
    planned = {"would be added": 1350, "would be finished": 14}

    load_summary.print_summary(Console(file=text, width=200), report, planned)

    head = text.getvalue().splitlines()[0]
    assert head.endswith(": 1,350 would be added, 14 would be finished, 2 unchanged.")
