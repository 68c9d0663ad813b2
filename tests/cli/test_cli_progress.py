from __future__ import annotations

import io

import pytest
from attrs import evolve
from rich.console import Console

from dify_kb import Attempted, ItemResult, Outcome, Progress
from dify_kb.cli import progress, show
from dify_kb.cli.progress_state import ProgressState

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

CREATE = Attempted(
    endpoint="documents.create_by_file",
    attempt=1,
    status=200,
    seconds=0.1,
    retry_in=None,
    error=None,
)


def test_counts_go_on_after_the_last_report() -> None:
    state = ProgressState()
    assert str(state) == "Nothing was done yet."

    state.add(FULL)
    state.add(ItemResult(key="a", outcome=Outcome.ADDED, attempts=1))
    state.add(ItemResult(key="b", outcome=Outcome.UNCHANGED, attempts=1))
    state.add(ItemResult(key="c", outcome=Outcome.SKIPPED))

    assert state.sent_ended == 1
    assert str(state) == ("10 files found and more: 5 uploaded; 1 added, 1 unchanged, 1 skipped.")
    assert state.to_dict()["accepted"] == 5


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        (FULL, ""),
        (evolve(FULL, settling=3), "3 wait: looking what became of them on the server"),
        (evolve(FULL, paused="no reply", settling=3), "waiting until the server is back: no reply"),
        (evolve(FULL, stopped="outage", paused="no"), "stopping (outage); uploads under way"),
    ],
)
def test_what_holds_a_load_is_told(reached: Progress, expected: str) -> None:
    state = ProgressState()

    state.add(reached)

    assert state.wait_reason.startswith(expected)
    assert bool(state.wait_reason) == bool(expected)


def test_trouble_is_told_until_it_is_over() -> None:
    """A rate limit holds a load for a minute, in which no event comes."""
    now = 0.0
    state = ProgressState(clock=lambda: now)
    look = evolve(CREATE, endpoint="documents.list")

    state.record_attempt(evolve(CREATE, trouble="quota", status=403))
    state.record_attempt(look)

    assert state.wait_reason == "waiting: the server's rate limit holds uploads back (403)"
    state.record_attempt(CREATE)
    assert state.wait_reason == ""
    state.record_attempt(evolve(CREATE, trouble="overload", status=503))
    assert state.wait_reason == "waiting: the server has too much to do (503)"
    state.record_attempt(evolve(look, trouble="timeout", status=None, error="no answer in 30 s"))
    now = 59.0
    assert "waiting: " in state.wait_reason
    now = 61.0
    assert state.wait_reason == ""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is shown to people, on no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=text, width=200))
    return text


def test_without_a_terminal_a_pause_is_told_at_once(written: io.StringIO) -> None:
    """The lines between are 5 s apart; a log of a job must say when the server failed."""
    state = ProgressState()
    with progress.display(quiet=False, plain=True) as display:
        for paused in (None, "no reply", "no reply", None, None):
            state.add(evolve(FULL, paused=paused))
            display(state)

    first, second = written.getvalue().splitlines()
    assert first.endswith("waiting until the server is back: no reply")
    assert "found 10+" in second
    assert "waiting" not in second


def test_bars_show_what_holds_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=text, width=80, force_terminal=True))
    state = ProgressState()
    state.add(evolve(FULL, scanned=True, paused="a\x1b[31mb " * 30))

    with progress.display(quiet=False, plain=False) as display:
        display(state)

    shown = text.getvalue()
    assert "5/8" in shown
    assert "waiting until the server is back: a\\x1b[31mb" in shown
    assert "\x1b[31mb" not in shown
