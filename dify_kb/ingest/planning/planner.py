"""Plan the files of a source in batches by comparing them with the journal and the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import define, evolve, field

from dify_kb.errors import ConfigError, KnowledgeError, SourceError
from dify_kb.ingest.journal import Journal
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.remote_document import AddedDocuments, RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome, refused
from dify_kb.ingest.sources.content import Content, read_content
from dify_kb.ingest.sources.file_stamp import is_same_stamp
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.items import Item
from dify_kb.ingest.sources.reader import SourceReader
from dify_kb.ingest.sources.scan import Rules
from dify_kb.models import Dataset, IndexingStatus
from dify_kb.resources import Documents
from dify_kb.resources.values import Value, checked

from .document_lookup import FEW, DocumentLookup
from .metadata import Metadata, metadata_fingerprint
from .plan import Do, Planned, Wishes, is_journal_complete, plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from dify_kb.ingest.journal import Row

MOST_LOOKUPS = 100
"""Maximum number of unanswered sends of earlier runs that are looked up one by one; if there are
more, the whole dataset is listed."""

PAGE = 200
"""Files per journal query: older versions of SQLite allow 999 values in a statement."""


class ListingError(Exception):
    """The documents of the dataset could not be listed, because of `error`."""

    def __init__(self, error: KnowledgeError) -> None:
        super().__init__(error.summary)
        self.error = error


@define(kw_only=True)
class Planner:
    """Plans every file of a source."""

    journal: Journal
    documents: Documents
    dataset: Dataset
    source: SourceReader
    rules: Rules
    wishes: Wishes
    metadata: Metadata
    checksum: bool
    breaker: CircuitBreaker
    added: AddedDocuments
    _is_listed: bool = False
    """Whether the dataset was listed in this run; otherwise the rows of the journal are trusted."""

    _planned_first: frozenset[str] = frozenset()
    _changed_stamps: list[Content] = field(factory=list)

    async def prepare(self) -> None:
        """List the documents of the dataset, unless the journal already knows all of them.

        It does if the dataset has as many documents as the journal. Documents that an earlier run
        was sending when it was killed are looked up first, with one request each.

        Raises:
            KnowledgeError: the documents could not be listed.
        """
        known = await anyio.to_thread.run_sync(self.journal.files.count_documents)
        unanswered = await anyio.to_thread.run_sync(self.journal.files.count_unanswered)
        if 0 < unanswered <= MOST_LOOKUPS:
            names = await anyio.to_thread.run_sync(self.journal.files.unanswered_names)
            lookup = DocumentLookup(self.documents, self.dataset.id)
            known += sum([await lookup.named(name) is not None for name in names])
            unanswered = 0
        documents = self.dataset.document_count
        if not is_journal_complete(known=known, unsettled=unanswered, documents=documents):
            await self._list_documents()

    async def batches(self) -> AsyncIterator[Sequence[Planned | ItemResult]]:
        """Yield the plans of all files, starting with those whose document is empty because its
        replacement failed.

        Raises:
            ListingError: the documents could not be listed.
        """
        emptied = frozenset(await anyio.to_thread.run_sync(self.journal.files.emptied_keys))
        if emptied and self.source.counted:
            async for batch in self.source.batches(self.rules):
                if found := [item for item in batch if item.key in emptied]:
                    yield await self._plan(found)
            self._planned_first = emptied
        async for batch in self.source.batches(self.rules):
            yield await self._plan([one for one in batch if one.key not in self._planned_first])

    async def _plan(
        self, batch: Sequence[FoundFile | ItemResult]
    ) -> Sequence[Planned | ItemResult]:
        decided = await anyio.to_thread.run_sync(self._plan_pages, batch)
        if not self._is_listed:
            if sum(map(_replaces_unlisted, decided)) > FEW:
                try:
                    await self.breaker.read(self._list_documents)
                except KnowledgeError as error:
                    raise ListingError(error) from error
                decided = await anyio.to_thread.run_sync(self._plan_pages, batch)
            else:
                decided = [_require_lookup(planned) for planned in decided]
        for content in self._changed_stamps:
            stamp = content.stamp
            if stamp is not None:
                self.journal.update_stamp(
                    content.file.key, stamp.mtime_ns, stamp.ctime_ns, stamp.inode
                )
        self._changed_stamps.clear()
        return decided

    def _plan_pages(self, batch: Sequence[FoundFile | ItemResult]) -> list[Planned | ItemResult]:
        pages = [batch[place : place + PAGE] for place in range(0, len(batch), PAGE)]
        return [decided for page in pages for decided in self._plan_page(page)]

    def _plan_page(self, page: Sequence[FoundFile | ItemResult]) -> list[Planned | ItemResult]:
        found = [item for item in page if isinstance(item, FoundFile)]
        rows = self.journal.rows([item.key for item in found])
        remote = (
            self.journal.documents.by_name([item.name for item in found]) if self._is_listed else {}
        )
        return [
            self._plan_file(item, rows.get(item.key), remote)
            if isinstance(item, FoundFile)
            else item
            for item in page
        ]

    def _plan_file(
        self, found: FoundFile, row: Row | None, remote: Mapping[str, RemoteDocument]
    ) -> Planned | ItemResult:
        try:
            metadata = self._metadata_of(found)
        except ConfigError as error:
            return refused(found.key, Outcome.FAILED, error.summary, size=found.size)
        return plan(
            found,
            row,
            remote.get(found.name) if self._is_listed else _remembered_document(row),
            self.wishes,
            same=lambda before: self._is_same(found, before),
            metadata=metadata,
            labels=metadata_fingerprint(metadata),
        )

    def _is_same(self, found: FoundFile, row: Row) -> bool:
        """Return whether a file is the one sent, by size, times and inode, else by content."""
        if found.size != row.size:
            return False
        unread = is_same_stamp(found, row.mtime_ns, row.ctime_ns, row.inode)
        if unread and not self.checksum:
            return True
        try:
            content = read_content(found)
        except SourceError:
            return False  # sending it reports the error
        if content.digest != row.content:
            return False
        if not unread:
            self._changed_stamps.append(evolve(content, data=b""))
        return True

    def _metadata_of(self, found: FoundFile) -> Mapping[str, Value]:
        given = self.metadata
        if callable(given):
            given = given(_item(found))
        return checked({**(given or {}), **(found.metadata or {})})

    async def _list_documents(self) -> None:
        """Read the whole list of documents into the journal."""
        await anyio.to_thread.run_sync(self.journal.documents.clear)
        place = -self.added.count
        async for rows in self.documents.iter(self.dataset).pages():
            noted = [(row.name, RemoteDocument.of(row, at)) for at, row in enumerate(rows, place)]
            place += len(rows)
            await anyio.to_thread.run_sync(self.journal.documents.add, noted)
        self._is_listed = True


def _item(found: FoundFile) -> Item:
    path = None if found.path is None else Path(found.path)
    return Item(found.key, path=path, bytes=found.data)


def _remembered_document(row: Row | None) -> RemoteDocument | None:
    """Return the document known from the journal, assumed to be enabled and indexed."""
    if row is None or row.document_id is None:
        return None
    return RemoteDocument(
        document_id=row.document_id,
        enabled=True,
        status=IndexingStatus.COMPLETED,
        upload_file_id=row.upload_file_id,
    )


def _replaces_unlisted(planned: Planned | ItemResult) -> bool:
    """Return whether a document would be replaced that was not listed and may be disabled."""
    return isinstance(planned, Planned) and planned.do is Do.SEND and planned.replaces is not None


def _require_lookup(planned: Planned | ItemResult) -> Planned | ItemResult:
    if isinstance(planned, Planned) and _replaces_unlisted(planned):
        return evolve(planned, do=Do.LOOK)
    return planned
