"""Loads that stop, and what they say to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calls import Cli
from cli_loads import CREATE, creates, files

from dify_kb import LoadReport, StopReason
from dify_kb.cli import load_summary
from dify_kb.emulator import Emulator

STOPS = {
    StopReason.RATE_LIMIT: (5, "--rate"),
    StopReason.PLAN_LIMIT: (4, "Make room in the plan"),
    StopReason.UNAUTHORIZED: (4, "DIFY_API_KEY"),
    StopReason.OUTAGE: (5, "doctor"),
    StopReason.NOT_INDEXING: (5, "worker"),
    StopReason.MISCONFIGURED: (6, "models"),
    StopReason.MAX_FAILURES: (7, "failures"),
    StopReason.DEADLINE: (5, "time"),
    StopReason.JOURNAL: (8, "journal"),
}


@pytest.mark.parametrize("reason", StopReason)
@pytest.mark.parametrize("failed", [0, 1])
def test_every_stop_says_what_to_mend_and_what_to_type(reason: StopReason, failed: int) -> None:
    report = LoadReport(found=9, failed=failed, pending=9 - failed, stopped=reason)
    code, mend = STOPS[reason]

    following = load_summary.next_step(report, ["load", "docs", "--dataset", "d"]) or ""

    assert report.exit_code == code
    what, resumes = following.split("\n")
    assert mend in what
    assert "goes on where it stood" in what
    retry = " --retry-failed" if failed else ""
    assert resumes.strip() == f"dify-kb load docs --dataset d{retry}"


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [(["document-limit"], 4, "plan_limit"), (["401"], 4, "unauthorized")],
)
def test_a_stop_by_the_server_is_told_with_its_words(
    cli: Cli, folder: Path, emulator: Emulator, words: list[str], code: int, reason: str
) -> None:
    files(folder, *(f"{number}.md" for number in range(9)))
    emulator.faults.plan(CREATE, ["ok", *words * 20])

    met, out, err = cli("load", str(folder), "--dataset", "d", "--create")

    assert met == code
    assert f"error: The load stopped ({reason}): " in err
    assert "1 added" in out
    emulator.faults.clear()
    assert cli("load", str(folder), "--dataset", "d")[0] == 0


def test_a_deadline_stops_and_the_same_command_resumes(
    cli: Cli, folder: Path, emulator: Emulator
) -> None:
    files(folder, *(f"{number}.md" for number in range(9)))
    emulator.faults.plan(CREATE, ["stall 0.3"] * 9)
    arguments = ["load", str(folder), "--dataset", "d", "--create"]

    code, _, err = cli(*arguments, "--deadline", "0.5s", "--concurrency", "1")

    assert code == 5
    assert "The load stopped (deadline)" in err
    emulator.faults.clear()
    assert cli(*arguments)[0] == 0
    assert creates(emulator) == 9
