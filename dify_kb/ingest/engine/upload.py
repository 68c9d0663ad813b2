"""Planned files become documents: one send of one file, noted before and after."""

from __future__ import annotations

import time

import anyio
from attrs import define, field, frozen

from dify_kb.ingest.journal import Journal, LateError, Row, State
from dify_kb.ingest.planning.plan import Planned
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.ingest.sources.content import Content, content_of, settled_mtime, small
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    DocumentCreated,
    IndexingStatus,
    ProcessRule,
    Unset,
)
from dify_kb.resources import Documents
from dify_kb.transport.thread_batch import run_in_batch


@frozen(kw_only=True)
class UploadedDocument:
    """An accepted document. `batch` is None when its answer was lost and it was found by name."""

    planned: Planned
    attempts: int
    document_id: str
    batch: str | None
    upload_file_id: str | None
    seconds: float
    accepted_at: float
    updated: bool
    reconciled: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def done(self) -> Outcome:
        """Its outcome when all goes well."""
        return Outcome.UPDATED if self.updated else Outcome.ADDED

    @property
    def remote(self) -> RemoteDocument:
        """The document as it is once its indexing has failed."""
        return RemoteDocument(
            document_id=self.document_id,
            enabled=True,
            status=IndexingStatus.ERROR,
            upload_file_id=self.upload_file_id,
        )

    def ended(
        self,
        outcome: Outcome,
        *,
        reason: str | None = None,
        error: str | None = None,
        index: float | None = None,
    ) -> ItemResult:
        """Tell how it ended."""
        timings = {"upload": self.seconds}
        return ItemResult(
            key=self.planned.found.key,
            name=self.planned.name,
            outcome=outcome,
            reason=reason,
            document_id=self.document_id,
            batch=self.batch,
            size=self.planned.found.size,
            attempts=self.attempts,
            reconciled=self.reconciled,
            warnings=self.warnings,
            error=error,
            timings=timings if index is None else {**timings, "index": index},
        )


def not_sent(planned: Planned, outcome: Outcome, reason: str) -> ItemResult:
    """End a planned file that is not on the server, or not known to be."""
    return ItemResult(
        key=planned.found.key,
        name=planned.name,
        outcome=outcome,
        reason=reason,
        size=planned.found.size,
        attempts=planned.attempts,
        error=reason,
    )


@define
class Uploader:
    """Sends one planned file for each of its callers.

    The process rule goes with the first document alone: each further one that carries it makes
    the server store the rule again (dataset_service, 1.12.1).
    """

    _documents: Documents
    _journal: Journal
    _dataset: Dataset
    _rule: ProcessRule | Unset
    _doc_form: DocForm | Unset
    _fingerprint: str
    _first: anyio.Lock = field(factory=anyio.Lock)
    _ruled: anyio.Event = field(factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        if self._rule is UNSET:
            self._ruled.set()

    async def send(self, planned: Planned) -> UploadedDocument:
        """Create the document of one file; `planned.attempts` counts the sends before this one.

        Raises:
            SourceError: the file could not be read.
            NameTakenError: another key of the journal has its name.
            JournalError: the intent could not be noted, so nothing was sent.
            OutcomeUnknownError: the server may have it.
            KnowledgeError: the server or the way to it failed, or refused.
        """
        content = await self._noted(planned)
        started = anyio.current_time()
        created = await self._created(planned, content)
        document, now = created.document, anyio.current_time()
        file = document.upload_file
        sent = UploadedDocument(
            planned=planned,
            attempts=planned.attempts + 1,
            document_id=document.id,
            batch=created.batch,
            upload_file_id=file.id if file else None,
            seconds=now - started,
            accepted_at=now,
            updated=planned.replaces is not None and not planned.added,
        )
        self.accepted(sent)
        return sent

    async def _noted(self, planned: Planned) -> Content:
        """Read a file and note that it is about to be sent, in one hop where that is quick."""
        found, read = planned.found, list[Content]()

        def row() -> Row:
            read.append(content_of(found))
            return self._row(planned, read[0])

        if small(found):
            try:
                await self._journal.intend(row)
            except LateError:  # on slow storage, files are read beside each other
                pass
            else:
                return read[0]
        content = await run_in_batch(content_of, found)
        await self._journal.intend(self._row(planned, content))
        return content

    def accepted(self, sent: UploadedDocument) -> None:
        """Note a document that the server has."""
        key = sent.planned.found.key
        self._journal.accept(key, sent.document_id, sent.batch, sent.upload_file_id)

    def _row(self, planned: Planned, content: Content) -> Row:
        found = planned.found
        return Row(
            key=found.key,
            name=planned.name,
            size=found.size,
            mtime_ns=settled_mtime(found),
            content=content.digest,
            rule=self._fingerprint,
            labels="",
            state=State.SENDING,
            attempts=planned.attempts + 1,
            sent_at=time.time(),
            previous=planned.replaces.upload_file_id if planned.replaces else None,
            document_id=None,
            batch=None,
            upload_file_id=None,
            reason=None,
        )

    async def _created(self, planned: Planned, content: Content) -> DocumentCreated:
        if not self._ruled.is_set():
            async with self._first:
                if not self._ruled.is_set():
                    created = await self._create(planned, content, self._rule)
                    self._ruled.set()
                    return created
        return await self._create(planned, content, UNSET)

    async def _create(
        self, planned: Planned, content: Content, rule: ProcessRule | Unset
    ) -> DocumentCreated:
        return await self._documents.create_by_file(
            self._dataset.id,
            content.data,
            name=planned.name,
            indexing_technique=self._dataset.indexing_technique or UNSET,
            doc_form=self._doc_form or self._dataset.doc_form or UNSET,
            process_rule=rule,
        )
