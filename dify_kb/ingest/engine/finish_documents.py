"""Finish indexed documents: set metadata, delete replaced versions, archive documents again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
from attrs import define

from dify_kb.errors import KnowledgeError, NotFoundError
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.report import Outcome
from dify_kb.resources import Documents
from dify_kb.resources.metadata_assignment import MetadataAssignment
from dify_kb.resources.metadata_validation import AssignableValue

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent, FileState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tracked_file import TrackedFile


@define
class MetadataAssigner:
    """Worker that sets the metadata of all queued documents in one call.

    The fields of a sync are set as soon as a document exists, so that another machine knows it.
    """

    assignment: MetadataAssignment
    breaker: CircuitBreaker
    files: FileLifecycle

    async def run(self) -> None:
        """Set metadata until cancelled.

        Raises:
            KnowledgeError: the server refused a request, or the load gave up on it.
        """
        while True:
            await self._assign(await self.files.metadata.get_all())

    async def _assign(self, files: Sequence[TrackedFile]) -> None:
        by_id = {
            file.document.id: file
            for file in files
            if file.document is not None and file.state in {FileState.ACCEPTED, FileState.INDEXED}
        }
        indexed = {key for key, file in by_id.items() if file.state is FileState.INDEXED}
        wanted = dict[str, Mapping[str, AssignableValue]]()
        fresh = {
            document_id
            for document_id, file in by_id.items()
            if file.expected_outcome is Outcome.ADDED and not file.is_marked
        }

        async def assign() -> Mapping[str, str | None]:
            for document_id, file in by_id.items():
                values: dict[str, AssignableValue] = {**file.sync_fields}
                if document_id in indexed:
                    values |= {**file.planned.kept_metadata, **file.planned.metadata}
                wanted[document_id], file.refused_metadata = await self.assignment.convert(values)
            return await self.assignment.assign(wanted, fresh=fresh)

        # Setting metadata is idempotent and can be retried like a read.
        reasons = await self.breaker.read(assign)
        for document_id, file in by_id.items():
            reason = reasons[document_id]
            file.is_marked = file.is_marked or reason is None
            if document_id not in indexed:
                continue
            if reason is None:
                file.metadata_set = True
                self.files.ledger.metadata_set += bool(
                    file.planned.metadata and wanted[document_id]
                )
                self.files.apply(file, FileEvent.METADATA_SET)
            else:
                message = f"indexed, but its metadata could not be set: {reason}"
                self.files.apply(file, FileEvent.METADATA_REFUSED, message)


@define
class ReplacementFinisher:
    """Worker that finishes replacements one at a time: Dify has no bulk delete.

    A delete takes 15 to 25 ms. A failure becomes a warning of the file, because its new version is
    indexed.
    """

    documents: Documents
    dataset_id: str
    lookup: DocumentLookup
    breaker: CircuitBreaker
    files: FileLifecycle
    waits: tuple[float, ...]
    """Seconds between attempts to archive a document."""

    async def run(self) -> None:
        """Finish queued replacements until cancelled."""
        while True:
            for file in await self.files.replacements.get_all():
                if file.state is FileState.DISCARDING:
                    await self._discard(file)
                elif file.state is FileState.REPLACING:
                    await self._finish(file)

    async def _discard(self, file: TrackedFile) -> None:
        """Delete a new version that failed; the old version is kept."""
        if file.document is not None:
            await self._delete(file, file.document.id)
        self.files.apply(file, FileEvent.DELETED, file.failure)

    async def _finish(self, file: TrackedFile) -> None:
        existing, document = file.planned.replaces, file.document
        if document is not None and document.remembered:
            await self._finish_remembered(file, document.id)
        elif existing is not None and file.is_new_version:
            await self._delete(file, existing.document_id, archived=existing.archived)
        if existing is not None and existing.archived and document is not None:
            await self._archive(file, document.id)
        self.files.apply(file, FileEvent.REPLACED)

    async def _finish_remembered(self, file: TrackedFile, document_id: str) -> None:
        """Delete the old version that an interrupted run has left. Costs one lookup."""
        name, row = file.planned.name, file.planned.row
        try:
            documents = await self.breaker.read(lambda: self.lookup.find_all(name))
        except KnowledgeError as error:
            file.warnings += (f"the old version could not be looked up: {error.summary}",)
            return
        for document in documents:
            stored = document.upload_file
            old = stored is not None and row is not None and stored.id == row.previous
            if old and document.id != document_id:
                await self._delete(file, document.id)

    async def _delete(self, file: TrackedFile, document_id: str, *, archived: bool = False) -> None:
        async def delete() -> None:
            if archived:  # an archived document cannot be deleted
                await self.documents.unarchive(self.dataset_id, [document_id])
            with contextlib.suppress(NotFoundError):
                await self.documents.delete(self.dataset_id, document_id)

        try:
            await self.breaker.read(delete)  # safe to repeat: ids are never reused
        except KnowledgeError as error:
            file.warnings += (f"document {document_id} could not be deleted: {error.summary}",)

    async def _archive(self, file: TrackedFile, document_id: str) -> None:
        """Archive a replaced document again.

        It is still marked as archived but searchable, so that it has to be unarchived first
        (measured on 1.4.3, 1.12.1 and 1.14.2).
        """

        async def switch() -> None:
            await self.documents.unarchive(self.dataset_id, [document_id])
            await self.documents.archive(self.dataset_id, [document_id])

        refusal = ""
        # Dify refuses another switch until the task of the last one has run.
        for wait in self.waits:
            try:
                await self.breaker.read(switch)
            except KnowledgeError as error:
                refusal = error.summary
                await anyio.sleep(wait)
            else:
                return
        file.warnings += (f"document {document_id} could not be archived again: {refusal}",)
