"""Plan the first action for a file from its journal row and its document. Pure.

If the journal has no row of the file, or another client deleted or replaced its document:

| document with that name | overwrite | skip | fail |
|---|---|---|---|
| none | send | send | send |
| enabled | send | skipped | failed |
| disabled, archived | skipped | skipped | failed |

Documents that a person disabled or archived are not overwritten: the server would create a second
document next to a disabled one, and make an archived one searchable again (measured on 1.4.3,
1.12.1 and 1.14.2).

Otherwise the action depends on the row, and on whether content and chunking settings are the same:

| row | same | other |
|---|---|---|
| sending (no response known) | look up, then follow | look up, then send |
| waiting (not sent) | as an enabled one above | as an enabled one above |
| trashed (by a sync) | as a disabled one above | as a disabled one above |
| accepted | follow | look up until indexed, then send |
| done | unchanged, or assign metadata | as an enabled one above |
| failed | failed | as an enabled one above |
| failed, with `retry_failed` | send | as an enabled one above |
| stalled | follow for a limited time | look up until indexed, then send |
| stalled, with `retry_failed` | look up, then create again | look up, then create again |
| emptied (its replacement failed) | send, before all others | send, before all others |
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from attrs import evolve, field, frozen

from dify_kb.ingest.journal.journal_rows import JournalRow, JournalState
from dify_kb.ingest.metadata.collect_metadata import FileMetadata
from dify_kb.ingest.metadata.labels import Labels
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.resources.metadata_validation import AssignableValue, MetadataWarning

OnExisting = Literal["overwrite", "skip", "fail"]

DATASET_RULE = ""
"""The fingerprint of the dataset's own chunking settings, which is equal to all others."""


class PlannedAction(enum.StrEnum):
    """The first step for a file."""

    SEND = "send"
    LOOK_UP = "look"
    """Look up the document by name before the next step."""

    FOLLOW = "follow"
    """The document exists; wait until it is indexed."""

    ASSIGN_METADATA = "assign metadata"
    """The document is indexed; set its metadata."""


@frozen(kw_only=True)
class PlannedFile:
    """The plan for a file.

    `name` is the name of its document, `replaces` the existing document with that name, `row` the
    journal row. `is_unchanged` is True if the file has not changed since it was sent. `attempts` is
    the number of uploads in earlier runs without a response.
    """

    found: FoundFile
    name: str
    action: PlannedAction
    replaces: RemoteDocument | None = None
    row: JournalRow | None = None
    is_unchanged: bool = False
    metadata: Mapping[str, AssignableValue] = field(factory=dict)
    kept_metadata: Mapping[str, AssignableValue] = field(factory=dict)
    """The values of an earlier document that the new one keeps; those of `metadata` win."""

    labels: Labels = field(factory=Labels)
    """The labels of `metadata` in the journal, once it is set."""

    warnings: Sequence[MetadataWarning] = ()
    sync_id: str | None = None
    """The id of the sync whose fields are set on the document; None sets none."""

    sync_rule: str = DATASET_RULE
    """The fingerprint of the chunking settings for these fields."""

    unread: FileMetadata | None = None
    """The metadata that is completed when the file is read; None if it is complete."""

    attempts: int = 0
    is_first: bool = False
    """Whether the file is sent before all others, because its document is empty."""

    has_stalled: bool = False
    """Whether its document stalled in an earlier run and has to be created again."""

    @property
    def sent_size(self) -> int:
        """The size of the latest upload, in bytes: without a header that was removed."""
        if self.row is not None:
            return self.row.size - Labels.parse(self.row.labels).removed
        return self.found.size - self.labels.removed

    @property
    def stalled_before(self) -> bool:
        """Whether its document stalled in an earlier run and is now followed for a limited time."""
        return (
            self.action is PlannedAction.FOLLOW
            and self.row is not None
            and self.row.state is JournalState.STALLED
        )

    @property
    def previous_upload_id(self) -> str | None:
        """The id of the document's uploaded file before the latest upload."""
        if self.row is not None:
            return self.row.upload_file_id if self.has_stalled else self.row.previous
        return self.replaces.upload_file_id if self.replaces else None


@frozen(kw_only=True)
class PlanOptions:
    """The options that affect plans. `rule` is a fingerprint of the chunking settings."""

    on_existing: OnExisting = "overwrite"
    retry_failed: bool = False
    overwrite_archived: bool = False
    follow: bool = True
    rule: str = DATASET_RULE


def is_journal_complete(*, known: int, unsettled: int, documents: int | None) -> bool:
    """Return whether a journal knows every document of a dataset, by comparing their numbers.

    False while the outcome of an upload is unknown: its document could make up for a deleted one.
    """
    return unsettled == 0 and known == documents


def plan_file(  # noqa: PLR0911 -- the rows of the table
    found: FoundFile,
    row: JournalRow | None,
    remote: RemoteDocument | None,
    options: PlanOptions,
    *,
    is_unchanged: Callable[[JournalRow], bool],
    metadata: Mapping[str, AssignableValue] = MappingProxyType({}),
    has_new_metadata: bool = False,
) -> PlannedFile | ItemResult:
    """Return the plan for a file, or its result if there is nothing to do.

    Args:
        is_unchanged: returns whether the file has not changed since it was sent; may read the file.
        has_new_metadata: whether the metadata differs from that which the row records.
    """
    name = found.name
    first = PlannedFile(
        found=found, name=name, action=PlannedAction.SEND, replaces=remote, metadata=metadata
    )
    if row is None:
        return _plan_by_document(first, options)
    rule = options.rule in {DATASET_RULE, row.rule}
    if row.state is JournalState.SENDING:
        unchanged = rule and is_unchanged(row)
        return evolve(
            first,
            action=PlannedAction.LOOK_UP,
            row=row,
            is_unchanged=unchanged,
            attempts=row.attempts,
        )
    if not _is_own_document(row, remote):
        return _plan_by_document(first, options)
    if row.state is JournalState.EMPTIED:
        return _plan_by_document(
            evolve(first, is_first=True), evolve(options, on_existing="overwrite")
        )
    is_sent = row.state not in {JournalState.WAITING, JournalState.TRASHED}
    if not (is_sent and rule and is_unchanged(row)):
        changed = _plan_by_document(first, options)
        if row.state in {JournalState.ACCEPTED, JournalState.STALLED} and isinstance(
            changed, PlannedFile
        ):
            has_stalled = row.state is JournalState.STALLED and options.retry_failed
            return evolve(
                changed,
                action=PlannedAction.LOOK_UP,
                has_stalled=has_stalled,
                row=row if has_stalled else None,
            )
        return changed
    return _plan_by_row(first, row, options, has_new_metadata=has_new_metadata)


def _is_own_document(row: JournalRow, remote: RemoteDocument | None) -> bool:
    """Return whether the row records this document, or both are missing."""
    if remote is None or row.document_id is None:
        return remote is None and row.document_id is None
    return (remote.document_id, remote.upload_file_id) == (row.document_id, row.upload_file_id)


def _plan_by_row(
    planned: PlannedFile, row: JournalRow, options: PlanOptions, *, has_new_metadata: bool
) -> PlannedFile | ItemResult:
    """Plan a file that has not changed since it was sent."""
    match row.state:
        case JournalState.STALLED if options.retry_failed:
            return evolve(
                planned, action=PlannedAction.LOOK_UP, row=row, is_unchanged=True, has_stalled=True
            )
        case JournalState.ACCEPTED | JournalState.STALLED if options.follow:
            return evolve(planned, action=PlannedAction.FOLLOW, row=row, is_unchanged=True)
        case JournalState.FAILED if options.retry_failed:
            return _plan_by_document(
                evolve(planned, is_unchanged=True), evolve(options, on_existing="overwrite")
            )
        case JournalState.FAILED:
            reason = f"{row.reason} ({FAILED_BEFORE})" if row.reason else FAILED_BEFORE
            return _ended_result(planned, Outcome.FAILED, reason)
        case _ if has_new_metadata:
            return evolve(planned, action=PlannedAction.ASSIGN_METADATA, row=row, is_unchanged=True)
        case _:
            return keep_unchanged(planned)


def _plan_by_document(planned: PlannedFile, options: PlanOptions) -> PlannedFile | ItemResult:
    """Plan a file by the existing document with its name, ignoring the journal row."""
    existing = planned.replaces
    if existing is None:
        return planned
    if options.on_existing == "overwrite":
        if not existing.enabled:
            return _ended_result(planned, Outcome.SKIPPED, DISABLED_BY_HAND)
        if existing.archived and not options.overwrite_archived:
            return _ended_result(planned, Outcome.SKIPPED, ARCHIVED_BY_HAND)
        return planned if existing.is_final else evolve(planned, action=PlannedAction.LOOK_UP)
    return keep_existing(planned, options.on_existing)


def keep_unchanged(planned: PlannedFile) -> ItemResult:
    """Return the result of a file for which there is nothing to do."""
    return _ended_result(planned, Outcome.UNCHANGED, None)


def keep_existing(planned: PlannedFile, on_existing: OnExisting) -> ItemResult:
    """Return the result of a file whose document exists and must not be replaced."""
    outcome = Outcome.SKIPPED if on_existing == "skip" else Outcome.FAILED
    return _ended_result(planned, outcome, NAME_EXISTS)


FAILED_BEFORE = "failed in an earlier run; retry it with retry_failed=True (--retry-failed)"
NAME_EXISTS = "a document with this name already exists"
DISABLED_BY_HAND = "disabled by hand: enable or delete its document to replace it"
ARCHIVED_BY_HAND = (
    "archived by hand: unarchive its document, or pass overwrite_archived=True"
    " (--overwrite-archived)"
)


def _ended_result(planned: PlannedFile, outcome: Outcome, reason: str | None) -> ItemResult:
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
