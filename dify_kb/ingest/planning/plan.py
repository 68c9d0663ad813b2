"""What to do with each file: decides everything, does nothing.

With no memory of the file, or where its document was deleted or replaced by somebody else:

| document of that name | overwrite | skip | fail |
|---|---|---|---|
| none | send | send | send |
| enabled | send | skipped | failed |
| disabled | failed | skipped | failed |

A disabled one is never overwritten: the server would make a second document of the same name
(recording 422). With a memory of it:

| remembered as | same content and rule | other |
|---|---|---|
| sending (no answer was seen) | look, then follow | look, then send |
| waiting (never sent) | (nothing was) | as an enabled one above |
| accepted | follow | look until it ended, then send |
| done | unchanged (or label) | as an enabled one above |
| failed | failed, or send on request | as an enabled one above |
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from attrs import evolve, field, frozen

from dify_kb.ingest.journal.rows import Row, State
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.resources.values import Value

from .remote_document import RemoteDocument

OnExisting = Literal["overwrite", "skip", "fail"]

RULE_OF_THE_BASE = ""
"""The fingerprint of "as the base does it", which matches every other."""


class Do(enum.StrEnum):
    """What a file needs."""

    SEND = "send"
    LOOK = "look"
    """See first what the server has under its name."""

    FOLLOW = "follow"
    """The server has it, and it is not seen indexed."""

    LABEL = "label"
    """The server has it; its metadata is to be set."""


@frozen(kw_only=True)
class Planned:
    """What is to be done with a file, whose document is `name`.

    `replaces` is the document of that name, `row` what is remembered. `same` tells that what was
    sent before is what would be sent now. `attempts` counts sends, `broken` those of
    this run that broke or were not answered (none that was refused), `recreated` those that
    followed a failed indexing; `added` tells that what it replaces then was added by this run.
    """

    found: FoundFile
    name: str
    do: Do
    replaces: RemoteDocument | None = None
    row: Row | None = None
    same: bool = False
    metadata: Mapping[str, Value] = field(factory=dict)
    attempts: int = 0
    broken: int = 0
    added: bool = False
    recreated: int = 0

    @property
    def before(self) -> str | None:
        """The uploaded file that its document had before the send of which nothing is known."""
        if self.row is not None:
            return self.row.previous
        return self.replaces.upload_file_id if self.replaces else None


@frozen(kw_only=True)
class Wishes:
    """What the caller wants: fingerprints of the rule and a listing of what to do."""

    on_existing: OnExisting = "overwrite"
    retry_failed: bool = False
    follow: bool = True
    rule: str = RULE_OF_THE_BASE


def complete(*, known: int, unsettled: int, documents: int) -> bool:
    """Tell whether a journal knows every document of a knowledge base, by their numbers.

    Not while a send is unsettled: what it may have added would hide what somebody deleted.
    """
    return unsettled == 0 and known == documents


def plan(
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

    `same` compares its content with what was sent; `labels` is the fingerprint of `metadata`.
    """
    name = found.name
    first = Planned(found=found, name=name, do=Do.SEND, replaces=remote, metadata=metadata)
    if row is None:
        return _fresh(first, wishes)
    rule = wishes.rule in {RULE_OF_THE_BASE, row.rule}
    if row.state is State.SENDING:
        unchanged = rule and same(row)
        return evolve(first, do=Do.LOOK, row=row, same=unchanged, attempts=row.attempts)
    if not _ours(row, remote):
        return _fresh(first, wishes)
    if row.state is State.WAITING or not rule or not same(row):
        changed = _fresh(first, wishes)
        busy = row.state is State.ACCEPTED and isinstance(changed, Planned)
        return evolve(changed, do=Do.LOOK) if busy and isinstance(changed, Planned) else changed
    return _known(first, row, wishes, labels)


def _ours(row: Row, remote: RemoteDocument | None) -> bool:
    """Tell whether the document of that name is the one that was sent."""
    if remote is None or row.document_id is None:
        return remote is None and row.document_id is None
    return (remote.document_id, remote.upload_file_id) == (row.document_id, row.upload_file_id)


def _known(planned: Planned, row: Row, wishes: Wishes, labels: str) -> Planned | ItemResult:
    """Decide about a file that is what was sent."""
    match row.state:
        case State.ACCEPTED if wishes.follow:
            return evolve(planned, do=Do.FOLLOW, row=row, same=True)
        case State.FAILED if wishes.retry_failed:
            return _fresh(evolve(planned, same=True), evolve(wishes, on_existing="overwrite"))
        case State.FAILED:
            return _ended(planned, Outcome.FAILED, f"{row.reason or 'failed'} ({AGAIN})")
        case _ if labels not in {"", row.labels}:
            return evolve(planned, do=Do.LABEL, row=row, same=True)
        case _:
            return _ended(planned, Outcome.UNCHANGED, None)


def _fresh(planned: Planned, wishes: Wishes) -> Planned | ItemResult:
    """Decide by the document of that name alone."""
    existing = planned.replaces
    if existing is None:
        return planned
    if wishes.on_existing == "overwrite":
        if not existing.enabled:
            return _ended(planned, Outcome.FAILED, DISABLED)
        return planned if existing.final else evolve(planned, do=Do.LOOK)
    return left(planned, wishes.on_existing)


def left(planned: Planned, on_existing: OnExisting) -> ItemResult:
    """End a file whose name a document has that is not to be replaced."""
    outcome = Outcome.SKIPPED if on_existing == "skip" else Outcome.FAILED
    return _ended(planned, outcome, "a document of its name exists")


AGAIN = "an earlier run; try it again with retry_failed=True (--retry-failed)"

DISABLED = "a disabled document has its name: enable or delete that first"


def _ended(planned: Planned, outcome: Outcome, reason: str | None) -> ItemResult:
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
