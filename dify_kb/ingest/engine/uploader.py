"""Send a planned file: read it, record the intent, create its document."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.ingest.journal import (
    Journal,
    JournalBusyError,
    JournalRow,
    JournalState,
)
from dify_kb.ingest.metadata.collect_metadata import ResolvedMetadata
from dify_kb.ingest.sources.file_content import (
    FileContent,
    is_small,
    read_content,
    require_unchanged,
)
from dify_kb.models import UNSET, Dataset, DocForm, ProcessRule, Unset
from dify_kb.resources import Documents
from dify_kb.transport.clock import loop_time
from dify_kb.transport.thread_batch import run_in_batch, run_in_thread

from .ledger import DeletedCharactersWarning
from .tracked_file import UploadedDocument, latest_server_time

if TYPE_CHECKING:
    from dify_kb.ingest.planning.file_plan import PlannedFile
    from dify_kb.models import CreatedDocument

    from .tracked_file import TrackedFile


@define(kw_only=True)
class Uploader:
    """Uploader of planned files, shared by the workers.

    The process rule is sent with the first document only: the server stores another copy for
    each create request that contains it (dataset_service, 1.12.1).
    """

    documents: Documents
    journal: Journal
    dataset: Dataset
    process_rule: ProcessRule | Unset
    doc_form: DocForm | Unset
    fingerprint: str
    swaps: bool
    protects_others: bool
    """Whether a document that another client made meanwhile is not replaced by a new file."""

    deleted_characters: DeletedCharactersWarning
    _first_upload: anyio.Lock = field(factory=anyio.Lock)
    _rule_sent: anyio.Event = field(factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        if self.process_rule is UNSET:
            self._rule_sent.set()

    async def send(self, file: TrackedFile) -> UploadedDocument:
        """Create the document of a file.

        Raises:
            SourceChangedError: the file changed while it was read or sent.
            SourceError: the file could not be read.
            NameTakenError: another key of the journal has the same document name.
            JournalError: the intent could not be recorded, so nothing was sent.
            OutcomeUnknownError: the server may have stored the document.
            KnowledgeError: the connection or the server failed, or the server refused the file.
        """
        content, metadata = await self._read_and_record(file)
        try:
            if content.file is not file.planned.found:
                file.planned = evolve(file.planned, found=content.file)
            if metadata is not None:
                file.planned = evolve(
                    file.planned,
                    metadata=metadata.values,
                    labels=metadata.labels,
                    warnings=metadata.warnings,
                )
            file.content, file.is_marked = content.digest, False
            file.token = None if content.file.source is None else content.token
            if not file.attempts:
                self.deleted_characters.add(file.key, content.deleted_characters)
            started = loop_time()
            created = await self._create(file, content)
            if not isinstance(content.data, bytes):
                await run_in_thread(require_unchanged, content)
        finally:
            content.close()
        document, now = created.document, loop_time()
        stored = document.upload_file
        replaced = file.planned.replaces is not None and not self.swaps
        return UploadedDocument(
            id=document.id,
            batch=created.batch,
            upload_file_id=stored.id if stored else None,
            seconds=now - started,
            accepted_at=now,
            queued_at=latest_server_time(time.time()) if replaced else document.created_at,
        )

    async def _read_and_record(
        self, file: TrackedFile
    ) -> tuple[FileContent, ResolvedMetadata | None]:
        """Read a file and record the intent to send it: in one thread call for a small file."""
        found, read = file.planned.found, list[tuple[FileContent, ResolvedMetadata | None]]()

        def row() -> JournalRow:
            read.append(_read_with_metadata(file.planned))
            return self._row(file, *read[0])

        if is_small(found):
            try:
                await self.journal.record_intent(row)
            except JournalBusyError:  # on slow storage, files are read concurrently
                pass
            else:
                return read[0]
        run = run_in_batch if found.source is None else run_in_thread
        content, metadata = await run(_read_with_metadata, file.planned)
        try:
            await self.journal.record_intent(self._row(file, content, metadata))
        except BaseException:
            content.close()
            raise
        return content, metadata

    def _row(
        self, file: TrackedFile, content: FileContent, metadata: ResolvedMetadata | None
    ) -> JournalRow:
        found, replaces = content.file, file.planned.replaces
        return JournalRow(
            key=found.key,
            name=file.planned.name,
            size=found.size,
            token=content.token,
            content=content.digest,
            rule=self.fingerprint,
            labels="" if metadata is None else str(metadata.labels.without_values()),
            state=JournalState.SENDING,
            attempts=file.attempts + 1,
            sent_at=time.time(),
            previous=replaces.upload_file_id if replaces else None,
            document_id=None,
            batch=None,
            upload_file_id=None,
            reason=None,
        )

    async def _create(self, file: TrackedFile, content: FileContent) -> CreatedDocument:
        if not self._rule_sent.is_set():
            async with self._first_upload:
                if not self._rule_sent.is_set():
                    created = await self._send(file, content, self.process_rule)
                    self._rule_sent.set()
                    return created
        return await self._send(file, content, UNSET)

    async def _send(
        self, file: TrackedFile, content: FileContent, rule: ProcessRule | Unset
    ) -> CreatedDocument:
        return await self.documents.create_by_file(
            self.dataset.id,
            content.data,
            name=file.planned.name,
            indexing_technique=self.dataset.indexing_technique or UNSET,
            doc_form=self.doc_form or self.dataset.doc_form or UNSET,
            process_rule=rule,
            duplicate=self._replaces_same_name(file),
        )

    def _replaces_same_name(self, file: TrackedFile) -> bool:
        """Return whether the server replaces a document with the name of the file.

        If a new file is sent again, that may be the document of an earlier attempt.
        """
        if file.planned.replaces is not None:
            return not self.swaps
        return file.attempts > 0 or not self.protects_others


def _read_with_metadata(planned: PlannedFile) -> tuple[FileContent, ResolvedMetadata | None]:
    """Return the content of a file, and its metadata unless it is complete. Blocking.

    Raises:
        SourceError: the file cannot be read.
    """
    content = read_content(planned.found)
    if planned.unread is None:
        return content, None
    try:
        metadata = planned.unread.resolve(content)
        removed = metadata.labels.removed
        return content.without_head(removed) if removed else content, metadata
    except BaseException:
        content.close()
        raise
