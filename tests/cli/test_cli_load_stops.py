"""Error lines and next steps of loads that stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from cli_load_files import CREATE, count_creates, write_files
from cli_runner import Cli

from dify_kb import ItemResult, LoadReport, Outcome, StopReason
from dify_kb.cli import load_summary
from dify_kb.emulator import Emulator

STOPS = {
    StopReason.RATE_LIMIT: (5, "--rate"),
    StopReason.PLAN_LIMIT: (4, "upgrade the plan"),
    StopReason.UNAUTHORIZED: (4, "DIFY_API_KEY"),
    StopReason.OUTAGE: (5, "doctor"),
    StopReason.NOT_INDEXING: (5, "Check the server's Celery worker"),
    StopReason.MISCONFIGURED: (6, "models"),
    StopReason.MAX_FAILURES: (7, "failed files"),
    StopReason.DEADLINE: (5, ""),
    StopReason.JOURNAL: (8, "journal"),
    StopReason.DATASET_DELETED: (4, "--create"),
    StopReason.SOURCE_MISSING: (7, "--check"),
    StopReason.SOURCE_EMPTY: (7, "Check PATH"),
    StopReason.NO_FILES: (1, "Check PATH"),
}


@pytest.mark.parametrize("reason", StopReason)
@pytest.mark.parametrize("bad", [None, Outcome.FAILED, Outcome.STALLED])
def test_every_stop_prints_reason_remedy_and_command(
    reason: StopReason, bad: Outcome | None
) -> None:
    """--retry-failed also covers documents whose indexing stalled."""
    results = [ItemResult(key="a.md", outcome=bad, reason="no model")] if bad else []
    report = LoadReport(
        found=9,
        failed=int(bad is Outcome.FAILED),
        stalled=int(bad is Outcome.STALLED),
        pending=9 - len(results),
        stopped=reason,
        _failures=lambda: iter(results),
    )
    code, remedy = STOPS[reason]

    following = load_summary.next_step(report, ["load", "docs", "--dataset", "d"]) or ""

    assert report.exit_code == code
    what, resumes = following.split("\n")
    assert remedy in what
    assert "Run this command to resume" in what
    retry = " --retry-failed" if bad else ""
    assert resumes.strip() == f"dify-kb load docs --dataset d{retry}"


def test_server_message_replaces_the_default_message() -> None:
    stopped = LoadReport(stopped=StopReason.NOT_INDEXING)

    assert load_summary.format_stop_reason(LoadReport()) is None
    assert load_summary.format_stop_reason(stopped) == (
        "error: The load stopped (not_indexing): The server is not indexing any documents."
    )
    with_message = evolve(stopped, stop_message="No document moved for 900 s.")
    assert load_summary.format_stop_reason(with_message) == (
        "error: The load stopped (not_indexing): No document moved for 900 s."
    )


def test_successful_load_has_no_next_step() -> None:
    assert load_summary.next_step(LoadReport(found=1, added=1), ["load"]) is None
    unknown = load_summary.next_step(LoadReport(found=1, unknown=1), ["load", "docs"])
    assert unknown == "Run this command to check the remaining files:\n       dify-kb load docs"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [(["document-limit"], 4, "plan_limit"), (["401"], 4, "unauthorized")],
)
def test_stop_prints_the_server_message(
    cli: Cli, folder: Path, emulator: Emulator, words: list[str], code: int, reason: str
) -> None:
    write_files(folder, *(f"{number}.md" for number in range(30)))
    emulator.faults.plan(CREATE, ["ok", *words * 40])

    met, out, err = cli("load", str(folder), "--dataset", "d", "--create")

    assert met == code
    assert f"error: The load stopped ({reason}): " in err
    assert "1 added" in out
    emulator.faults.clear()
    assert cli("load", str(folder), "--dataset", "d")[0] == 0


def test_a_deadline_stops_and_the_same_command_resumes(
    cli: Cli, folder: Path, emulator: Emulator
) -> None:
    write_files(folder, *(f"{number}.md" for number in range(9)))
    emulator.faults.plan(CREATE, ["stall 0.3"] * 9)
    arguments = ["load", str(folder), "--dataset", "d", "--create"]

    code, _, err = cli(*arguments, "--deadline", "0.5s", "--concurrency", "1")

    assert code == 5
    assert "The load stopped (deadline)" in err
    emulator.faults.clear()
    assert cli(*arguments)[0] == 0
    assert count_creates(emulator) == 9
