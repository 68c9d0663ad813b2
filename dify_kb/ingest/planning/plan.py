"""Decide what is done with each file. Pure.

If the journal has no row of the file, or somebody else deleted or replaced its document:

| document of that name | overwrite | skip | fail |
|---|---|---|---|
| none | send | send | send |
| enabled | send | skipped | failed |
| disabled, archived | skipped | skipped | failed |

What a person disabled or archived is not overwritten: the server would make a second document
beside a disabled one, and put an archived one back into retrieval (measured on 1.4.3, 1.12.1 and
1.14.2). Else by the row, for the same content and chunking settings, or others:

| row | same | other |
|---|---|---|
| sending (no answer was seen) | look, then follow | look, then send |
| waiting (not sent) | as an enabled one above | as an enabled one above |
| accepted | follow | look until it is indexed, then send |
| done | unchanged, or assign metadata | as an enabled one above |
| failed | failed | as an enabled one above |
| failed, with `retry_failed` | send | as an enabled one above |
| stalled | follow for a while | look until it is indexed, then send |
| stalled, with `retry_failed` | look, then create it again | look, then create it again |
| emptied (its replacement failed) | send, before all others | send, before all others |
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from attrs import evolve, field, frozen

from dify_kb.ingest.journal.rows import Row, State
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.resources.values import Value

OnExisting = Literal["overwrite", "skip", "fail"]

RULE_OF_THE_BASE = ""
"""The fingerprint of the dataset's own chunking settings, which matches every other."""


class Do(enum.StrEnum):
    """The first step for a file."""

    SEND = "send"
    LOOK = "look"
    """Look up the document of its name before anything else."""

    FOLLOW = "follow"
    """The server has it; wait until it is indexed."""

    ASSIGN_METADATA = "assign metadata"
    """The server has it; set its metadata."""


@frozen(kw_only=True)
class Planned:
    """The plan for a file, whose document is `name`.

    `replaces` is the document of that name, `row` the journal's row. `same`: what was sent before
    is what would be sent now. `attempts` counts the sends of earlier runs that were not answered.
    """

    found: FoundFile
    name: str
    do: Do
    replaces: RemoteDocument | None = None
    row: Row | None = None
    same: bool = False
    metadata: Mapping[str, Value] = field(factory=dict)
    attempts: int = 0
    first: bool = False
    """Whether it is sent before all others: its document is empty."""

    stuck: bool = False
    """Whether its document stalled in an earlier run and is to be created again."""

    @property
    def stalled_before(self) -> bool:
        """Whether its document stalled in an earlier run and is followed for a while."""
        return self.do is Do.FOLLOW and self.row is not None and self.row.state is State.STALLED

    @property
    def before(self) -> str | None:
        """The uploaded file of its document before its latest send."""
        if self.row is not None:
            return self.row.upload_file_id if self.stuck else self.row.previous
        return self.replaces.upload_file_id if self.replaces else None


@frozen(kw_only=True)
class Wishes:
    """The options that plans depend on; `rule` is a fingerprint of the chunking settings."""

    on_existing: OnExisting = "overwrite"
    retry_failed: bool = False
    overwrite_archived: bool = False
    follow: bool = True
    rule: str = RULE_OF_THE_BASE


def is_journal_complete(*, known: int, unsettled: int, documents: int) -> bool:
    """Return whether a journal knows every document of a dataset, by their numbers.

    Not while the outcome of a send is unknown: its document would hide one that was deleted.
    """
    return unsettled == 0 and known == documents


def plan(  # noqa: PLR0911 -- one for each row of the table
    found: FoundFile,
    row: Row | None,
    remote: RemoteDocument | None,
    wishes: Wishes,
    *,
    same: Callable[[Row], bool],
    metadata: Mapping[str, Value] = MappingProxyType({}),
    labels: str = "",
) -> Planned | ItemResult:
    """Decide about one file.

    Args:
        same: compares its content with what was sent; it may read the file.
        labels: the fingerprint of `metadata`.
    """
    name = found.name
    first = Planned(found=found, name=name, do=Do.SEND, replaces=remote, metadata=metadata)
    if row is None:
        return _plan_by_document(first, wishes)
    rule = wishes.rule in {RULE_OF_THE_BASE, row.rule}
    if row.state is State.SENDING:
        unchanged = rule and same(row)
        return evolve(first, do=Do.LOOK, row=row, same=unchanged, attempts=row.attempts)
    if not _is_own_document(row, remote):
        return _plan_by_document(first, wishes)
    if row.state is State.EMPTIED:
        return _plan_by_document(evolve(first, first=True), evolve(wishes, on_existing="overwrite"))
    if row.state is State.WAITING or not rule or not same(row):
        changed = _plan_by_document(first, wishes)
        if row.state in {State.ACCEPTED, State.STALLED} and isinstance(changed, Planned):
            stuck = row.state is State.STALLED and wishes.retry_failed
            return evolve(changed, do=Do.LOOK, stuck=stuck, row=row if stuck else None)
        return changed
    return _plan_by_row(first, row, wishes, labels)


def _is_own_document(row: Row, remote: RemoteDocument | None) -> bool:
    """Return whether the document of that name is the one that was sent."""
    if remote is None or row.document_id is None:
        return remote is None and row.document_id is None
    return (remote.document_id, remote.upload_file_id) == (row.document_id, row.upload_file_id)


def _plan_by_row(planned: Planned, row: Row, wishes: Wishes, labels: str) -> Planned | ItemResult:
    """Decide about a file that is unchanged since it was sent."""
    match row.state:
        case State.STALLED if wishes.retry_failed:
            return evolve(planned, do=Do.LOOK, row=row, same=True, stuck=True)
        case State.ACCEPTED | State.STALLED if wishes.follow:
            return evolve(planned, do=Do.FOLLOW, row=row, same=True)
        case State.FAILED if wishes.retry_failed:
            return _plan_by_document(
                evolve(planned, same=True), evolve(wishes, on_existing="overwrite")
            )
        case State.FAILED:
            return _ended_result(planned, Outcome.FAILED, f"{row.reason or 'failed'} ({AGAIN})")
        case _ if labels not in {"", row.labels}:
            return evolve(planned, do=Do.ASSIGN_METADATA, row=row, same=True)
        case _:
            return _ended_result(planned, Outcome.UNCHANGED, None)


def _plan_by_document(planned: Planned, wishes: Wishes) -> Planned | ItemResult:
    """Decide by the document of that name alone."""
    existing = planned.replaces
    if existing is None:
        return planned
    if wishes.on_existing == "overwrite":
        if not existing.enabled:
            return _ended_result(planned, Outcome.SKIPPED, DISABLED_BY_HAND)
        if existing.archived and not wishes.overwrite_archived:
            return _ended_result(planned, Outcome.SKIPPED, ARCHIVED_BY_HAND)
        return planned if existing.final else evolve(planned, do=Do.LOOK)
    return keep_existing(planned, wishes.on_existing)


def keep_existing(planned: Planned, on_existing: OnExisting) -> ItemResult:
    """Return the outcome of a file whose document exists and is not to be replaced."""
    outcome = Outcome.SKIPPED if on_existing == "skip" else Outcome.FAILED
    return _ended_result(planned, outcome, NAME_EXISTS)


AGAIN = "in an earlier run; retry it with retry_failed=True (--retry-failed)"
NAME_EXISTS = "a document of its name exists"
DISABLED_BY_HAND = "disabled by hand: enable or delete its document to replace it"
ARCHIVED_BY_HAND = (
    "archived by hand: unarchive its document, or pass overwrite_archived=True"
    " (--overwrite-archived)"
)


def _ended_result(planned: Planned, outcome: Outcome, reason: str | None) -> ItemResult:
    existing = planned.replaces
    return ItemResult(
        key=planned.found.key,
        name=planned.name,
        outcome=outcome,
        reason=reason,
        document_id=existing.document_id if existing else None,
        size=planned.found.size,
        attempts=planned.attempts,
        error=reason if outcome is Outcome.FAILED else None,
    )
