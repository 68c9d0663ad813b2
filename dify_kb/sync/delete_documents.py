"""Delete the documents of a sync, or take them out of retrieval, and finish renames."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.config import LoadTiming
from dify_kb.errors import KnowledgeError, NotFoundError
from dify_kb.ingest.journal import Journal, JournalRow, JournalState
from dify_kb.ingest.metadata.labels import Labels
from dify_kb.ingest.metadata.sync_fields import SyncFields
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.resources import Documents
from dify_kb.resources.metadata_assignment import MetadataAssignment
from dify_kb.transport.clock import loop_time

from .sync_options import SyncOptions
from .sync_report import SyncAction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from dify_kb.models import Document

    from .sync_plan import Deletion, Rename, SyncPlan

NOT_FINAL = "still being indexed; the next sync deletes it"


@define(kw_only=True)
class DocumentDeleter:
    """Deletes documents one by one: Dify has no bulk delete. A delete takes 15 to 25 ms."""

    documents: Documents
    dataset_id: str
    assignment: MetadataAssignment | None
    """Writes the fields of the sync; None if its state is only in the journal."""

    sync_id: str
    journal: Journal
    breaker: CircuitBreaker
    options: SyncOptions
    times: LoadTiming
    deleted: int = 0
    renamed: int = 0
    _in_place: set[str] = field(factory=set)
    """The new keys of the documents that were renamed in place."""

    async def restore(self, row: JournalRow) -> None:
        """Restore a document that an earlier sync has put into the trash."""
        document_id = row.document_id or ""
        document = await self._find(row.name, document_id)
        if document is not None and document.is_archived:
            await self._switch(lambda: self.documents.unarchive(self.dataset_id, [document_id]))
        if document is not None and not document.enabled:
            await self._switch(lambda: self.documents.enable(self.dataset_id, [document_id]))
        await self._record(row, JournalState.DONE, trashed=None)

    async def rename_in_place(self, plan: SyncPlan) -> None:
        """Rename the documents of renamed files, and let the load follow their indexing.

        Those that the server does not rename, such as disabled ones, are made anew by the load.
        """
        for rename in plan.renames:
            document, row = rename.document, rename.row
            place = next(
                place
                for place, one in enumerate(plan.files)
                if isinstance(one, PlannedFile) and one.found.key == rename.key
            )
            planned = plan.files[place]
            if document is None or not isinstance(planned, PlannedFile):
                continue
            try:
                await self.documents.rename(self.dataset_id, document.id, planned.name)
            except KnowledgeError:
                continue
            self._in_place.add(rename.key)
            self.journal.move(row.key, rename.key, planned.name)
            self.journal.record_state(rename.key, JournalState.ACCEPTED, labels=row.labels)
            moved = evolve(row, key=rename.key, name=planned.name, state=JournalState.ACCEPTED)
            plan.files[place] = evolve(
                planned,
                action=PlannedAction.FOLLOW,
                row=moved,
                is_unchanged=True,
                kept_metadata={},
                labels=Labels.parse(row.labels),
            )
        await self.journal.flush()

    async def finish_renames(self, plan: SyncPlan, done: Collection[str]) -> None:
        """Switch the documents of renamed files as the old ones were, and delete the old ones.

        Args:
            done: the new keys whose documents are indexed.
        """
        for rename in plan.renames:
            if rename.key not in done:
                continue
            if rename.key in self._in_place:
                self.renamed += 1
                continue
            error = await self._finish_rename(rename)
            if error is None:
                self.renamed += 1
            else:
                _change_reason(plan, rename.row.document_id, SyncAction.RENAME, error)

    async def _finish_rename(self, rename: Rename) -> str | None:
        """Finish a rename; return why the old document could not be deleted, or None."""
        old, new = rename.document, self.journal.get_rows([rename.key])[rename.key]
        try:
            if old is not None and new.document_id is not None:
                ids = [new.document_id]
                if not old.enabled:
                    await self._switch(lambda: self.documents.disable(self.dataset_id, ids))
                if old.is_archived:
                    await self._switch(lambda: self.documents.archive(self.dataset_id, ids))
            await self._delete(rename.row.document_id or "", old)
        except KnowledgeError as error:
            return f"the old document could not be deleted: {error.summary}"
        self.journal.forget(rename.old_key)
        return None

    async def delete_versions(self, plan: SyncPlan) -> None:
        """Delete the other versions of files whose replacement an earlier run did not finish.

        The load deletes those that it knows of; these may be older.
        """
        for key, versions in plan.versions.items():
            row = self.journal.get_rows([key]).get(key)
            if row is None or row.state is not JournalState.DONE:
                continue
            for document in versions:
                if document.id != row.document_id:
                    with contextlib.suppress(KnowledgeError):  # the next sync tries again
                        await self._wait_final(document.name, document.id)
                        await self._delete(document.id, document)

    async def delete_all(self, plan: SyncPlan) -> None:
        """Delete the documents of a plan; keep those back that the server refuses to delete."""
        for deletion in plan.deletions:
            try:
                reason = await self._remove(deletion)
            except KnowledgeError as error:
                reason = error.summary
            if reason is None:
                self.deleted += 1
            else:
                _change_reason(plan, deletion.document_id, SyncAction.DELETE, reason)

    async def _remove(self, deletion: Deletion) -> str | None:
        """Delete a document, or take it out of retrieval; return why it is kept, or None."""
        row, document_id = deletion.row, deletion.document_id
        name = deletion.key if row is None else row.name
        document = deletion.document
        if document is None or not document.indexing_status.is_final:
            document = await self._wait_final(name, document_id)
            if document is not None and not document.indexing_status.is_final:
                return NOT_FINAL
        if row is None or deletion.reason is not None or self.options.delete == "delete":
            await self._delete(document_id, document)
            if row is not None:
                self.journal.forget(row.key)
            return None
        switch = (
            self.documents.archive if self.options.delete == "archive" else self.documents.disable
        )
        await self._switch(lambda: switch(self.dataset_id, [document_id]))
        await self._record(row, JournalState.TRASHED, trashed=int(time.time()))
        return None

    async def _wait_final(self, name: str, document_id: str) -> Document | None:
        """Wait until the indexing of a document has ended or stalls; return it, None if deleted.

        Deleting a document while it is split leaves its chunks in the database for ever (measured
        on 1.14.2). Costs one request if it has ended.
        """
        since, status = loop_time(), ""
        for attempt in itertools.count():
            document = await self._find(name, document_id)
            if document is None or document.indexing_status.is_final:
                return document
            if status != document.indexing_status:
                since, status = loop_time(), str(document.indexing_status)
            if loop_time() - since > self.options.load.stall_after:
                return document
            waits = self.times.lookup_intervals
            await anyio.sleep(waits[min(attempt, len(waits) - 1)])
        raise AssertionError

    async def _find(self, name: str, document_id: str) -> Document | None:
        lookup = DocumentLookup(self.documents, self.dataset_id)
        rows = await self.breaker.read(lambda: lookup.find_all(name))
        return next((row for row in rows if row.id == document_id), None)

    async def _delete(self, document_id: str, document: Document | None) -> None:
        """Delete a document. Archived ones cannot be deleted: they are unarchived first."""

        async def delete() -> None:
            with contextlib.suppress(NotFoundError):
                await self.documents.delete(self.dataset_id, document_id)

        if document is not None and document.is_archived:
            await self._switch(lambda: self.documents.unarchive(self.dataset_id, [document_id]))
        await self.breaker.read(delete)  # safe to repeat: ids are never reused

    async def _switch(self, switch: Callable[[], Awaitable[None]]) -> None:
        """Switch a document; the server refuses until the task of the last switch has run."""
        waits = iter(self.times.lookup_intervals)
        while True:
            try:
                await self.breaker.read(switch)
            except KnowledgeError:
                wait = next(waits, None)
                if wait is None:
                    raise
                await anyio.sleep(wait)
            else:
                return

    async def _record(self, row: JournalRow, state: JournalState, *, trashed: int | None) -> None:
        reason = None if trashed is None else str(trashed)
        self.journal.record_state(row.key, state, reason=reason, labels=row.labels)
        if self.assignment is None or row.document_id is None:
            return
        fields = SyncFields(
            sync_id=self.sync_id,
            key=row.key,
            content=row.content,
            token=row.token,
            rule=row.rule,
            labels=row.labels,
            trashed=trashed,
        )
        values = {row.document_id: fields.values()}
        assignment = self.assignment
        await self.breaker.read(lambda: assignment.assign(values))


def _change_reason(
    plan: SyncPlan, document_id: str | None, action: SyncAction, reason: str
) -> None:
    plan.changes = [
        evolve(change, action=SyncAction.KEEP, reason=reason)
        if change.action is action and change.document_id == document_id
        else change
        for change in plan.changes
    ]
