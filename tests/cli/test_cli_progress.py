from __future__ import annotations

import io
import re

import pytest
from attrs import evolve
from rich.console import Console

from dify_kb import AttemptEvent, ItemResult, Outcome, Progress
from dify_kb.cli import output, progress
from dify_kb.cli.progress import ProgressState

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
    state.add(ItemResult(key="a", outcome=Outcome.ADDED, attempts=1))
    state.add(ItemResult(key="b", outcome=Outcome.UNCHANGED, attempts=1))
    state.add(ItemResult(key="c", outcome=Outcome.SKIPPED))

    assert state.sent_ended == 1
    assert str(state) == "10 files found so far: 5 uploaded; 1 added, 1 unchanged, 1 skipped."
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


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Capture stderr of a process without a terminal."""
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, width=200))
    return text


def test_pause_prints_a_line_immediately(written: io.StringIO) -> None:
    """Other lines are 5 s apart; the log of a job must show when the server failed."""
    state = ProgressState()
    with progress.progress_display(quiet=False, plain=True) as display:
        for paused in (None, "no reply", "no reply", None, None):
            state.add(evolve(FULL, paused=paused))
            display(state)

    first, second = written.getvalue().splitlines()
    assert first.endswith("waiting for the server: no reply")
    assert "10+ files found · 3 done · 1 failed · 0.0/s" in second
    assert "waiting" not in second


def test_bars_show_the_wait_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, width=80, force_terminal=True))
    state = ProgressState()
    state.add(evolve(FULL, scanned=True, paused="a\x1b[31mb " * 30))

    with progress.progress_display(quiet=False, plain=False) as display:
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


def test_a_rate_falls_to_zero_when_nothing_happens() -> None:
    now = 0.0
    state = ProgressState(clock=lambda: now)
    for now in range(31):
        state.add(evolve(FULL, accepted=10 * int(now)))

    assert state.upload_rate == pytest.approx(10)
    now = 40.0
    assert 0 < state.upload_rate < 5
    now = 46.0
    assert state.upload_rate == 0
    assert state.index_rate == 0


def test_silence_is_shown_while_uploads_are_in_flight() -> None:
    now = 0.0
    state = ProgressState(clock=lambda: now)
    state.add(FULL)
    state.record_attempt(CREATE)

    now = 12.0
    assert state.wait_reason == ""
    state.add(evolve(FULL, in_flight=2))
    assert state.wait_reason == "no response for 12 s"
    state.record_attempt(CREATE)
    assert state.wait_reason == ""


@pytest.mark.parametrize("scale", [1, 1000])
def test_lines_fit_80_columns(written: io.StringIO, scale: int) -> None:
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
    shown = progress._PlainLines()
    shown._printed -= progress.LINE_INTERVAL

    shown(state)

    (line,) = written.getvalue().splitlines()
    assert len(line) <= 80
    assert f"{1400 * scale:,}/{10_000 * scale:,} files · 14 %" in line
    assert "failed" in line


def test_bars_show_how_much_is_done_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=text, width=80, force_terminal=True))
    state = ProgressState()
    state.add(COUNTED)

    with progress.progress_display(quiet=False, plain=False) as display:
        display(state)

    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in text.getvalue().splitlines()]
    assert "0 s  1,400/10,000 files · 14 % · 12.3/45.6 MiB · ETA 3 min" in "".join(shown)
    assert max(map(len, shown)) <= 76
    assert "1000/8600" in "".join(shown)
