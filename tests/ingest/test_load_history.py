from __future__ import annotations

import itertools

import pytest
from attrs import evolve

from dify_kb import AttemptEvent, ItemResult, Outcome, Progress
from dify_kb.ingest.load_history import (
    INDEXING,
    MAX_SAMPLES,
    SCANNING,
    UPLOADING,
    LoadHistory,
    describe_activity,
)
from dify_kb.ingest.progress import ProgressState

START = Progress(
    found=10,
    scanned=False,
    to_send=0,
    accepted=0,
    ended=0,
    failed=0,
    bytes=0,
    settling=0,
    paused=None,
    stopped=None,
)


class ManualTime:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualTime:
    return ManualTime()


def test_time_is_spent_on_one_activity_at_a_time(clock: ManualTime) -> None:
    state, history = ProgressState(clock=clock), LoadHistory(clock=clock)
    steps = [
        (1, START),
        (2, evolve(START, in_flight=3)),
        (12, evolve(START, scanned=True, to_send=5, accepted=5)),
        (32, evolve(START, scanned=True, to_send=5, accepted=5, paused="503 for all")),
        (35, evolve(START, scanned=True, to_send=5, accepted=5)),
    ]

    for clock.now, progress in steps:
        state.add(progress)
        history.record(state)

    assert history.spent == {
        INDEXING: 20.0,
        UPLOADING: 10.0,
        "waiting for the server: 503 for all": 3.0,
        SCANNING: 2.0,
    }
    assert next(iter(history.spent)) == INDEXING
    assert (history.samples[-1].seconds, history.samples[-1].uploaded) == (35, 5)


def test_waits_of_one_cause_have_the_same_words(clock: ManualTime) -> None:
    state = ProgressState(clock=clock)
    state.add(evolve(START, in_flight=2))

    descriptions: set[str] = set()
    for clock.now in (11.0, 12.0, 25.0):
        descriptions.add(describe_activity(state))
    for settling in (3, 1200):
        clock.now += 1
        state.add(evolve(START, settling=settling))
        descriptions.add(describe_activity(state))

    assert descriptions == {"no response", "uploads on hold until their outcome is known"}


def test_failing_requests_count_until_one_succeeds(clock: ManualTime) -> None:
    state, history = ProgressState(clock=clock), LoadHistory(clock=clock)
    call = AttemptEvent(
        endpoint="documents.create_by_file",
        attempt=1,
        status=503,
        seconds=0.1,
        retry_in=None,
        error="overloaded",
        failure_kind="overload",
    )
    state.add(evolve(START, in_flight=1))

    for clock.now, event in (
        (1.0, call),
        (5.0, evolve(call, status=200, error=None, failure_kind=None)),
        (6.0, call),
    ):
        state.record_attempt(event)
        history.record(state)

    assert history.spent["waiting: the server is overloaded (503)"] == 4.0
    assert history.spent[UPLOADING] == 1.0


def test_samples_of_a_long_load_are_bounded_and_cover_it(clock: ManualTime) -> None:
    state, history = ProgressState(clock=clock), LoadHistory(clock=clock)

    for second in range(5000):
        clock.now = float(second)
        state.add(evolve(START, accepted=second))
        state.add(ItemResult(key="a", outcome=Outcome.ADDED, attempts=1, document_id="1"))
        history.record(state)

    samples = history.samples
    assert MAX_SAMPLES / 2 <= len(samples) <= MAX_SAMPLES + 1
    assert (samples[-1].uploaded, samples[-1].indexed) == (4999, 5000)
    gaps = [other.seconds - one.seconds for one, other in itertools.pairwise(samples)]
    assert max(gaps) <= 3 * 5000 / MAX_SAMPLES


def test_load_without_events_has_one_empty_sample(clock: ManualTime) -> None:
    history = LoadHistory(clock=clock)

    assert [sample.uploaded for sample in history.samples] == [0]
    assert history.spent == {}
