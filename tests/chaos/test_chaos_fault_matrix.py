"""The part of the fault matrix that the emulator's fault plans cover: F3 to F18, F35 to F37."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_case import FaultCase, IndexingFault, run_case
from load_environment import LoadEnvironment, LoadResult

from dify_kb import StopReason
from dify_kb.emulator import Settings

PAST = "Wed, 21 Oct 2015 07:28:00 GMT"

LIST, STATUS = "documents.list", "documents.indexing_status"


def no_page_in_an_error(_: LoadEnvironment, loaded: LoadResult) -> None:
    """Check that no reason contains the HTML page of a proxy."""
    said = repr([*loaded.results.values()]) + str(loaded.report.stop_message)
    assert "<html" not in said.lower()
    assert "<!doctype" not in said.lower()


CALLS = (
    FaultCase(name="F3 connection closed when the create arrives", creates=["ok x3", "close x5"]),
    FaultCase(name="F3 connection reset when the create arrives", creates=["ok x3", "reset x5"]),
    FaultCase(
        name="F4 reset while sending the body",
        creates=["ok", "reset-after 1% x2", "reset-after 50% x2", "reset-after 99% x2"],
        size=30_000,
        files=10,
    ),
    FaultCase(name="F5 reset after the commit", creates=["ok x2", "commit-then-reset x6"]),
    FaultCase(name="F5 closed after the commit", creates=["commit-then-close x6"]),
    FaultCase(
        name="F6 create executed late, before its quarantine ends",
        creates=["ok x2", "late 0.03 x3", "late 0.15 x3"],
    ),
    FaultCase(
        name="F6 create executed after its quarantine",
        creates=["ok x2", "late 0.9 x3"],
        max_extra_creates=3,
    ),
    FaultCase(
        name="F6 create executed late while the client times out",
        creates=["ok x2", "late 0.2 silent", "late 0.6 silent", "late 0.8 silent"],
    ),
    FaultCase(
        name="F7 error pages of a proxy, with and without a commit",
        creates=["ok x2", "commit-then-504-html x3", "commit-then-502-html x3", "502-html x2"],
        extra_check=no_page_in_an_error,
    ),
    FaultCase(
        name="F8 500 before and after the commit", creates=["500 x2", "ok", "commit-then-500 x4"]
    ),
    FaultCase(
        name="F8 indexing task of a document lost",
        creates=["ok"],
        runs=[IndexingFault(words=["lose"], names="00007*")],
        expected_outcomes={"added": 19, "stalled": 1},
        max_lookups=200,
    ),
    FaultCase(
        name="F9 retry-after in seconds, as a past date, and missing",
        creates=[
            "ok",
            "503 retry-after=1",
            "503",
            "429 retry-after=0",
            f"503 retry-after={PAST} x2",
        ],
    ),
    FaultCase(
        name="F9 retry-after of 30 years is limited", creates=["ok", "503 retry-after=1000000000"]
    ),
    FaultCase(name="F10 429 for every fifth create", creates=["ok x4", "429"] * 8, files=40),
    FaultCase(name="F11 rate limit of the cloud", creates=["ok x12", "rate-limit x2"]),
    FaultCase(
        name="F11 quota that counts rejected requests",
        settings=Settings(quota=20, quota_window=0.6),
        files=40,
        max_sends=100,
    ),
    FaultCase(
        name="F12 plan limit reached",
        creates=["ok x10", "document-limit x30"],
        expected_outcomes={"added": 10, "pending": 30},
        files=40,
        max_sends=19,
        expected_stop=StopReason.PLAN_LIMIT,
    ),
    FaultCase(
        name="F13 key revoked",
        creates=["ok x10", "401 x30"],
        expected_outcomes={"added": 10, "pending": 30},
        files=40,
        max_sends=10 + 20 + 9,  # the probe accepts the key, so the stop takes 20 rejections
        expected_stop=StopReason.UNAUTHORIZED,
    ),
    FaultCase(
        name="F14 proxy rejects a body before reading it",
        creates=["ok x2", "413-early x3"],
        size=100_000,
        files=8,
        expected_outcomes={"added": 5, "failed": 3},
    ),
    FaultCase(name="F15 truncated responses", creates=["ok", "truncate x5"]),
    FaultCase(name="F15 empty responses", creates=["ok", "commit-then-empty x3", "empty x2"]),
    FaultCase(
        name="F15 login page instead of a response",
        creates=["ok", "commit-then-login-page x3", "login-page x20"],
        expected_outcomes={
            "added": 1,
            "pending": 19,
        },  # the next run finds the executed creates
        expected_stop=StopReason.MISCONFIGURED,
        extra_check=no_page_in_an_error,
    ),
    FaultCase(name="F16 trickling responses", creates=["ok", "trickle 0.8 x2", "trickle 0.2 x3"]),
    FaultCase(name="F16 stalling responses", creates=["ok", "commit-then-stall 0.8 x2"]),
    FaultCase(
        name="F17 slowly reading server",
        creates=["ok", "slow-read 300000 x2"],
        size=150_000,
        files=5,
    ),
    FaultCase(
        name="F18 failing lookups",
        creates=["ok x2", "commit-then-reset x3", "503 x2", "502-html"],
        calls={LIST: ["503", "reset", "500", "truncate", "stall 0.2"], STATUS: ["504-html"]},
    ),
)

RUNS = (
    FaultCase(
        name="F35 indexing fails temporarily",
        runs=[IndexingFault(words=["error Rate limit exceeded", "ok"], names="*5.md")] * 2,
    ),
    FaultCase(
        name="F35 indexing fails permanently for some files",
        runs=[IndexingFault(words=["error no text in it"], names="0001[5-7]*") for _ in range(3)],
        expected_outcomes={"added": 17, "failed": 3},
    ),
    FaultCase(
        name="F35 document stays in indexing forever",
        runs=[IndexingFault(words=["hang"], names="00007*")],
        expected_outcomes={"added": 19, "stalled": 1},
        max_lookups=200,  # poll intervals grow by 2.5 %: 900 s have twice as many polls as 1 s
    ),
    FaultCase(
        name="F36 embedding always fails",
        runs=[IndexingFault(words=["error Incorrect API key provided"], always=True)],
        files=60,
        expected_outcomes={"failed": 20, "pending": 40},
        expected_stop=StopReason.MISCONFIGURED,
        max_sends=50,
        further_runs=2,
    ),
    FaultCase(
        name="F37 worker dies",
        runs=[IndexingFault(words=["ok x10", "die"])],
        expected_outcomes={"added": 10, "stalled": 10},
        expected_stop=StopReason.NOT_INDEXING,
    ),
)


@pytest.mark.parametrize("case", CALLS + RUNS, ids=lambda case: case.name)
async def test_invariants_hold(
    case: FaultCase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No file is lost, duplicated or falsely reported; limits of the case hold."""
    caplog.set_level("DEBUG")
    # 5 minutes of real time
    monkeypatch.setattr("dify_kb.ingest.pacing.circuit_breaker.MAX_RETRY_AFTER", 0.3)

    await run_case(case, tmp_path, lambda: caplog.text)
