"""Send one file: read it, record the intent, create its document, record the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.ingest.journal import Journal, LateError, Row, State
from dify_kb.ingest.sources.content import Content, is_small, read_content, require_unchanged
from dify_kb.models import UNSET, Dataset, DocForm, ProcessRule, Unset
from dify_kb.resources import Documents
from dify_kb.transport.clock import loop_time
from dify_kb.transport.thread_batch import run_in_batch

from .ledger import DeletedCharacters
from .tracked_file import UploadedDocument, latest_server_time

if TYPE_CHECKING:
    from dify_kb.models import DocumentCreated

    from .tracked_file import TrackedFile


@define(kw_only=True)
class Uploader:
    """Sends one planned file for each of its callers.

    The process rule goes with the first document alone: each further one that carries it makes
    the server store the rule again (dataset_service, 1.12.1).
    """

    documents: Documents
    journal: Journal
    dataset: Dataset
    process_rule: ProcessRule | Unset
    doc_form: DocForm | Unset
    fingerprint: str
    swaps: bool
    deleted_characters: DeletedCharacters
    _first: anyio.Lock = field(factory=anyio.Lock)
    _ruled: anyio.Event = field(factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        if self.process_rule is UNSET:
            self._ruled.set()

    async def send(self, file: TrackedFile) -> UploadedDocument:
        """Create the document of one file.

        Raises:
            SourceChangedError: the file changed while it was read or sent.
            SourceError: the file could not be read.
            NameTakenError: another key of the journal has its name.
            JournalError: the intent could not be recorded, so nothing was sent.
            OutcomeUnknownError: the server may have it.
            KnowledgeError: the server or the way to it failed, or refused.
        """
        content = await self._read_and_record(file)
        if content.file is not file.planned.found:
            file.planned = evolve(file.planned, found=content.file)
        if not file.attempts:
            self.deleted_characters.add(file.key, content.deleted_characters)
        started = loop_time()
        created = await self._create(file, content)
        if not isinstance(content.data, bytes):
            await anyio.to_thread.run_sync(require_unchanged, content)
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

    async def _read_and_record(self, file: TrackedFile) -> Content:
        """Read a file and record that it is about to be sent, in one hop where that is quick."""
        found, read = file.planned.found, list[Content]()

        def row() -> Row:
            read.append(read_content(found))
            return self._row(file, read[0])

        if is_small(found):
            try:
                await self.journal.intend(row)
            except LateError:  # on slow storage, files are read beside each other
                pass
            else:
                return read[0]
        content = await run_in_batch(read_content, found)
        await self.journal.intend(self._row(file, content))
        return content

    def _row(self, file: TrackedFile, content: Content) -> Row:
        found, stamp, replaces = content.file, content.stamp, file.planned.replaces
        return Row(
            key=found.key,
            name=file.planned.name,
            size=found.size,
            mtime_ns=stamp.mtime_ns if stamp else None,
            ctime_ns=stamp.ctime_ns if stamp else None,
            inode=stamp.inode if stamp else None,
            content=content.digest,
            rule=self.fingerprint,
            labels="",
            state=State.SENDING,
            attempts=file.attempts + 1,
            sent_at=time.time(),
            previous=replaces.upload_file_id if replaces else None,
            document_id=None,
            batch=None,
            upload_file_id=None,
            reason=None,
        )

    async def _create(self, file: TrackedFile, content: Content) -> DocumentCreated:
        if not self._ruled.is_set():
            async with self._first:
                if not self._ruled.is_set():
                    created = await self._send(file, content, self.process_rule)
                    self._ruled.set()
                    return created
        return await self._send(file, content, UNSET)

    async def _send(
        self, file: TrackedFile, content: Content, rule: ProcessRule | Unset
    ) -> DocumentCreated:
        return await self.documents.create_by_file(
            self.dataset.id,
            content.data,
            name=file.planned.name,
            indexing_technique=self.dataset.indexing_technique or UNSET,
            doc_form=self.doc_form or self.dataset.doc_form or UNSET,
            process_rule=rule,
            duplicate=not (self.swaps and file.planned.replaces is not None),
        )
