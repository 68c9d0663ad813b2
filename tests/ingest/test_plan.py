from __future__ import annotations

import itertools
from typing import Any

import pytest
from attrs import evolve

from dify_kb.ingest import ItemResult, Outcome
from dify_kb.ingest.journal import Row, State
from dify_kb.ingest.planning.plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    Do,
    Planned,
    Wishes,
    is_journal_complete,
    plan,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.models import IndexingStatus

FOUND = FoundFile(key="a/b.md", size=4)
NOTHING = None
OURS = RemoteDocument(
    document_id="d1", enabled=True, status=IndexingStatus.COMPLETED, upload_file_id="f1", size=4
)
FAILED = evolve(OURS, status=IndexingStatus.ERROR)
BUSY = evolve(OURS, status=IndexingStatus.INDEXING)
DISABLED = evolve(OURS, enabled=False)
ARCHIVED = evolve(OURS, archived=True)
REPLACED = evolve(OURS, upload_file_id="f2")
ANOTHER = evolve(OURS, document_id="d2", upload_file_id="f2")
BUSY_OTHER = evolve(ANOTHER, status=IndexingStatus.WAITING)

SENT = {"document_id": "d1", "upload_file_id": "f1", "previous": "f0", "attempts": 3}


def row(state: State, **values: Any) -> Row:
    """Return the row of a file that was sent in place of an older version."""
    told: dict[str, Any] = {
        "size": 4, "mtime_ns": 1, "content": b"text", "rule": "", "labels": "", "sent_at": 0.0,
        "batch": None, "reason": None,
    }  # fmt: skip
    return Row(key=FOUND.key, name=FOUND.name, state=state, **{**told, **SENT, **values})


def decide(
    row: Row | None,
    remote: RemoteDocument | None,
    *,
    same: bool = True,
    labels: str = "",
    **wishes: Any,
) -> str:
    """Tell a decision in a word, of an end with its reason."""
    decided = plan(FOUND, row, remote, Wishes(**wishes), same=lambda _: same, labels=labels)
    assert decided.name == "a__b.md"
    if isinstance(decided, Planned):
        return decided.do.value
    assert decided.key == FOUND.key
    assert decided.size == 4
    assert (decided.error is not None) == (decided.outcome is Outcome.FAILED)
    return f"{decided.outcome.value}: {decided.reason}" if decided.reason else decided.outcome.value


EXISTS = "a document with this name already exists"


@pytest.mark.parametrize(
    ("remote", "on_existing", "decision"),
    [
        (NOTHING, "overwrite", "send"),
        (NOTHING, "skip", "send"),
        (NOTHING, "fail", "send"),
        (OURS, "overwrite", "send"),
        (FAILED, "overwrite", "send"),
        (BUSY, "overwrite", "look"),
        (OURS, "skip", f"skipped: {EXISTS}"),
        (OURS, "fail", f"failed: {EXISTS}"),
        (DISABLED, "overwrite", f"skipped: {DISABLED_BY_HAND}"),
        (DISABLED, "skip", f"skipped: {EXISTS}"),
        (DISABLED, "fail", f"failed: {EXISTS}"),
        (ARCHIVED, "overwrite", f"skipped: {ARCHIVED_BY_HAND}"),
        (ARCHIVED, "skip", f"skipped: {EXISTS}"),
        (ARCHIVED, "fail", f"failed: {EXISTS}"),
    ],
)
@pytest.mark.parametrize("remembered", ["nothing", "replaced", "deleted"])
def test_without_a_memory_the_document_of_that_name_decides(
    remote: RemoteDocument | None, on_existing: str, decision: str, remembered: str
) -> None:
    """A memory of another document than the one that is there is none."""
    memory = {
        "nothing": None,
        "replaced": row(State.DONE, document_id="gone"),
        "deleted": row(State.DONE) if remote is None else row(State.DONE, document_id=None),
    }

    assert decide(memory[remembered], remote, on_existing=on_existing) == decision


@pytest.mark.parametrize(
    ("state", "remote", "same", "wishes", "decision"),
    [
        # The answer to a send was not seen: nothing is certain but by a look.
        *(
            (State.SENDING, remote, same, {"on_existing": word, "rule": rule}, "look")
            for remote in (NOTHING, OURS, BUSY, REPLACED, DISABLED)
            for same in (True, False)
            for word, rule in itertools.product(("overwrite", "skip", "fail"), ("", "another"))
        ),
        (State.WAITING, OURS, True, {}, "send"),
        (State.WAITING, OURS, False, {}, "send"),
        (State.WAITING, BUSY, True, {}, "look"),
        (State.WAITING, OURS, True, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (State.ACCEPTED, OURS, True, {}, "follow"),
        (State.ACCEPTED, BUSY, True, {}, "follow"),
        (State.ACCEPTED, OURS, True, {"follow": False}, "unchanged"),
        (State.ACCEPTED, OURS, False, {}, "look"),
        (State.ACCEPTED, BUSY, False, {}, "look"),
        (State.ACCEPTED, OURS, True, {"rule": "another"}, "look"),
        (State.ACCEPTED, OURS, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (State.ACCEPTED, REPLACED, True, {}, "send"),
        (State.ACCEPTED, ANOTHER, True, {"on_existing": "fail"}, f"failed: {EXISTS}"),
        (State.ACCEPTED, BUSY_OTHER, True, {}, "look"),
        (State.DONE, OURS, True, {}, "unchanged"),
        (State.DONE, OURS, True, {"on_existing": "fail"}, "unchanged"),
        (State.DONE, OURS, True, {"rule": "cut"}, "unchanged"),
        (State.DONE, OURS, True, {"rule": "another"}, "send"),
        (State.DONE, OURS, False, {}, "send"),
        (State.DONE, BUSY, False, {}, "look"),
        (State.DONE, OURS, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (State.DONE, OURS, False, {"on_existing": "fail"}, f"failed: {EXISTS}"),
        (State.DONE, DISABLED, True, {}, "unchanged"),
        (State.DONE, DISABLED, False, {}, f"skipped: {DISABLED_BY_HAND}"),
        (State.DONE, REPLACED, True, {}, "send"),
        (State.DONE, NOTHING, True, {}, "send"),
        (State.FAILED, FAILED, False, {}, "send"),
        (State.FAILED, FAILED, True, {"retry_failed": True}, "send"),
        (State.FAILED, FAILED, True, {"retry_failed": True, "on_existing": "skip"}, "send"),
        (State.FAILED, BUSY, True, {"retry_failed": True}, "look"),
        (State.FAILED, DISABLED, True, {"retry_failed": True}, f"skipped: {DISABLED_BY_HAND}"),
        (State.FAILED, NOTHING, True, {}, "send"),
        (State.FAILED, ARCHIVED, True, {"retry_failed": True}, f"skipped: {ARCHIVED_BY_HAND}"),
        (State.DONE, ARCHIVED, True, {}, "unchanged"),
        (State.DONE, ARCHIVED, False, {}, f"skipped: {ARCHIVED_BY_HAND}"),
        (State.DONE, ARCHIVED, False, {"overwrite_archived": True}, "send"),
        # Its indexing stopped moving in an earlier run.
        (State.STALLED, BUSY, True, {}, "follow"),
        (State.STALLED, BUSY, True, {"follow": False}, "unchanged"),
        (State.STALLED, BUSY, True, {"retry_failed": True}, "look"),
        (State.STALLED, BUSY, True, {"retry_failed": True, "on_existing": "skip"}, "look"),
        (State.STALLED, BUSY, True, {"retry_failed": True, "follow": False}, "look"),
        (State.STALLED, BUSY, False, {}, "look"),
        (State.STALLED, BUSY, False, {"retry_failed": True}, "look"),
        (State.STALLED, BUSY, True, {"rule": "another"}, "look"),
        (State.STALLED, BUSY, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (State.STALLED, ANOTHER, True, {}, "send"),
        (State.STALLED, NOTHING, True, {}, "send"),
        # Its replacement failed, and its document has no text now.
        *(
            (State.EMPTIED, FAILED, same, {"on_existing": word}, "send")
            for same in (True, False)
            for word in ("overwrite", "skip", "fail")
        ),
        (State.EMPTIED, BUSY, True, {}, "look"),
        (State.EMPTIED, DISABLED, True, {}, f"skipped: {DISABLED_BY_HAND}"),
        (State.EMPTIED, ANOTHER, True, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
    ],
)
def test_with_a_memory_what_was_sent_decides(
    state: State,
    remote: RemoteDocument | None,
    wishes: dict[str, Any],
    decision: str,
    *,
    same: bool,
) -> None:
    assert decide(row(state, rule="cut"), remote, same=same, **wishes) == decision


@pytest.mark.parametrize("reason", ["too large", None])
def test_what_failed_stays_failed_and_says_how_to_try_again(reason: str | None) -> None:
    decision = decide(row(State.FAILED, reason=reason), OURS)

    assert decision.startswith(
        "failed: too large (failed in an earlier run"
        if reason
        else "failed: failed in an earlier run"
    )
    assert "retry_failed=True (--retry-failed)" in decision


@pytest.mark.parametrize(("same", "decision"), [(True, "failed"), (False, "send")])
def test_what_the_server_refused_is_not_sent_again_unless_it_changed(
    *, same: bool, decision: str
) -> None:
    refused = row(State.FAILED, document_id=None, upload_file_id=None)

    assert decide(refused, NOTHING, same=same).startswith(decision)


@pytest.mark.parametrize("same", [True, False])
def test_what_was_never_sent_is_sent(*, same: bool) -> None:
    assert decide(row(State.WAITING, document_id=None), NOTHING, same=same) == "send"


@pytest.mark.parametrize(
    ("remembered", "wanted", "decision"),
    [
        ("", "", "unchanged"),
        ("l1", "l1", "unchanged"),
        ("l1", "", "unchanged"),
        ("", "l1", "assign metadata"),
        ("l1", "l2", "assign metadata"),
    ],
)
@pytest.mark.parametrize(("state", "follow"), [(State.DONE, True), (State.ACCEPTED, False)])
def test_metadata_is_set_when_it_is_another(
    remembered: str, wanted: str, decision: str, state: State, *, follow: bool
) -> None:
    memory = row(state, labels=remembered)

    assert decide(memory, OURS, labels=wanted, follow=follow) == decision


def test_a_follow_and_new_metadata_know_the_document_and_that_it_is_the_same() -> None:
    for state, labels in ((State.ACCEPTED, ""), (State.DONE, "new")):
        memory = row(state)
        decided = plan(FOUND, memory, OURS, Wishes(), same=lambda _: True, labels=labels)

        assert isinstance(decided, Planned)
        assert decided.row == memory
        assert decided.same


@pytest.mark.parametrize("same", [True, False])
def test_a_look_after_a_lost_answer_knows_what_was_there_before(*, same: bool) -> None:
    decided = plan(FOUND, row(State.SENDING), OURS, Wishes(), same=lambda _: same)

    assert isinstance(decided, Planned)
    assert decided.do is Do.LOOK
    assert decided.before == "f0"
    assert decided.same is same
    assert decided.attempts == 3


def test_a_lost_send_under_another_rule_is_not_what_is_wanted_now() -> None:
    memory = row(State.SENDING, rule="cut")

    decided = plan(FOUND, memory, None, Wishes(rule="another"), same=lambda _: True)

    assert isinstance(decided, Planned)
    assert not decided.same


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.WAITING, State.ACCEPTED])
def test_a_send_is_told_from_the_document_that_is_there_now(state: State) -> None:
    """Taken for what was there before the *last* send, the document of the last send would pass
    for that of this one, whose answer was lost and which never arrived.
    """
    decided = plan(
        FOUND,
        row(state, rule="cut"),
        OURS,
        Wishes(rule="another"),
        same=lambda _: True,
    )

    assert isinstance(decided, Planned)
    assert decided.replaces == OURS
    assert decided.before == "f1"
    assert decided.attempts == 0
    assert not decided.same


def test_a_failed_one_that_is_tried_again_is_told_from_the_document_that_failed() -> None:
    wishes = Wishes(retry_failed=True)

    decided = plan(FOUND, row(State.FAILED), OURS, wishes, same=lambda _: True)

    assert isinstance(decided, Planned)
    assert decided.before == "f1"


def test_a_new_file_replaces_nothing() -> None:
    decided = plan(FOUND, None, None, Wishes(), same=lambda _: True)

    assert decided == Planned(found=FOUND, name="a__b.md", do=Do.SEND)
    assert isinstance(decided, Planned)
    assert decided.before is None


def test_content_is_compared_only_where_it_matters() -> None:
    """A comparison may read the whole file."""

    def fail(_: Row) -> bool:
        raise AssertionError

    for memory, remote, wishes in (
        (None, OURS, Wishes()),
        (row(State.DONE), ANOTHER, Wishes()),
        (row(State.WAITING), OURS, Wishes()),
        (row(State.DONE), OURS, Wishes(rule="another")),
    ):
        decided = plan(FOUND, memory, remote, wishes, same=fail)
        assert isinstance(decided, Planned)


def test_an_end_names_the_document_that_is_there() -> None:
    ended = plan(FOUND, row(State.DONE), OURS, Wishes(), same=lambda _: True)

    assert ended == ItemResult(
        key=FOUND.key,
        name="a__b.md",
        outcome=Outcome.UNCHANGED,
        document_id="d1",
        size=4,
    )


@pytest.mark.parametrize(
    ("known", "unsettled", "documents", "knows"),
    [(0, 0, 0, True), (7, 0, 7, True), (7, 0, 8, False), (7, 0, 6, False), (0, 0, 3, False)],
)
def test_a_journal_knows_all_when_it_knows_as_many(
    known: int, unsettled: int, documents: int, *, knows: bool
) -> None:
    assert is_journal_complete(known=known, unsettled=unsettled, documents=documents) is knows


@pytest.mark.parametrize("documents", [6, 7, 8])
def test_a_journal_with_a_lost_answer_is_not_trusted(documents: int) -> None:
    """One document that landed unseen and one that somebody deleted look like none."""
    assert not is_journal_complete(known=7, unsettled=1, documents=documents)


def test_an_emptied_document_is_replaced_before_all_others() -> None:
    """Nothing of it can be found until then."""
    decided = plan(FOUND, row(State.EMPTIED), FAILED, Wishes(), same=lambda _: True)

    assert isinstance(decided, Planned)
    assert decided.first


@pytest.mark.parametrize("same", [True, False])
def test_a_stalled_document_is_created_again_on_request(*, same: bool) -> None:
    """The row says how: by its reason, and by the file that the stalled document has."""
    memory = row(State.STALLED)

    decided = plan(FOUND, memory, BUSY, Wishes(retry_failed=True), same=lambda _: same)

    assert isinstance(decided, Planned)
    assert (decided.stuck, decided.row, decided.same) == (True, memory, same)
    assert decided.before == "f1"


def test_a_changed_file_of_a_stalled_document_waits_for_it_unless_told_otherwise() -> None:
    """A run of it may be going on, and two at once leave the chunks of both."""
    decided = plan(FOUND, row(State.STALLED), BUSY, Wishes(), same=lambda _: False)

    assert isinstance(decided, Planned)
    assert (decided.do, decided.stuck, decided.row) == (Do.LOOK, False, None)


def test_a_stalled_document_is_followed_for_a_while() -> None:
    decided = plan(FOUND, row(State.STALLED), BUSY, Wishes(), same=lambda _: True)

    assert isinstance(decided, Planned)
    assert decided.stalled_before
