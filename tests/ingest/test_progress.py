from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from dify_kb import AsyncClient, AttemptEvent, ItemResult, Outcome, Progress
from dify_kb.emulator import Emulator
from dify_kb.ingest import progress, progress_display
from dify_kb.ingest.engine import run
from dify_kb.ingest.progress import ProgressState, progress_parts

FULL = Progress(
    found=10,
    scanned=False,
    to_send=8,
    accepted=5,
    ended=3,
    failed=1,
    bytes=100,
    settling=0,
    paused=None,
    stopped=None,
)

CREATE = AttemptEvent(
    endpoint="documents.create_by_file",
    attempt=1,
    status=200,
    seconds=0.1,
    retry_in=None,
    error=None,
)


def test_counts_include_results_after_the_last_progress_event() -> None:
    state = ProgressState()
    assert str(state) == "No files loaded yet."

    state.add(FULL)
    state.add(ItemResult(key="a", outcome=Outcome.ADDED, attempts=1, document_id="1"))
    state.add(ItemResult(key="b", outcome=Outcome.UNCHANGED, attempts=1))
    state.add(ItemResult(key="c", outcome=Outcome.SKIPPED))

    assert state.sent_ended == 1
    assert str(state) == (
        "3 of 10+ files finished: 1 added, 1 unchanged, 1 skipped;"
        " 4 more uploaded, not indexed yet."
    )
    assert state.to_dict()["accepted"] == 5


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        (FULL, ""),
        (evolve(FULL, settling=3), "3 uploads on hold until their outcome"),
        (evolve(FULL, paused="no reply", settling=3), "waiting for the server: no reply"),
        (evolve(FULL, stopped="outage", paused="no"), "stopping (outage); finishing uploads"),
    ],
)
def test_wait_reason_of_progress(reached: Progress, expected: str) -> None:
    state = ProgressState()

    state.add(reached)

    assert state.wait_reason.startswith(expected)
    assert bool(state.wait_reason) == bool(expected)


def test_failed_request_is_shown_until_it_succeeds_or_expires() -> None:
    """A rate limit pauses a load for a minute without events."""
    now = 0.0
    state = ProgressState(clock=lambda: now)
    look = evolve(CREATE, endpoint="documents.list")

    state.record_attempt(evolve(CREATE, failure_kind="quota", status=403))
    state.record_attempt(look)

    assert state.wait_reason == "waiting: the server's rate limit rejects uploads (403)"
    state.record_attempt(CREATE)
    assert state.wait_reason == ""
    state.record_attempt(evolve(CREATE, failure_kind="overload", status=503))
    assert state.wait_reason == "waiting: the server is overloaded (503)"
    state.record_attempt(
        evolve(look, failure_kind="timeout", status=None, error="no answer in 30 s")
    )
    now = 59.0
    assert "waiting: " in state.wait_reason
    now = 61.0
    assert state.wait_reason == ""


def create_console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    """Return a console and the text that is printed on it."""
    text = io.StringIO()
    if terminal:
        return Console(file=text, width=80, force_terminal=True), text
    return Console(file=text, width=200), text


def test_pause_prints_a_line_immediately() -> None:
    """Other lines are 5 s apart; the log of a job must show when the server failed."""
    state = ProgressState()
    console, written = create_console()
    with progress_display.progress_display(console) as display:
        for paused in (None, "no reply", "no reply", None, None):
            state.add(evolve(FULL, paused=paused))
            display(state)

    first, second = written.getvalue().splitlines()
    assert first.endswith("waiting for the server: no reply")
    assert "10+ files found · 3 done · 1 failed · 0.0/s" in second
    assert "waiting" not in second


def test_bars_show_the_wait_reason() -> None:
    console, text = create_console(terminal=True)
    state = ProgressState()
    state.add(evolve(FULL, scanned=True, paused="a\x1b[31mb " * 30))

    with progress_display.progress_display(console) as display:
        display(state)

    shown = text.getvalue()
    assert "5/8" in shown
    assert "waiting for the server: a\\x1b[31mb" in shown
    assert "\x1b[31mb" not in shown


COUNTED = evolve(
    FULL,
    found=1500,
    to_send=1100,
    accepted=1000,
    ended=1400,
    total=10_000,
    total_bytes=round(45.6 * 2**20),
    bytes_done=round(12.3 * 2**20),
    eta=180.0,
)


def line_of(reached: Progress) -> str:
    state = ProgressState()
    state.add(reached)
    return " · ".join(progress.progress_parts(state).values())


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        (COUNTED, "1,400/10,000 files · 14 % · 12.3/45.6 MiB · ETA 3 min"),
        (evolve(COUNTED, total=None, eta=None), "1,500+ files found · 1,400 done"),
        (evolve(COUNTED, eta=None, total_bytes=None), "1,400/10,000 files · 14 %"),
        (evolve(COUNTED, total=1400), "1,400/1,500 files · 93 % · 12.3/45.6 MiB · ETA 3 min"),
        (evolve(COUNTED, ended=9999, total_bytes=0), "9,999/10,000 files · 99 % · ETA 3 min"),
        (evolve(COUNTED, scanned=True, ended=1500, total_bytes=0), "1,500/1,500 files · 100 %"),
        (evolve(FULL, found=0, scanned=True, ended=0), "0/0 files"),
        (
            evolve(COUNTED, total_bytes=900, bytes_done=80),
            "1,400/10,000 files · 14 % · 80/900 B · ETA 3 min",
        ),
    ],
)
def test_progress_parts_omit_unknown_values(reached: Progress, expected: str) -> None:
    """Files may be created after they were counted; 100 % is reached only at the end."""
    assert line_of(reached) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (44.6, "45 s"),
        (59.7, "1 min"),
        (3599, "1 h"),
        (4800, "1 h 20 min"),
        (86_400, "1 d"),
        (97_200, "1 d 3 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, expected: str) -> None:
    assert progress.format_duration(seconds) == expected


def test_files_of_an_earlier_run_are_not_expected_to_be_sent() -> None:
    """Otherwise the upload bar would never be full."""
    state = ProgressState()

    for number in range(400):
        state.add(ItemResult(key=str(number), outcome=Outcome.UNCHANGED, attempts=1))
    state.add(evolve(COUNTED, ended=400))

    assert (state.total, state.to_send) == (10_000, 9_600)
    state.add(evolve(COUNTED, scanned=True))
    assert (state.total, state.to_send) == (1500, 1100)


def test_pending_and_rejected_files_are_not_counted_as_indexed() -> None:
    """The bars agree with the report: never more indexed than uploaded."""
    state = ProgressState()
    for outcome, document_id in (
        (Outcome.ADDED, "1"),
        (Outcome.FAILED, "2"),
        (Outcome.FAILED, None),
        (Outcome.PENDING, None),
        (Outcome.PENDING, "3"),
    ):
        state.add(ItemResult(key="a", outcome=outcome, attempts=1, document_id=document_id))

    assert (state.sent_ended, state.indexed) == (3, 2)


def test_a_short_load_has_a_rate() -> None:
    now = 0.0
    state = ProgressState(clock=lambda: now)
    for accepted in range(10):
        now = accepted / 10
        state.add(evolve(FULL, accepted=accepted))

    assert state.upload_rate == pytest.approx(9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "documents.list: cannot connect to http://dify.example/v1 (connection refused).",
            "waiting for http://dify.example/v1: connection refused",
        ),
        ("the server returned 503", "waiting for the server: the server returned 503"),
    ],
)
def test_an_outage_is_described_by_address_and_reason(error: str, expected: str) -> None:
    state = ProgressState()
    state.add(evolve(FULL, paused=error))
    assert state.wait_reason == expected
    state = ProgressState()
    state.record_attempt(evolve(CREATE, failure_kind="unreachable", error=error))
    assert state.wait_reason == expected


def test_bars_are_drawn_with_the_first_progress_and_without_files_to_send_not_at_all() -> None:
    """An error of the options or the journal is not preceded by empty bars."""
    console, text = create_console(terminal=True)
    with progress_display.progress_display(console) as display:
        display(ProgressState())
    assert text.getvalue() == ""

    state = ProgressState()
    state.add(evolve(FULL, scanned=True, found=3, ended=3, to_send=0, accepted=0, failed=0))
    with progress_display.progress_display(console) as display:
        display(state)
    assert "3/3 files" in text.getvalue()
    assert "0/0" not in text.getvalue()
    assert "upload" not in text.getvalue()


@pytest.mark.parametrize(
    ("faults", "limits"),
    [
        ([], {}),
        (["413"], {}),
        (["413 x9"], {"max_failures": 2}),
        ([], {"deadline": 1e-9}),
    ],
)
async def test_the_last_progress_agrees_with_the_report(
    client: AsyncClient, emulator: Emulator, folder: Path, faults: list[str], limits: dict[str, Any]
) -> None:
    for number in range(20):
        (folder / f"{number}.md").write_text("text")
    emulator.faults.plan("documents.create_by_file", faults)
    dataset = await client.datasets.create("d", indexing_technique="economy")
    state = ProgressState()

    report = await client.load(dataset, folder, concurrency=1, on_event=state.add, **limits)

    progress = state.progress
    assert progress is not None
    assert bool(report.pending) == bool(limits)
    assert progress.ended == report.found - report.pending
    assert progress.failed == report.failed + report.stalled + report.unknown
    assert state.indexed <= progress.accepted
    assert state.indexed == report.added
    assert progress_parts(state)["files"] == f"{progress.ended}/20 files"


def test_rates_fall_to_zero_within_3_s_of_a_hanging_server() -> None:
    """A mean over 15 s would show half the old rate after 12 s without a response."""
    now = 0.0
    state = ProgressState(clock=lambda: now)
    for second in range(31):
        now = float(second)
        state.add(evolve(FULL, accepted=26 * second))
        state.add(ItemResult(key=str(second), outcome=Outcome.ADDED, attempts=1, document_id="1"))

    assert state.upload_rate == pytest.approx(26)
    assert state.index_rate == pytest.approx(1)
    now = 32.0
    assert state.upload_rate > 20
    now = 33.0
    assert (state.upload_rate, state.index_rate) == (0, 0)
    state.add(evolve(FULL, accepted=800))
    assert state.upload_rate > 0


def test_the_rate_of_a_slow_server_does_not_flicker() -> None:
    """One document every 4 s is 0.25/s, also 3 s after the last one."""
    now = 0.0
    state = ProgressState(clock=lambda: now)
    rates = []
    for second in range(60):
        now = float(second)
        state.add(evolve(FULL, accepted=second // 4))
        rates.append(state.upload_rate)

    assert min(rates[12:]) > 0.15
    now = 70.0
    assert state.upload_rate == 0


def test_silence_is_shown_while_uploads_are_in_flight() -> None:
    now = 0.0
    state = ProgressState(clock=lambda: now)
    state.record_attempt(CREATE)
    now = 100.0
    state.add(FULL)
    assert state.wait_reason == ""

    state.add(evolve(FULL, in_flight=2))
    assert state.wait_reason == ""
    now = 112.0
    state.add(evolve(FULL, in_flight=2))
    assert state.wait_reason == "no response for 12 s"
    state.record_attempt(CREATE)
    assert state.wait_reason == ""


def test_silence_is_shown_if_the_first_upload_hangs() -> None:
    now = 0.0
    state = ProgressState(clock=lambda: now)
    state.add(evolve(FULL, in_flight=1))

    now = 12.0

    assert state.wait_reason == "no response for 12 s"


async def test_progress_is_reported_while_the_server_hangs(
    client: AsyncClient, emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without events a log file would stay empty for as long as the server hangs."""
    monkeypatch.setattr(run, "PROGRESS_INTERVAL", 0.05)
    (folder / "a.md").write_text("text")
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    emulator.faults.lock_dataset(dataset.id, 0.6)
    seen: list[Progress] = []

    def collect(event: object) -> None:
        if isinstance(event, Progress):
            seen.append(event)

    report = await client.load(dataset, folder, on_event=collect)

    assert report.added == 1
    assert sum(event.in_flight == 1 for event in seen) > 3


@pytest.mark.parametrize("scale", [1, 1000])
def test_lines_fit_80_columns(scale: int) -> None:
    state = ProgressState()
    state.add(
        evolve(
            COUNTED,
            ended=1400 * scale,
            total=10_000 * scale,
            failed=123 * scale,
            total_bytes=2**30 * scale,
            eta=97_200.0,
        )
    )
    console, written = create_console()
    shown = progress_display._PlainLines(console)
    shown._printed -= progress_display.LINE_INTERVAL

    shown(state)

    (line,) = written.getvalue().splitlines()
    assert len(line) <= 80
    assert f"{1400 * scale:,}/{10_000 * scale:,} files · 14 %" in line
    assert "failed" in line


def test_bars_show_how_much_is_done_in_80_columns() -> None:
    console, text = create_console(terminal=True)
    state = ProgressState()
    state.add(COUNTED)

    with progress_display.progress_display(console) as display:
        display(state)

    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in text.getvalue().splitlines()]
    assert "0 s  1,400/10,000 files · 14 % · 12.3/45.6 MiB · ETA 3 min" in "".join(shown)
    assert max(map(len, shown)) <= 76
    assert "1000/8600" in "".join(shown)


LOAD_PROGRAM = """
import dify_kb
with dify_kb.Client("emulator:") as client:
    dataset = client.datasets.create("docs", indexing_technique="economy")
    report = client.load(dataset, [dify_kb.Item("a.md", text="text")], progress=True)
    print(report.added)
    results = client.load_iter(dataset, [dify_kb.Item("b.md", text="text")], progress=True)
    print(len(list(results)))
"""


def run_python(text: str, *, terminal: bool = False) -> tuple[str, str]:
    """Run a program; return its output and what it wrote to stderr, maybe a terminal."""
    parent, child = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(  # noqa: S603 -- our own code
        [sys.executable, "-W", "error", "-c", text], stdout=subprocess.PIPE, stderr=child, text=True
    )
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # of a terminal, at the end
        while part := os.read(parent, 65536):
            shown += part
    os.close(parent)
    output, _ = process.communicate(timeout=60)
    return output, shown.decode()


def test_a_load_in_python_shows_bars_on_a_terminal() -> None:
    output, shown = run_python(LOAD_PROGRAM, terminal=True)

    assert output == "1\n1\n"
    assert "upload" in shown
    assert "1/1 files" in shown


def test_a_short_load_without_a_terminal_prints_nothing() -> None:
    """Lines are printed every 5 s, and at pauses."""
    assert run_python(LOAD_PROGRAM) == ("1\n1\n", "")


def test_lines_are_shown_at_a_pause_without_a_terminal() -> None:
    """Also what happens between requests, by the events of the client."""
    program = LOAD_PROGRAM.replace(
        "with dify_kb",
        "from dify_kb.ingest import progress_display\n"
        "progress_display.LINE_INTERVAL = 0\nwith dify_kb",
        1,
    )

    _, shown = run_python(program)

    assert "1/1 files · 100 %" in shown


def test_a_missing_rich_is_named() -> None:
    program = (
        "import sys\nsys.modules['rich'] = None\n"
        + LOAD_PROGRAM.replace("    report =", "    try:\n        report =").partition("    print")[
            0
        ]
    )
    program += "    except dify_kb.ConfigError as error:\n        print(error)\n"

    output, _ = run_python(program)

    assert output == "progress=True requires the package rich. pip install 'dify-kb[cli]'\n"
