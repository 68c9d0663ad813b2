"""State transition table of files: (state, event) -> state, effect, journal state.

| state | event | next state | effect | journal |
|---|---|---|---|---|
| planned | send | queued | enqueue | |
| planned | look up | busy | look up | |
| planned | look up lost | unknown | look up | |
| planned | follow | accepted | follow | |
| planned | assign metadata | indexed | assign metadata | |
| queued | started | sending | | |
| sending | accepted | accepted | follow | |
| sending | lost | unknown | look up | |
| sending | not sent | queued | enqueue | waiting |
| sending | refused | refused | hold refusal | waiting |
| sending | page | refused | hold refusal | |
| sending | document busy | busy | look up | |
| sending | changed | postponed | postpone | |
| sending | unreadable | ended: failed | | |
| sending | name taken | ended: failed | | |
| sending | not recorded | ended: unknown | | |
| sending | refused for all | ended: pending | | waiting |
| sending | failed | ended: failed | | failed |
| unknown | found | accepted | follow | |
| unknown | found old version | busy | look up | |
| unknown | not found | queued | enqueue | waiting |
| unknown | refused | refused | hold refusal | waiting |
| unknown | kept | ended: skipped | | waiting |
| unknown | rejected | ended: failed | | waiting |
| unknown | stalled | ended: stalled | | |
| unknown | failed | ended: failed | | failed |
| busy | found | accepted | follow | |
| busy | not found | queued | enqueue | |
| busy | kept | ended: skipped | | |
| busy | rejected | ended: failed | | |
| busy | stalled | ended: stalled | | |
| refused | refused for itself | ended: failed | | failed |
| refused | lost | unknown | look up | |
| refused | given up | ended: failed | | waiting |
| postponed | look up | busy | look up | |
| accepted | indexed | indexed | assign metadata | |
| accepted | finished | ended: as planned | | done |
| accepted | failed for now | busy | look up later | |
| accepted | failed | ended: failed | | failed |
| accepted | replacement failed | ended: failed | | emptied |
| accepted | swap failed | discarding | delete new version | |
| accepted | stalled | ended: stalled | | stalled |
| indexed | metadata set | replacing | finish replacement | |
| indexed | metadata refused | ended: failed | | done |
| replacing | replaced | ended: as planned | | done |
| discarding | deleted | ended: failed | | failed |

When a load stops, the event `halted` is applied to every file, or `abandoned` if documents are no
longer followed. After the stop, the same event is applied to a file whenever its state changes:

| state | halted | abandoned |
|---|---|---|
| planned, queued, busy, refused, postponed | ended: pending | ended: pending |
| unknown | ended: unknown | ended: unknown |
| sending | (continues) | (continues) |
| accepted, replacing | (continues) | ended: pending |
| indexed | (continues) | ended: pending; journal: done |
| discarding | (continues) | ended: failed; journal: failed |

In the state `ended`, all events are ignored: a late response does not change the outcome. If the
journal column is empty, the row is not changed: a file that was being sent stays `sending`, so that
the next run looks up its document before sending. If a file changed while it was sent, the server
may have its old content.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.ingest.journal.journal_rows import JournalState

if TYPE_CHECKING:
    from collections.abc import Mapping


class _FastStrEnum(enum.StrEnum):
    """An enum of strings with the hash of `str`, which is ten times as fast in dict lookups."""

    __hash__ = str.__hash__


class FileState(_FastStrEnum):
    """The state of a file during a run."""

    PLANNED = "planned"
    QUEUED = "queued"
    SENDING = "sending"
    UNKNOWN = "unknown"
    """The create got no response and may still be carried out."""

    BUSY = "busy"
    """To be sent once no indexing run of its document is active."""

    REFUSED = "refused"
    """Held until it is known whether the refusal concerns only this file or all files."""

    POSTPONED = "postponed"
    """Changed while it was sent; sent again after all other files have ended."""

    ACCEPTED = "accepted"
    INDEXED = "indexed"
    """Indexed; the metadata of the document is being set."""

    REPLACING = "replacing"
    """The new version is indexed; the old one is being deleted, or the document archived again."""

    DISCARDING = "discarding"
    """The new version failed and is being deleted; the old one is kept."""

    ENDED = "ended"


class FileEvent(_FastStrEnum):
    """An event that changes the state of a file."""

    SEND = "send"
    LOOK_UP = "look up"
    LOOK_UP_LOST = "look up lost"
    FOLLOW = "follow"
    ASSIGN_METADATA = "assign metadata"
    STARTED = "started"
    ACCEPTED = "accepted"
    LOST = "lost"
    NOT_SENT = "not sent"
    REFUSED = "refused"
    PAGE = "page"
    """A success response that is not from the API, such as a login page."""

    DOCUMENT_BUSY = "document busy"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    NAME_TAKEN = "name taken"
    NOT_RECORDED = "not recorded"
    REFUSED_FOR_ALL = "refused for all"
    REFUSED_FOR_ITSELF = "refused for itself"
    GIVEN_UP = "given up"
    """The maximum number of sends failed, for this file only."""

    FAILED = "failed"
    FOUND = "found"
    FOUND_OLD_VERSION = "found old version"
    NOT_FOUND = "not found"
    KEPT = "kept"
    REJECTED = "rejected"
    STALLED = "stalled"
    INDEXED = "indexed"
    FINISHED = "finished"
    """The document is indexed, and there is nothing else to do."""

    FAILED_FOR_NOW = "failed for now"
    REPLACEMENT_FAILED = "replacement failed"
    SWAP_FAILED = "swap failed"
    METADATA_SET = "metadata set"
    METADATA_REFUSED = "metadata refused"
    REPLACED = "replaced"
    DELETED = "deleted"
    HALTED = "halted"
    ABANDONED = "abandoned"


class Effect(_FastStrEnum):
    """The action that a transition triggers."""

    ENQUEUE = "enqueue"
    LOOK_UP = "look up"
    LOOK_UP_LATER = "look up later"
    HOLD_REFUSAL = "hold refusal"
    POSTPONE = "postpone"
    FOLLOW = "follow"
    ASSIGN_METADATA = "assign metadata"
    FINISH_REPLACEMENT = "finish replacement"
    DELETE_NEW_VERSION = "delete new version"


class TransitionOutcome(enum.StrEnum):
    """The outcome of a file; `as planned` means added, updated or unchanged, as in its plan."""

    AS_PLANNED = "as planned"
    SKIPPED = "skipped"
    FAILED = "failed"
    STALLED = "stalled"
    UNKNOWN = "unknown"
    PENDING = "pending"


@frozen
class Transition:
    """A transition: the next state, effect, outcome and journal state."""

    state: FileState
    effect: Effect | None = None
    outcome: TransitionOutcome | None = None
    journal: JournalState | None = None


class ImpossibleEventError(Exception):
    """Raised for an event that is not possible in the state of the file: a bug in this package."""


_S, _E = FileState, FileEvent


def _move_to(
    state: FileState, effect: Effect | None = None, journal: JournalState | None = None
) -> Transition:
    return Transition(state, effect, None, journal)


def _end_as(ending: TransitionOutcome, journal: JournalState | None = None) -> Transition:
    return Transition(_S.ENDED, None, ending, journal)


TRANSITIONS: Mapping[tuple[FileState, FileEvent], Transition] = {
    (_S.PLANNED, _E.SEND): _move_to(_S.QUEUED, Effect.ENQUEUE),
    (_S.PLANNED, _E.LOOK_UP): _move_to(_S.BUSY, Effect.LOOK_UP),
    (_S.PLANNED, _E.LOOK_UP_LOST): _move_to(_S.UNKNOWN, Effect.LOOK_UP),
    (_S.PLANNED, _E.FOLLOW): _move_to(_S.ACCEPTED, Effect.FOLLOW),
    (_S.PLANNED, _E.ASSIGN_METADATA): _move_to(_S.INDEXED, Effect.ASSIGN_METADATA),
    (_S.PLANNED, _E.HALTED): _end_as(TransitionOutcome.PENDING),
    (_S.PLANNED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.QUEUED, _E.STARTED): _move_to(_S.SENDING),
    (_S.QUEUED, _E.HALTED): _end_as(TransitionOutcome.PENDING),
    (_S.QUEUED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.SENDING, _E.ACCEPTED): _move_to(_S.ACCEPTED, Effect.FOLLOW),
    (_S.SENDING, _E.LOST): _move_to(_S.UNKNOWN, Effect.LOOK_UP),
    (_S.SENDING, _E.NOT_SENT): _move_to(_S.QUEUED, Effect.ENQUEUE, JournalState.WAITING),
    (_S.SENDING, _E.REFUSED): _move_to(_S.REFUSED, Effect.HOLD_REFUSAL, JournalState.WAITING),
    (_S.SENDING, _E.PAGE): _move_to(_S.REFUSED, Effect.HOLD_REFUSAL),
    (_S.SENDING, _E.DOCUMENT_BUSY): _move_to(_S.BUSY, Effect.LOOK_UP),
    (_S.SENDING, _E.CHANGED): _move_to(_S.POSTPONED, Effect.POSTPONE),
    (_S.SENDING, _E.UNREADABLE): _end_as(TransitionOutcome.FAILED),
    (_S.SENDING, _E.NAME_TAKEN): _end_as(TransitionOutcome.FAILED),
    (_S.SENDING, _E.NOT_RECORDED): _end_as(TransitionOutcome.UNKNOWN),
    (_S.SENDING, _E.REFUSED_FOR_ALL): _end_as(TransitionOutcome.PENDING, JournalState.WAITING),
    (_S.SENDING, _E.FAILED): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
    (_S.SENDING, _E.HALTED): _move_to(_S.SENDING),
    (_S.SENDING, _E.ABANDONED): _move_to(_S.SENDING),
    (_S.UNKNOWN, _E.FOUND): _move_to(_S.ACCEPTED, Effect.FOLLOW),
    (_S.UNKNOWN, _E.FOUND_OLD_VERSION): _move_to(_S.BUSY, Effect.LOOK_UP),
    (_S.UNKNOWN, _E.NOT_FOUND): _move_to(_S.QUEUED, Effect.ENQUEUE, JournalState.WAITING),
    (_S.UNKNOWN, _E.REFUSED): _move_to(_S.REFUSED, Effect.HOLD_REFUSAL, JournalState.WAITING),
    (_S.UNKNOWN, _E.KEPT): _end_as(TransitionOutcome.SKIPPED, JournalState.WAITING),
    (_S.UNKNOWN, _E.REJECTED): _end_as(TransitionOutcome.FAILED, JournalState.WAITING),
    (_S.UNKNOWN, _E.STALLED): _end_as(TransitionOutcome.STALLED),
    (_S.UNKNOWN, _E.FAILED): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
    (_S.UNKNOWN, _E.HALTED): _end_as(TransitionOutcome.UNKNOWN),
    (_S.UNKNOWN, _E.ABANDONED): _end_as(TransitionOutcome.UNKNOWN),
    (_S.BUSY, _E.FOUND): _move_to(_S.ACCEPTED, Effect.FOLLOW),
    (_S.BUSY, _E.NOT_FOUND): _move_to(_S.QUEUED, Effect.ENQUEUE),
    (_S.BUSY, _E.KEPT): _end_as(TransitionOutcome.SKIPPED),
    (_S.BUSY, _E.REJECTED): _end_as(TransitionOutcome.FAILED),
    (_S.BUSY, _E.STALLED): _end_as(TransitionOutcome.STALLED),
    (_S.BUSY, _E.HALTED): _end_as(TransitionOutcome.PENDING),
    (_S.BUSY, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.REFUSED, _E.REFUSED_FOR_ITSELF): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
    (_S.REFUSED, _E.GIVEN_UP): _end_as(TransitionOutcome.FAILED, JournalState.WAITING),
    (_S.REFUSED, _E.LOST): _move_to(_S.UNKNOWN, Effect.LOOK_UP),
    (_S.REFUSED, _E.HALTED): _end_as(TransitionOutcome.PENDING),
    (_S.REFUSED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.POSTPONED, _E.LOOK_UP): _move_to(_S.BUSY, Effect.LOOK_UP),
    (_S.POSTPONED, _E.HALTED): _end_as(TransitionOutcome.PENDING),
    (_S.POSTPONED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.ACCEPTED, _E.INDEXED): _move_to(_S.INDEXED, Effect.ASSIGN_METADATA),
    (_S.ACCEPTED, _E.FINISHED): _end_as(TransitionOutcome.AS_PLANNED, JournalState.DONE),
    (_S.ACCEPTED, _E.FAILED_FOR_NOW): _move_to(_S.BUSY, Effect.LOOK_UP_LATER),
    (_S.ACCEPTED, _E.FAILED): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
    (_S.ACCEPTED, _E.REPLACEMENT_FAILED): _end_as(TransitionOutcome.FAILED, JournalState.EMPTIED),
    (_S.ACCEPTED, _E.SWAP_FAILED): _move_to(_S.DISCARDING, Effect.DELETE_NEW_VERSION),
    (_S.ACCEPTED, _E.STALLED): _end_as(TransitionOutcome.STALLED, JournalState.STALLED),
    (_S.ACCEPTED, _E.HALTED): _move_to(_S.ACCEPTED),
    (_S.ACCEPTED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.INDEXED, _E.METADATA_SET): _move_to(_S.REPLACING, Effect.FINISH_REPLACEMENT),
    (_S.INDEXED, _E.METADATA_REFUSED): _end_as(TransitionOutcome.FAILED, JournalState.DONE),
    (_S.INDEXED, _E.HALTED): _move_to(_S.INDEXED),
    (_S.INDEXED, _E.ABANDONED): _end_as(TransitionOutcome.PENDING, JournalState.DONE),
    (_S.REPLACING, _E.REPLACED): _end_as(TransitionOutcome.AS_PLANNED, JournalState.DONE),
    (_S.REPLACING, _E.HALTED): _move_to(_S.REPLACING),
    (_S.REPLACING, _E.ABANDONED): _end_as(TransitionOutcome.PENDING),
    (_S.DISCARDING, _E.DELETED): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
    (_S.DISCARDING, _E.HALTED): _move_to(_S.DISCARDING),
    (_S.DISCARDING, _E.ABANDONED): _end_as(TransitionOutcome.FAILED, JournalState.FAILED),
}


ENDED = Transition(FileState.ENDED)


def find_transition(state: FileState, event: FileEvent) -> Transition:
    """Return the transition for `event` in `state`.

    Raises:
        ImpossibleEventError: the event is not possible in that state.
    """
    step = TRANSITIONS.get((state, event))
    if step is not None:
        return step
    if state is FileState.ENDED:
        return ENDED
    raise ImpossibleEventError(f"event {event.value!r} is not possible in state {state.value!r}")
