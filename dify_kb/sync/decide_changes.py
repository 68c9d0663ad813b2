"""Decide what a sync does with each file and each document. Pure, but for reading files.

| file | row | document | action |
|---|---|---|---|
| new | none | none of that name | add |
| new, with the content of a file that is gone | none | none of that name | rename |
| new | none | one of that name that is not ours | keep; with `adopt`, same if the size fits |
| found | any | its own | as a load: same, update, or finish an earlier upload |
| found | any | its own, disabled or archived, file changed | keep |
| found | done | deleted by a person | add; with `respect_deletes`, keep |
| found | trashed | disabled by this sync | add: enabled again, and updated if it changed |
| refused by a rule, such as an empty one | any | its own | keep |
| exists, but left out by the patterns | any | its own | keep; with `delete_excluded`, delete |
| gone | any | its own | delete |
| gone | any | none | forget the row |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from dify_kb.ingest.journal import JournalRow, JournalState
from dify_kb.ingest.metadata.labels import Labels
from dify_kb.ingest.metadata.sync_fields import SyncFields
from dify_kb.ingest.planning.file_plan import (
    ARCHIVED_BY_HAND,
    DISABLED_BY_HAND,
    PlannedAction,
    PlannedFile,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.ingest.sources.found_file import FoundFile

from .dataset_documents import DatasetDocuments, Ownership, get_kept_metadata
from .prepare_rows import RowPreparer
from .sync_options import SyncOptions
from .sync_plan import Deletion, Rename, SyncPlan
from .sync_report import SyncAction, SyncChange

if TYPE_CHECKING:
    from dify_kb.models import Document

NAME_TAKEN = "a document of this name was not made by this sync; adopt=True (--adopt) takes it over"
OTHER_SYNC = "its document belongs to another sync; pass id={!r} (--id {})"
OTHER_SIZE = "a document of this name was not made by this sync, and has another size"
DELETED_BY_HAND = "its document was deleted by hand (respect_deletes)"
EXCLUDED = "left out by the patterns; delete_excluded=True (--delete-excluded) deletes its document"
NEW_NAME_KEPT = "renamed to {}, which is kept back"
RESTORED = "its document was taken out of retrieval by an earlier sync"
METADATA = "metadata"
FIELDS = "the metadata fields of the sync"
KEPT_BY_CALLER = "its file is gone, but may_delete() returned False"
EDITED_BY_HAND = "edited by hand; sync without protect_edits (--protect-edits) overwrites it"
KEEP_ALL = "its file is gone; delete='keep' (--delete keep)"
SUPERSEDED = "an older or unfinished version"


@define(kw_only=True)
class SyncDecider:
    """Creates the plan from the files found, the rows and the documents of the dataset."""

    options: SyncOptions
    sync_id: str
    documents: DatasetDocuments
    ownership: Ownership
    rows: Mapping[str, JournalRow]
    plan_files: Callable[..., list[PlannedFile | ItemResult]]
    find_existing: Callable[[Collection[str]], Collection[str]]
    now: float
    plan: SyncPlan = field(factory=SyncPlan)
    _found: dict[str, FoundFile] = field(factory=dict)

    def decide(self, items: Sequence[FoundFile | ItemResult]) -> SyncPlan:
        """Return the plan for all files of the source. Blocking: may read files."""
        rows = dict(self.rows)
        keys = {item.key for item in items}
        found = {item.key: item for item in items if isinstance(item, FoundFile)}
        self._found = found
        gone = {key: row for key, row in rows.items() if key not in keys}
        preparer = RowPreparer(
            options=self.options,
            documents=self.documents,
            ownership=self.ownership,
            found=found,
            rows=rows,
            gone=gone,
            plan=self.plan,
            now=self.now,
        )
        preparer.prepare()
        restored = preparer.restored
        kept, renames = self._keep_named(found, rows), preparer.match_renames()
        self._decide_files(items, rows, kept, renames, restored)
        self._decide_gone(gone, renames)
        self._add_leftovers()
        self._add_foreign()
        self.plan.owned = sum(row.document_id is not None for row in rows.values())
        return self.plan

    def _keep_named(
        self, found: Mapping[str, FoundFile], rows: Mapping[str, JournalRow]
    ) -> dict[str, str]:
        """Return the reason for each file that must not be sent, by key."""
        kept: dict[str, str] = {}
        for key, file in found.items():
            row = rows.get(key)
            own = self.documents.find_own(row)
            if own is not None or not self.documents.knows(file.name):
                continue
            if row is not None and row.state is JournalState.DONE and self._respects(row):
                kept[key] = DELETED_BY_HAND
                continue
            has_own = row is not None and self.documents.find_versions(row)
            if (foreign := self.ownership.find_foreign(self.documents, file.name)) and not has_own:
                self.plan.conflicts += 1
                kept[key] = self._describe_foreign(foreign[0])
        return kept

    def _respects(self, row: JournalRow) -> bool:
        return self.options.respect_deletes and row.document_id is not None

    def _describe_foreign(self, document: Document) -> str:
        source = document.metadata_values.get("sync_source")
        if isinstance(source, str) and ":" in source:
            other = source.partition(":")[0]
            return OTHER_SYNC.format(other, other)
        return OTHER_SIZE if self.options.adopt else NAME_TAKEN

    # Files

    def _decide_files(
        self,
        items: Sequence[FoundFile | ItemResult],
        rows: Mapping[str, JournalRow],
        kept: Mapping[str, str],
        renames: dict[str, JournalRow],
        restored: Collection[str],
    ) -> None:
        found = [item for item in items if isinstance(item, FoundFile) and item.key not in kept]
        known = {item.key: rows[item.key] for item in found if item.key in rows}
        own = {
            key: evolve(document, enabled=True, archived=False) if key in restored else document
            for key, row in known.items()
            if (document := self.documents.find_own(row)) is not None
        }
        decided = {one.key: one for one in map(_Keyed, self.plan_files(found, known, own))}
        for item in items:
            if item.key in kept and isinstance(item, FoundFile):
                self._keep(item.key, rows.get(item.key), kept[item.key], item)
            elif isinstance(item, ItemResult):
                self._decide_refused(item, rows.get(item.key))
            else:
                self._decide_planned(
                    decided[item.key].planned, rows.get(item.key), renames, restored
                )

    def _decide_refused(self, item: ItemResult, row: JournalRow | None) -> None:
        self.plan.files.append(item)
        if item.outcome is Outcome.FAILED:
            self._change(SyncAction.FAIL, item.key, reason=item.reason)
        elif row is not None and self.documents.find_own(row) is not None:
            self._change(SyncAction.KEEP, item.key, row.document_id, reason=item.reason)
        else:
            self._change(SyncAction.SKIP, item.key, reason=item.reason)

    def _decide_planned(
        self,
        planned: PlannedFile | ItemResult,
        row: JournalRow | None,
        renames: dict[str, JournalRow],
        restored: Collection[str],
    ) -> None:
        key = planned.key if isinstance(planned, ItemResult) else planned.found.key
        old = renames.get(key)
        if isinstance(planned, ItemResult):
            self._decide_result(planned, row, restored)
            return
        document = self.documents.find(None if row is None else row.document_id)
        if row is not None and len(versions := self.documents.find_versions(row)) > 1:
            self.plan.versions[key] = list(versions)
        if old is not None:
            document = self.documents.find(old.document_id)
        if document is not None and planned.action is not PlannedAction.ASSIGN_METADATA:
            planned = evolve(planned, kept_metadata=get_kept_metadata(document))
        if self.options.state == "base":
            planned = evolve(
                planned, sync_id=self.sync_id, sync_rule=self.options.load.chunking_fingerprint
            )
        self.plan.files.append(planned)
        if old is not None:
            self.plan.renames.append(Rename(old_key=old.key, key=key, row=old, document=document))
            self._change(SyncAction.RENAME, key, old.document_id, old_key=old.key)
            return
        replaces = planned.replaces is not None or (row is not None and row.previous is not None)
        reason = METADATA if planned.action is PlannedAction.ASSIGN_METADATA else None
        action = SyncAction.UPDATE if replaces or reason else SyncAction.ADD
        self._change(action, key, row.document_id if row else None, reason=reason)

    def _decide_result(
        self, result: ItemResult, row: JournalRow | None, restored: Collection[str]
    ) -> None:
        document_id = row.document_id if row else None
        self.plan.files.append(result)
        if result.outcome is Outcome.FAILED:
            self._change(SyncAction.FAIL, result.key, document_id, reason=result.reason)
        elif result.outcome is Outcome.SKIPPED:
            document_id = result.document_id or document_id
            self._change(SyncAction.KEEP, result.key, document_id, reason=result.reason)
            self._delete_other_versions(row, document_id)
        elif result.key in restored:
            self._change(SyncAction.ADD, result.key, document_id, reason=RESTORED)
        elif (planned := self._plan_fields(result, row)) is not None:
            self.plan.files[-1] = planned
            self._change(SyncAction.UPDATE, result.key, document_id, reason=FIELDS)
        else:
            self.plan.same += 1

    def _plan_fields(self, result: ItemResult, row: JournalRow | None) -> PlannedFile | None:
        """Plan to set the fields of the sync on a document that does not have them yet.

        It was adopted, or its state was in the journal before.
        """
        document = self.documents.find(row.document_id) if row is not None else None
        if self.options.state != "base" or row is None or document is None:
            return None
        fields = SyncFields.from_values(document.metadata_values)
        if (
            fields is not None
            and fields.trashed is None
            and (fields.sync_id, fields.key, fields.content) == (self.sync_id, row.key, row.content)
        ):
            return None
        return PlannedFile(
            found=self._found[result.key],
            name=row.name,
            action=PlannedAction.ASSIGN_METADATA,
            replaces=RemoteDocument.from_document(document),
            row=row,
            is_unchanged=True,
            labels=Labels.parse(row.labels),
            sync_id=self.sync_id,
            sync_rule=row.rule,
        )

    def _delete_other_versions(self, row: JournalRow | None, document_id: str | None) -> None:
        """Delete what an interrupted replacement has left next to a document that is kept."""
        for document in () if row is None else self.documents.find_versions(row):
            if document.id != document_id:
                self._delete(
                    Deletion(
                        key=document.name,
                        document_id=document.id,
                        row=None,
                        reason=SUPERSEDED,
                        counts=False,
                    )
                )

    def _keep(self, key: str, row: JournalRow | None, reason: str, file: FoundFile) -> None:
        self._change(SyncAction.KEEP, key, row.document_id if row else None, reason=reason)
        self.plan.files.append(
            ItemResult(
                key=key, name=file.name, outcome=Outcome.SKIPPED, reason=reason, size=file.size
            )
        )

    # Documents whose file is gone

    def _decide_gone(
        self, gone: Mapping[str, JournalRow], renames: Mapping[str, JournalRow]
    ) -> None:
        renamed = {rename.old_key for rename in self.plan.renames}
        blocked = {row.key: key for key, row in renames.items() if row.key not in renamed}
        existing = set(self.find_existing(list(gone)))
        for key in sorted(gone):
            row = gone[key]
            if key in renamed:
                continue
            documents = self._find_gone_documents(row)
            document_id = documents[0] if documents else None
            for other in documents[1:]:
                self._delete(
                    Deletion(key=key, document_id=other, row=None, reason=SUPERSEDED, counts=False)
                )
            if document_id is None:
                self.plan.forgotten.append(key)
            elif row.state is JournalState.TRASHED:
                self._decide_trashed(row, document_id)
            elif key in blocked:
                reason = NEW_NAME_KEPT.format(blocked[key])
                self._change(SyncAction.KEEP, key, document_id, reason=reason)
            elif key in existing and not self.options.delete_excluded:
                self._change(SyncAction.KEEP, key, document_id, reason=EXCLUDED)
            elif self.options.may_delete and not self.options.may_delete(key):
                self._change(SyncAction.KEEP, key, document_id, reason=KEPT_BY_CALLER)
            else:
                self._delete(Deletion(key=key, document_id=document_id, row=row))

    def _find_gone_documents(self, row: JournalRow) -> list[str]:
        """Return the ids of the documents of a file that is gone."""
        if versions := self.documents.find_versions(row):
            return [document.id for document in versions]
        own = self.documents.find_own(row)
        return [] if own is None else [own.document_id]

    def _decide_trashed(self, row: JournalRow, document_id: str) -> None:
        age = self.options.empty_trash
        since = float(row.reason) if row.reason else self.now
        if age is not None and self.now - since >= age:
            reason = "in the trash for longer than empty_trash"
            self._delete(Deletion(key=row.key, document_id=document_id, row=row, reason=reason))

    def _delete(self, deletion: Deletion) -> None:
        if self.options.delete == "keep" and deletion.counts:
            self._change(SyncAction.KEEP, deletion.key, deletion.document_id, reason=KEEP_ALL)
            return
        document = self.documents.find(deletion.document_id)
        if document is not None and self.options.delete in {"disable", "archive"}:
            off = DISABLED_BY_HAND if not document.enabled else ARCHIVED_BY_HAND
            if deletion.reason is None and (not document.enabled or document.is_archived):
                self._change(SyncAction.KEEP, deletion.key, document.id, reason=off)
                return
        self.plan.deletions.append(evolve(deletion, document=document))
        self._change(SyncAction.DELETE, deletion.key, deletion.document_id, reason=deletion.reason)

    def _add_leftovers(self) -> None:
        for document in self.ownership.leftovers:
            self._delete(
                Deletion(
                    key=document.name,
                    document_id=document.id,
                    row=None,
                    reason=SUPERSEDED,
                    counts=False,
                )
            )

    def _add_foreign(self) -> None:
        deleted = {deletion.document_id for deletion in self.plan.deletions}
        adopted = {row.document_id for row in self.plan.adopted}
        for document in self.documents:
            if document.id in deleted or document.id in adopted:
                continue
            if self.ownership.is_foreign(document):
                self.plan.foreign += 1
                self.plan.foreign_ids.add(document.id)
                self._change(SyncAction.FOREIGN, document.name, document.id)

    def _change(
        self,
        action: SyncAction,
        key: str,
        document_id: str | None = None,
        *,
        old_key: str | None = None,
        reason: str | None = None,
    ) -> None:
        self.plan.changes.append(
            SyncChange(
                action=action, key=key, document_id=document_id, old_key=old_key, reason=reason
            )
        )


@frozen
class _Keyed:
    planned: PlannedFile | ItemResult

    @property
    def key(self) -> str:
        planned = self.planned
        return planned.key if isinstance(planned, ItemResult) else planned.found.key
