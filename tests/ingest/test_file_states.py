"""The transition table: every pair of state and event is covered, and the docstring matches it."""

from __future__ import annotations

import inspect
import re

import pytest

from dify_kb.ingest.engine import file_lifecycle, file_states
from dify_kb.ingest.engine.file_states import (
    TRANSITIONS,
    Effect,
    FileEvent,
    FileState,
    ImpossibleEventError,
    Transition,
    TransitionOutcome,
    find_transition,
)
from dify_kb.ingest.journal import JournalState

STOPS = {FileEvent.HALTED, FileEvent.ABANDONED}
PLANNED = {"send", "look up", "look up lost", "follow", "assign metadata"}
SENT = {
    "accepted", "lost", "not sent", "refused", "page", "document busy", "changed", "unreadable",
    "name taken", "not recorded", "refused for all", "failed",
}  # fmt: skip
LOOKED_UP = {"found", "found old version", "not found", "kept", "rejected", "stalled"}
INDEXING = {
    "indexed", "finished", "failed for now", "failed", "replacement failed", "swap failed",
    "stalled",
}  # fmt: skip
METADATA = {"metadata set", "metadata refused"}
REFUSAL = {"refused for itself", "given up", "lost"}
EVERY = {str(event) for event in FileEvent if event not in STOPS}

IMPOSSIBLE = {
    FileState.PLANNED: EVERY - PLANNED,
    FileState.QUEUED: EVERY - {"started"},
    FileState.SENDING: EVERY - SENT,
    FileState.UNKNOWN: EVERY - LOOKED_UP - {"failed", "refused"},
    FileState.BUSY: EVERY - (LOOKED_UP - {"found old version"}),
    FileState.REFUSED: EVERY - REFUSAL,
    FileState.POSTPONED: EVERY - {"look up"},
    FileState.ACCEPTED: EVERY - INDEXING,
    FileState.INDEXED: EVERY - METADATA,
    FileState.REPLACING: EVERY - {"replaced"},
    FileState.DISCARDING: EVERY - {"deleted"},
    FileState.ENDED: set[str](),
}
"""Events that cannot happen in a state. A stop is always possible."""


def is_possible(state: FileState, event: FileEvent) -> bool:
    try:
        find_transition(state, event)
    except ImpossibleEventError:
        return False
    return True


def test_every_state_and_event_has_a_transition_or_is_impossible() -> None:
    """A missing pair would end a load with an error."""
    impossible = {
        (state, event)
        for state in FileState
        for event in FileEvent
        if not is_possible(state, event)
    }

    declared = {(state, FileEvent(event)) for state in FileState for event in IMPOSSIBLE[state]}

    wrong = [f"{event!s} in state {state!s}" for state, event in impossible ^ declared]
    assert not wrong, f"neither in the table nor declared impossible, or both: {sorted(wrong)}"


def test_impossible_event_is_named() -> None:
    with pytest.raises(ImpossibleEventError, match="'indexed' is not possible in state 'queued'"):
        find_transition(FileState.QUEUED, FileEvent.INDEXED)


@pytest.mark.parametrize("event", FileEvent)
def test_ended_files_ignore_all_events(event: FileEvent) -> None:
    assert find_transition(FileState.ENDED, event) == Transition(FileState.ENDED)


@pytest.mark.parametrize("stop", sorted(STOPS))
def test_every_state_accepts_a_stop(stop: FileEvent) -> None:
    assert all(is_possible(state, stop) for state in FileState)


@pytest.mark.parametrize("state", FileState)
def test_end_is_reachable_from_every_state(state: FileState) -> None:
    """Without a stop: otherwise a load could run forever."""
    reached = {state}
    for _ in FileState:
        reached |= {
            step.state
            for (before, event), step in TRANSITIONS.items()
            if before in reached and event not in STOPS
        }

    assert FileState.ENDED in reached


@pytest.mark.parametrize("state", FileState)
def test_every_state_can_be_reached(state: FileState) -> None:
    entered = {step.state for step in TRANSITIONS.values()}

    assert state in entered | {FileState.PLANNED}


def test_exactly_the_final_transitions_have_an_outcome() -> None:
    for step in TRANSITIONS.values():
        assert (step.outcome is not None) == (step.state is FileState.ENDED)
        assert step.outcome is None or step.effect is None


@pytest.mark.parametrize("values", [Effect, TransitionOutcome, FileEvent])
def test_every_event_effect_and_outcome_is_used(
    values: type[Effect | TransitionOutcome | FileEvent],
) -> None:
    used = {step.effect for step in TRANSITIONS.values()} | {
        step.outcome for step in TRANSITIONS.values()
    }

    assert set(values) <= used | {event for _, event in TRANSITIONS}


def test_file_lifecycle_handles_every_effect() -> None:
    """An effect without a case would be ignored, and the file would never end."""
    source = inspect.getsource(file_lifecycle.FileLifecycle._carry_out)
    handled = set(re.findall(r"Effect\.([A-Z_]+)", source))

    assert handled == {effect.name for effect in Effect}


# The docstring


def rows_of_docstring() -> list[list[list[str]]]:
    """Return the cells of each table in the docstring, without the headers."""
    tables: list[list[list[str]]] = [[]]
    for line in (file_states.__doc__ or "").splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return [table[2:] for table in tables if table]


def parse_next(cell: str, effect: str = "", journal: str = "") -> Transition:
    name, _, ending = cell.partition(": ")
    return Transition(
        FileState(name),
        Effect(effect) if effect else None,
        TransitionOutcome(ending) if ending else None,
        JournalState(journal) if journal else None,
    )


def parse_stop(state: FileState, cell: str) -> Transition:
    if cell == "(continues)":
        return Transition(state)
    result, _, journal = cell.partition("; journal: ")
    return parse_next(result, journal=journal)


def test_docstring_table_matches_the_transitions() -> None:
    documented = {
        (FileState(state), FileEvent(event)): parse_next(after, effect, journal)
        for state, event, after, effect, journal in rows_of_docstring()[0]
    }

    assert documented == {pair: step for pair, step in TRANSITIONS.items() if pair[1] not in STOPS}


def test_docstring_table_of_stops_matches_the_transitions() -> None:
    documented = {
        (FileState(state), event): parse_stop(FileState(state), cell)
        for states, *cells in rows_of_docstring()[1]
        for state in states.split(", ")
        for event, cell in zip((FileEvent.HALTED, FileEvent.ABANDONED), cells, strict=True)
    }

    assert documented == {pair: step for pair, step in TRANSITIONS.items() if pair[1] in STOPS}


@pytest.mark.parametrize("stop", sorted(STOPS))
def test_file_with_an_unanswered_send_is_unknown_after_a_stop(stop: FileEvent) -> None:
    """Its row stays `sending`, so that the next run looks up the document before sending."""
    step = find_transition(FileState.UNKNOWN, stop)

    assert (step.outcome, step.journal) == (TransitionOutcome.UNKNOWN, None)


@pytest.mark.parametrize("stop", sorted(STOPS))
@pytest.mark.parametrize("state", ["planned", "queued", "busy", "refused", "postponed"])
def test_unsent_file_is_pending_after_a_stop(state: str, stop: FileEvent) -> None:
    assert find_transition(FileState(state), stop).outcome is TransitionOutcome.PENDING


def test_file_being_sent_continues_after_a_stop() -> None:
    """Cancelling the request would leave its outcome unknown."""
    for stop in STOPS:
        assert find_transition(FileState.SENDING, stop) == Transition(FileState.SENDING)


@pytest.mark.parametrize("state", ["accepted", "indexed", "replacing", "discarding"])
def test_accepted_document_is_followed_after_a_stop_unless_abandoned(state: str) -> None:
    assert find_transition(FileState(state), FileEvent.HALTED) == Transition(FileState(state))
    assert find_transition(FileState(state), FileEvent.ABANDONED).state is FileState.ENDED


def test_only_indexed_files_are_done_in_the_journal() -> None:
    """The next run skips files that are done."""
    done = {pair for pair, step in TRANSITIONS.items() if step.journal is JournalState.DONE}

    assert (FileState.ACCEPTED, FileEvent.FINISHED) in done
    assert {state for state, _ in done} - {FileState.ACCEPTED} == {
        FileState.INDEXED,
        FileState.REPLACING,
    }
