"""Create one document again with exactly its chunks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from attrs import define, evolve, field, frozen

from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConfigError,
    ConflictError,
    KnowledgeError,
    NotFoundError,
    OutcomeUnknownError,
    PartialError,
    TooLargeError,
    UnsupportedTypeError,
)
from dify_kb.ingest.error_classification import is_transient
from dify_kb.models import (
    UNSET,
    CreatedDocument,
    Dataset,
    DocForm,
    IndexingStatus,
    ProcessRule,
    Segment,
)
from dify_kb.transport.clock import loop_time
from dify_kb.transport.retry import may_have_arrived

from .archive_session import ArchiveSession, delete_document
from .read_archive import ArchiveReader
from .read_dataset import DatasetReader
from .restore_chunks import ChunkRestorer, RestoreError
from .restore_plan import (
    MAX_NAME,
    RestoreMethod,
    can_upload_text,
    choose_method,
    count_losses,
    is_file_name,
    is_repairable,
    join_chunks,
    needs_upload,
    read_rule,
    remove_nul,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .archived_document import ArchivedDocument

TEMPORARY_NAME: Final = "dify-kb import, temporary "
"""Beginning of the names of documents that an import renames or deletes at once."""

_REFUSALS = (BadRequestError, ConflictError, TooLargeError, UnsupportedTypeError)


@frozen
class RestoredDocument:
    """A document that was created."""

    id: str
    method: RestoreMethod
    losses: Sequence[str]


@define(kw_only=True)
class DocumentRestorer:
    """Creates documents in a dataset.

    A document in flight whose outcome is unknown is looked up by its name, deleted, and created
    from the beginning; deletion in any state is clean (measured on 1.4.3, 1.12.1 and 1.14.2).
    """

    session: ArchiveSession
    dataset: Dataset
    archive: ArchiveReader
    random: Random
    duplicates: frozenset[str]
    """Names that several documents have."""

    foreign_ids: Callable[[], set[str]]
    """Returns the ids of documents that must not be deleted."""

    keeps_keywords: bool = True
    recut_rule: ProcessRule | None = None
    """The rule by which originals are split anew; None restores the archived chunks."""

    stall_after: float = 900.0
    _duplicates_lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def restore(self, document: ArchivedDocument) -> RestoredDocument:
        """Create a document.

        Raises:
            RestoreError: the server rejects it, or its indexing failed.
            KnowledgeError: a failure of the server as a whole.
        """
        sends = self.session.setup.server.policy.load_timing.max_sends
        duplicate = document.name in self.duplicates
        async with self._duplicates_lock if duplicate else nullcontext():
            for attempt in range(1, sends + 1):
                try:
                    return await self._restore_once(document, duplicate=duplicate)
                except (OutcomeUnknownError, PartialError) as error:
                    cause = error.__cause__ if isinstance(error, PartialError) else error
                    if isinstance(cause, ApiError) and not is_transient(cause):
                        raise RestoreError(error.summary) from error
                    await self._discard(document.name, document.id)
                    if attempt == sends:
                        raise RestoreError(error.summary) from error
                except NotFoundError as error:
                    await self.session.read(lambda: self.session.datasets.get(self.dataset))
                    await self._discard(document.name, document.id)
                    if attempt == sends:
                        raise RestoreError(error.summary) from error
                except (ConfigError, *_REFUSALS) as error:
                    await self._discard(document.name, document.id)
                    raise RestoreError(error.summary) from error
        raise AssertionError  # the loop returns or raises

    async def _restore_once(
        self, document: ArchivedDocument, *, duplicate: bool
    ) -> RestoredDocument:
        losses = count_losses(document, keeps_keywords=self.keeps_keywords)
        document = remove_nul(document)
        method = choose_method(document, use_file=True)
        created, existing = None, None
        if method is RestoreMethod.FILE:
            created = await self._create_from_file(document, duplicate=duplicate)
            existing = None if created is None else await self._read_repairable(document, created)
            if created is not None and existing is None:
                await delete_document(self.session, self.dataset, created.document.id)
                created = None
        if created is None:
            method = choose_method(document, use_file=False)
            created = await self._create_from_chunks(document, method, duplicate=duplicate)
            await self._wait(created)
            if document.file and document.file.size:
                losses["original files"] = 1
            if self.recut_rule is not None:
                losses["originals to split anew"] = 1
        if len(document.name) > MAX_NAME and method is not RestoreMethod.FILE:
            losses["long names"] = 1
        if self.recut_rule is None:
            if existing is None and method is RestoreMethod.JOINED:
                existing = await self._read_segments(document, created)
            losses |= await self._complete(document, created.document.id, existing or ())
        return RestoredDocument(created.document.id, method, [*losses])

    async def _read_repairable(
        self, document: ArchivedDocument, created: CreatedDocument
    ) -> Sequence[Segment] | None:
        """Return the chunks of an original; None if its indexing failed, or most differ."""
        if not await self._wait(created, tolerates_error=True):
            return None
        if self.recut_rule is not None:
            return ()
        existing = await self._read_segments(document, created)
        contents = [segment.content for segment in existing]
        return existing if is_repairable(document, contents) else None

    async def _read_segments(
        self, document: ArchivedDocument, created: CreatedDocument
    ) -> Sequence[Segment]:
        reader = DatasetReader(self.session, self._target(document))
        return await reader.read_segments(created.document.id)

    async def _create_from_chunks(
        self, document: ArchivedDocument, method: RestoreMethod, *, duplicate: bool
    ) -> CreatedDocument:
        """Create a document without its original."""
        if self.recut_rule is not None:
            text = "\n\n".join(chunk.content for chunk in document.chunks)
            return await self._create_from_text(document, text, duplicate=duplicate)
        if method is RestoreMethod.APPENDED:
            return await self._create_from_text(document, "", duplicate=duplicate)
        joined = join_chunks(document, self.random)
        return await self._create_from_text(
            document, joined.text, rule=joined.rule, duplicate=duplicate
        )

    async def _create_from_file(
        self, document: ArchivedDocument, *, duplicate: bool
    ) -> CreatedDocument | None:
        """Upload the original; None if the server rejects it."""
        if document.file is None:
            return None
        file = self.archive.locate_file(document.file.sha256)
        read = partial(self.archive.read_file, document.file.sha256)
        try:
            if is_file_name(document.name):
                content = await anyio.to_thread.run_sync(read) if file is None else file
                rule = self._rule(document)
                return await self._upload(document, content, rule, duplicate=duplicate)
            text = (await anyio.to_thread.run_sync(read)).decode()
            return await self._create_from_text(document, text, duplicate=duplicate)
        except (*_REFUSALS, UnicodeDecodeError, RestoreError):
            return None

    async def _create_from_text(
        self,
        document: ArchivedDocument,
        text: str,
        *,
        duplicate: bool,
        rule: ProcessRule | None = None,
    ) -> CreatedDocument:
        """Create a document from a text.

        Raises:
            RestoreError: another document has the name, and the server cannot rename documents.
        """
        rule = rule or self._rule(document)
        if needs_upload(document, is_duplicate=duplicate) and can_upload_text(document.name):
            return await self._upload(document, text.encode(), rule, duplicate=duplicate)
        name = document.name[:MAX_NAME]
        # A second document of a name would replace the first: it is renamed while it is new.
        first_name = f"{TEMPORARY_NAME}{document.id}.txt" if duplicate else name
        uploads = self.session.setup.server.uploads
        created = await self._create(
            first_name,
            lambda: uploads.create_by_text(
                self._target(document),
                first_name,
                text,
                doc_form=DocForm(document.form),
                doc_language=document.language or UNSET,
                process_rule=rule,
            ),
        )
        if not duplicate:
            return created
        await self._wait(created)
        return await self._rename(created, name, rule)

    async def _rename(
        self, created: CreatedDocument, name: str, rule: ProcessRule
    ) -> CreatedDocument:
        """Rename a document, which the server then splits again by the same rule.

        Raises:
            RestoreError: the server cannot rename it.
        """
        try:
            return await self.session.documents.rename(
                self.dataset, created.document.id, name, process_rule=rule
            )
        except (ConfigError, *_REFUSALS) as error:
            await delete_document(self.session, self.dataset, created.document.id)
            raise RestoreError(
                f"Several documents are named {name!r}, which is not the name of a file, and the"
                f" server cannot rename documents: {error.summary}"
            ) from error

    async def _upload(
        self,
        document: ArchivedDocument,
        content: bytes | Path,
        rule: ProcessRule,
        *,
        duplicate: bool,
    ) -> CreatedDocument:
        uploads = self.session.setup.server.uploads
        return await self._create(
            document.name,
            lambda: uploads.create_by_file(
                self._target(document),
                content,
                name=document.name,
                doc_form=DocForm(document.form),
                doc_language=document.language or UNSET,
                process_rule=rule,
                duplicate=not duplicate,
            ),
        )

    async def _create(
        self, name: str, send: Callable[[], Awaitable[CreatedDocument]]
    ) -> CreatedDocument:
        """Send a create when the load's limits admit it; again after a failure that made nothing.

        Raises:
            OutcomeUnknownError: the document may exist, or exist soon.
        """
        admission = self.session.admission
        while True:
            await admission.acquire()
            try:
                return await send()
            except OutcomeUnknownError:
                await self._await_late_create(name)
                raise
            except KnowledgeError as error:
                if not is_transient(error):
                    raise
                if may_have_arrived(error):
                    await self._await_late_create(name)
                    raise OutcomeUnknownError(
                        error.summary, endpoint="documents.create", hint=error.hint
                    ) from error
            finally:
                admission.release()

    async def _await_late_create(self, name: str) -> None:
        """Wait until a create without a response has made its document, or no longer can."""
        timing = self.session.setup.server.policy.load_timing
        until = loop_time() + timing.late_create_after_timeout
        intervals = [*timing.lookup_intervals]
        while loop_time() < until and not await self._find(name):  # noqa: ASYNC110 -- a poll
            await anyio.sleep(intervals.pop(0) if len(intervals) > 1 else intervals[0])

    async def _find(self, name: str) -> list[str]:
        """Return the ids of documents with this name that this import may have created."""
        part = max(name.split("\\"), key=len)  # in the server's pattern a backslash escapes
        foreign = self.foreign_ids()

        async def collect_ids() -> list[str]:
            rows = self.session.documents.iter(self.dataset, keyword=part or UNSET)
            return [row.id async for row in rows if row.name == name and row.id not in foreign]

        return await self.session.read(collect_ids)

    async def _discard(self, name: str, document_id: str) -> None:
        """Delete what an attempt left."""
        for each in dict.fromkeys((name, name[:MAX_NAME], f"{TEMPORARY_NAME}{document_id}.txt")):
            for found in await self._find(each):
                await delete_document(self.session, self.dataset, found)

    async def _wait(self, created: CreatedDocument, *, tolerates_error: bool = False) -> bool:
        """Wait until a document is indexed; return whether that succeeded.

        Raises:
            RestoreError: its indexing failed, or makes no progress.
            OutcomeUnknownError: it was replaced or deleted.
        """
        polling = self.session.setup.server.policy.polling
        interval, last, changed = polling.first_interval, None, loop_time()
        while True:
            try:
                (status, *_) = await self.session.read(
                    lambda: self.session.documents.indexing_status(self.dataset, created.batch)
                )
            except NotFoundError as error:
                raise OutcomeUnknownError(
                    "The document was deleted or replaced during the import.",
                    endpoint="documents.indexing_status",
                ) from error
            if status.indexing_status == IndexingStatus.ERROR and not tolerates_error:
                await delete_document(self.session, self.dataset, created.document.id)
                raise RestoreError(f"Indexing failed: {status.error or 'no reason given'}")
            if status.indexing_status.is_final:
                return status.indexing_status != IndexingStatus.ERROR
            if status != last:
                last, changed, interval = status, loop_time(), polling.first_interval
            elif loop_time() - changed > self.stall_after:
                raise RestoreError("Indexing makes no progress.")
            await anyio.sleep(interval)
            interval = min(interval * polling.interval_growth, polling.max_interval)

    async def _complete(
        self, document: ArchivedDocument, document_id: str, existing: Sequence[Segment]
    ) -> dict[str, int]:
        """Compare all chunks with the archived ones and repair what differs; return the losses."""
        chunks = ChunkRestorer(
            session=self.session,
            dataset=self._target(document),
            document=document,
            document_id=document_id,
            random=self.random,
            keeps_keywords=self.keeps_keywords,
        )
        for segment, chunk in zip(existing, document.chunks, strict=False):
            await chunks.repair(segment, chunk)
        for segment in reversed(existing[len(document.chunks) :]):
            await self.session.segments.delete(self.dataset, document_id, segment.id)
        await chunks.append(document.chunks[len(existing) :])
        if document.is_searchable:
            await chunks.disable()
        return dict.fromkeys(chunks.losses, 1)

    def _rule(self, document: ArchivedDocument) -> ProcessRule:
        return self.recut_rule or read_rule(document.rule, document.form)

    def _target(self, document: ArchivedDocument) -> Dataset:
        return evolve(self.dataset, doc_form=DocForm(document.form), document_count=1)
