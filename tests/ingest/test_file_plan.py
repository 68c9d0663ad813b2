from __future__ import annotations

import itertools
from typing import Any

import pytest
from attrs import evolve

from dify_kb.ingest import ItemResult, Outcome
from dify_kb.ingest.journal import JournalRow, JournalState
from dify_kb.ingest.metadata.labels import HeaderState, Labels
from dify_kb.ingest.planning.file_plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    PlannedAction,
    PlannedFile,
    PlanOptions,
    is_journal_complete,
    plan_file,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.sources.found_file import FoundFile
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


def row(state: JournalState, **values: Any) -> JournalRow:
    """Return the row of a file that was sent in place of an older version."""
    defaults: dict[str, Any] = {
        "size": 4, "token": "1", "content": b"text", "rule": "", "labels": "", "sent_at": 0.0,
        "batch": None, "reason": None,
    }  # fmt: skip
    return JournalRow(key=FOUND.key, name=FOUND.name, state=state, **{**defaults, **SENT, **values})


def decide(
    row: JournalRow | None,
    remote: RemoteDocument | None,
    *,
    same: bool = True,
    new_metadata: bool = False,
    **wishes: Any,
) -> str:
    """Return the action, or the outcome with its reason."""
    decided = plan_file(
        FOUND,
        row,
        remote,
        PlanOptions(**wishes),
        is_unchanged=lambda _: same,
        has_new_metadata=new_metadata,
    )
    assert decided.name == "a__b.md"
    if isinstance(decided, PlannedFile):
        return decided.action.value
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
def test_plan_without_a_journal_row_follows_the_document(
    remote: RemoteDocument | None, on_existing: str, decision: str, remembered: str
) -> None:
    """A row for a document that was replaced or deleted counts as none."""
    memory = {
        "nothing": None,
        "replaced": row(JournalState.DONE, document_id="gone"),
        "deleted": row(JournalState.DONE)
        if remote is None
        else row(JournalState.DONE, document_id=None),
    }

    assert decide(memory[remembered], remote, on_existing=on_existing) == decision


@pytest.mark.parametrize(
    ("state", "remote", "same", "wishes", "decision"),
    [
        # The response was lost: only a lookup shows the state of the document.
        *(
            (JournalState.SENDING, remote, same, {"on_existing": word, "rule": rule}, "look")
            for remote in (NOTHING, OURS, BUSY, REPLACED, DISABLED)
            for same in (True, False)
            for word, rule in itertools.product(("overwrite", "skip", "fail"), ("", "another"))
        ),
        (JournalState.WAITING, OURS, True, {}, "send"),
        (JournalState.WAITING, OURS, False, {}, "send"),
        (JournalState.WAITING, BUSY, True, {}, "look"),
        (JournalState.WAITING, OURS, True, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (JournalState.ACCEPTED, OURS, True, {}, "follow"),
        (JournalState.ACCEPTED, BUSY, True, {}, "follow"),
        (JournalState.ACCEPTED, OURS, True, {"follow": False}, "unchanged"),
        (JournalState.ACCEPTED, OURS, False, {}, "look"),
        (JournalState.ACCEPTED, BUSY, False, {}, "look"),
        (JournalState.ACCEPTED, OURS, True, {"rule": "another"}, "look"),
        (JournalState.ACCEPTED, OURS, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (JournalState.ACCEPTED, REPLACED, True, {}, "send"),
        (JournalState.ACCEPTED, ANOTHER, True, {"on_existing": "fail"}, f"failed: {EXISTS}"),
        (JournalState.ACCEPTED, BUSY_OTHER, True, {}, "look"),
        (JournalState.DONE, OURS, True, {}, "unchanged"),
        (JournalState.DONE, OURS, True, {"on_existing": "fail"}, "unchanged"),
        (JournalState.DONE, OURS, True, {"rule": "cut"}, "unchanged"),
        (JournalState.DONE, OURS, True, {"rule": "another"}, "send"),
        (JournalState.DONE, OURS, False, {}, "send"),
        (JournalState.DONE, BUSY, False, {}, "look"),
        (JournalState.DONE, OURS, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (JournalState.DONE, OURS, False, {"on_existing": "fail"}, f"failed: {EXISTS}"),
        (JournalState.DONE, DISABLED, True, {}, "unchanged"),
        (JournalState.DONE, DISABLED, False, {}, f"skipped: {DISABLED_BY_HAND}"),
        (JournalState.DONE, REPLACED, True, {}, "send"),
        (JournalState.DONE, NOTHING, True, {}, "send"),
        (JournalState.FAILED, FAILED, False, {}, "send"),
        (JournalState.FAILED, FAILED, True, {"retry_failed": True}, "send"),
        (JournalState.FAILED, FAILED, True, {"retry_failed": True, "on_existing": "skip"}, "send"),
        (JournalState.FAILED, BUSY, True, {"retry_failed": True}, "look"),
        (
            JournalState.FAILED,
            DISABLED,
            True,
            {"retry_failed": True},
            f"skipped: {DISABLED_BY_HAND}",
        ),
        (JournalState.FAILED, NOTHING, True, {}, "send"),
        (
            JournalState.FAILED,
            ARCHIVED,
            True,
            {"retry_failed": True},
            f"skipped: {ARCHIVED_BY_HAND}",
        ),
        (JournalState.DONE, ARCHIVED, True, {}, "unchanged"),
        (JournalState.DONE, ARCHIVED, False, {}, f"skipped: {ARCHIVED_BY_HAND}"),
        (JournalState.DONE, ARCHIVED, False, {"overwrite_archived": True}, "send"),
        # Its document stalled in an earlier run.
        (JournalState.STALLED, BUSY, True, {}, "follow"),
        (JournalState.STALLED, BUSY, True, {"follow": False}, "unchanged"),
        (JournalState.STALLED, BUSY, True, {"retry_failed": True}, "look"),
        (JournalState.STALLED, BUSY, True, {"retry_failed": True, "on_existing": "skip"}, "look"),
        (JournalState.STALLED, BUSY, True, {"retry_failed": True, "follow": False}, "look"),
        (JournalState.STALLED, BUSY, False, {}, "look"),
        (JournalState.STALLED, BUSY, False, {"retry_failed": True}, "look"),
        (JournalState.STALLED, BUSY, True, {"rule": "another"}, "look"),
        (JournalState.STALLED, BUSY, False, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
        (JournalState.STALLED, ANOTHER, True, {}, "send"),
        (JournalState.STALLED, NOTHING, True, {}, "send"),
        # Its replacement failed, so that the document is empty.
        *(
            (JournalState.EMPTIED, FAILED, same, {"on_existing": word}, "send")
            for same in (True, False)
            for word in ("overwrite", "skip", "fail")
        ),
        (JournalState.EMPTIED, BUSY, True, {}, "look"),
        (JournalState.EMPTIED, DISABLED, True, {}, f"skipped: {DISABLED_BY_HAND}"),
        (JournalState.EMPTIED, ANOTHER, True, {"on_existing": "skip"}, f"skipped: {EXISTS}"),
    ],
)
def test_plan_with_a_journal_row_follows_the_row(
    state: JournalState,
    remote: RemoteDocument | None,
    wishes: dict[str, Any],
    decision: str,
    *,
    same: bool,
) -> None:
    assert decide(row(state, rule="cut"), remote, same=same, **wishes) == decision


@pytest.mark.parametrize("reason", ["too large", None])
def test_failed_file_stays_failed_with_a_hint_to_retry(reason: str | None) -> None:
    decision = decide(row(JournalState.FAILED, reason=reason), OURS)

    assert decision.startswith(
        "failed: too large (failed in an earlier run"
        if reason
        else "failed: failed in an earlier run"
    )
    assert "retry_failed=True (--retry-failed)" in decision


@pytest.mark.parametrize(("same", "decision"), [(True, "failed"), (False, "send")])
def test_refused_file_is_resent_only_if_changed(*, same: bool, decision: str) -> None:
    refused = row(JournalState.FAILED, document_id=None, upload_file_id=None)

    assert decide(refused, NOTHING, same=same).startswith(decision)


@pytest.mark.parametrize("same", [True, False])
def test_unsent_file_is_sent(*, same: bool) -> None:
    assert decide(row(JournalState.WAITING, document_id=None), NOTHING, same=same) == "send"


@pytest.mark.parametrize(
    ("new_metadata", "decision"), [(False, "unchanged"), (True, "assign metadata")]
)
@pytest.mark.parametrize(
    ("state", "follow"), [(JournalState.DONE, True), (JournalState.ACCEPTED, False)]
)
def test_changed_metadata_is_assigned(
    decision: str, state: JournalState, *, new_metadata: bool, follow: bool
) -> None:
    assert decide(row(state), OURS, new_metadata=new_metadata, follow=follow) == decision


def test_plans_to_follow_or_set_metadata_keep_the_document() -> None:
    for state in (JournalState.ACCEPTED, JournalState.DONE):
        memory = row(state)
        decided = plan_file(
            FOUND, memory, OURS, PlanOptions(), is_unchanged=lambda _: True, has_new_metadata=True
        )

        assert isinstance(decided, PlannedFile)
        assert decided.row == memory
        assert decided.is_unchanged


@pytest.mark.parametrize("same", [True, False])
def test_lookup_after_a_lost_response_knows_the_previous_document(*, same: bool) -> None:
    decided = plan_file(
        FOUND, row(JournalState.SENDING), OURS, PlanOptions(), is_unchanged=lambda _: same
    )

    assert isinstance(decided, PlannedFile)
    assert decided.action is PlannedAction.LOOK_UP
    assert decided.previous_upload_id == "f0"
    assert decided.is_unchanged is same
    assert decided.attempts == 3


def test_lost_send_with_another_rule_is_sent_again() -> None:
    memory = row(JournalState.SENDING, rule="cut")

    decided = plan_file(
        FOUND, memory, None, PlanOptions(rule="another"), is_unchanged=lambda _: True
    )

    assert isinstance(decided, PlannedFile)
    assert not decided.is_unchanged


@pytest.mark.parametrize(
    "state", [JournalState.DONE, JournalState.FAILED, JournalState.WAITING, JournalState.ACCEPTED]
)
def test_send_is_distinguished_from_the_existing_document(state: JournalState) -> None:
    """Otherwise, after a lost response, the document of the previous upload could be mistaken for
    that of this one, which never arrived.
    """
    decided = plan_file(
        FOUND,
        row(state, rule="cut"),
        OURS,
        PlanOptions(rule="another"),
        is_unchanged=lambda _: True,
    )

    assert isinstance(decided, PlannedFile)
    assert decided.replaces == OURS
    assert decided.previous_upload_id == "f1"
    assert decided.attempts == 0
    assert not decided.is_unchanged


def test_retried_send_is_distinguished_from_the_failed_document() -> None:
    wishes = PlanOptions(retry_failed=True)

    decided = plan_file(FOUND, row(JournalState.FAILED), OURS, wishes, is_unchanged=lambda _: True)

    assert isinstance(decided, PlannedFile)
    assert decided.previous_upload_id == "f1"


def test_new_file_replaces_nothing() -> None:
    decided = plan_file(FOUND, None, None, PlanOptions(), is_unchanged=lambda _: True)

    assert decided == PlannedFile(found=FOUND, name="a__b.md", action=PlannedAction.SEND)
    assert isinstance(decided, PlannedFile)
    assert decided.previous_upload_id is None


def test_content_is_compared_only_if_needed() -> None:
    """A comparison may read the whole file."""

    def fail(_: JournalRow) -> bool:
        raise AssertionError

    for memory, remote, wishes in (
        (None, OURS, PlanOptions()),
        (row(JournalState.DONE), ANOTHER, PlanOptions()),
        (row(JournalState.WAITING), OURS, PlanOptions()),
        (row(JournalState.DONE), OURS, PlanOptions(rule="another")),
    ):
        decided = plan_file(FOUND, memory, remote, wishes, is_unchanged=fail)
        assert isinstance(decided, PlannedFile)


def test_result_without_work_names_the_existing_document() -> None:
    ended = plan_file(
        FOUND, row(JournalState.DONE), OURS, PlanOptions(), is_unchanged=lambda _: True
    )

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
def test_journal_is_complete_if_the_document_counts_match(
    known: int, unsettled: int, documents: int, *, knows: bool
) -> None:
    assert is_journal_complete(known=known, unsettled=unsettled, documents=documents) is knows


@pytest.mark.parametrize("documents", [6, 7, 8])
def test_journal_with_unanswered_sends_is_not_complete(documents: int) -> None:
    """An unseen new document and a deleted one leave the count unchanged."""
    assert not is_journal_complete(known=7, unsettled=1, documents=documents)


def test_emptied_document_is_replaced_first() -> None:
    """Until then, searches find nothing of it."""
    decided = plan_file(
        FOUND, row(JournalState.EMPTIED), FAILED, PlanOptions(), is_unchanged=lambda _: True
    )

    assert isinstance(decided, PlannedFile)
    assert decided.is_first


@pytest.mark.parametrize("same", [True, False])
def test_stalled_document_is_created_again_on_request(*, same: bool) -> None:
    """The row has the details: the reason, and the uploaded file of the stalled document."""
    memory = row(JournalState.STALLED)

    decided = plan_file(
        FOUND, memory, BUSY, PlanOptions(retry_failed=True), is_unchanged=lambda _: same
    )

    assert isinstance(decided, PlannedFile)
    assert (decided.has_stalled, decided.row, decided.is_unchanged) == (True, memory, same)
    assert decided.previous_upload_id == "f1"


def test_changed_file_waits_for_its_stalled_document() -> None:
    """It may still be indexed; two simultaneous runs would leave the chunks of both."""
    decided = plan_file(
        FOUND, row(JournalState.STALLED), BUSY, PlanOptions(), is_unchanged=lambda _: False
    )

    assert isinstance(decided, PlannedFile)
    assert (decided.action, decided.has_stalled, decided.row) == (
        PlannedAction.LOOK_UP,
        False,
        None,
    )


def test_stalled_document_is_followed_for_a_while() -> None:
    decided = plan_file(
        FOUND, row(JournalState.STALLED), BUSY, PlanOptions(), is_unchanged=lambda _: True
    )

    assert isinstance(decided, PlannedFile)
    assert decided.stalled_before


def test_size_of_the_upload_is_known_without_its_header() -> None:
    """Lists show the size that was sent, by which a lost upload is found."""
    sent = row(JournalState.SENDING, labels="unset.removed.3")
    planned = PlannedFile(
        found=FOUND,
        name=FOUND.name,
        action=PlannedAction.SEND,
        labels=Labels("", HeaderState.REMOVED, 1),
    )

    assert planned.sent_size == FOUND.size - 1
    assert evolve(planned, row=sent).sent_size == sent.size - 3
    assert str(Labels.parse("unset.removed.3")) == "unset.removed.3"
    assert Labels.parse("abc") == Labels("abc")
