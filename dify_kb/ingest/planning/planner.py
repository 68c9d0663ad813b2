"""Plan the files of a source in batches by comparing them with the journal and the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import define, evolve, field

from dify_kb.errors import KnowledgeError, SourceError
from dify_kb.ingest.journal import Journal
from dify_kb.ingest.metadata.collect_metadata import FileMetadata, MetadataCollector
from dify_kb.ingest.metadata.labels import Labels
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.remote_document import AddedDocuments, RemoteDocument
from dify_kb.ingest.report import ItemResult
from dify_kb.ingest.sources.file_content import FileContent, read_content
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import ScanRules
from dify_kb.ingest.sources.source_reader import SourceReader
from dify_kb.models import Dataset, IndexingStatus
from dify_kb.resources import Documents
from dify_kb.transport.thread_batch import run_in_thread

from .document_lookup import MAX_NAME_QUERIES, DocumentLookup
from .file_plan import (
    PlannedAction,
    PlannedFile,
    PlanOptions,
    is_journal_complete,
    keep_unchanged,
    plan_file,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dify_kb.ingest.journal import JournalRow
    from dify_kb.ingest.sources.file_source import FileSource, SourceEntry

MAX_LOOKUPS = 100
"""Maximum number of uploads of earlier runs without a response that are looked up one by one; if
there are more, the whole dataset is listed."""

LIST_PAGE_SIZE = 200
"""Files per journal query: older versions of SQLite allow 999 values in a statement."""


class ListingError(Exception):
    """Raised if the documents of the dataset could not be listed, because of `error`."""

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
    rules: ScanRules
    options: PlanOptions
    metadata: MetadataCollector
    checksum: bool
    breaker: CircuitBreaker
    added: AddedDocuments
    _is_listed: bool = False
    """Whether the dataset was listed in this run; if not, the journal is trusted."""

    _planned_first: frozenset[str] = frozenset()
    _changed_tokens: list[FileContent] = field(factory=list)
    _changed_labels: dict[str, Labels] = field(factory=dict)

    async def prepare(self) -> None:
        """List the documents of the dataset, unless the journal already knows all of them.

        The journal knows all if it has as many documents as the dataset. Uploads of earlier runs
        without a response are looked up first, with one request each.

        Raises:
            KnowledgeError: the documents could not be listed.
        """
        known = await anyio.to_thread.run_sync(self.journal.files.count_documents)
        unanswered = await anyio.to_thread.run_sync(self.journal.files.count_unanswered)
        if 0 < unanswered <= MAX_LOOKUPS:
            names = await anyio.to_thread.run_sync(self.journal.files.list_unanswered_names)
            lookup = DocumentLookup(self.documents, self.dataset.id)
            known += sum([await lookup.find(name) is not None for name in names])
            unanswered = 0
        documents = self.dataset.document_count
        if not is_journal_complete(known=known, unsettled=unanswered, documents=documents):
            await self._list_documents()

    async def batches(self) -> AsyncIterator[Sequence[PlannedFile | ItemResult]]:
        """Yield the plans of all files in batches.

        Files whose document is empty, because its replacement failed, come first.

        Raises:
            ListingError: the documents could not be listed.
        """
        emptied = frozenset(await anyio.to_thread.run_sync(self.journal.files.list_emptied_keys))
        if emptied and self.source.counted:
            async for batch in self.source.batches(self.rules):
                if found := [item for item in batch if item.key in emptied]:
                    yield await self._plan(found)
            self._planned_first = emptied
        async for batch in self.source.batches(self.rules):
            yield await self._plan([one for one in batch if one.key not in self._planned_first])

    async def _plan(
        self, batch: Sequence[FoundFile | ItemResult]
    ) -> Sequence[PlannedFile | ItemResult]:
        decided = await run_in_thread(self._plan_pages, batch)
        if not self._is_listed:
            if sum(map(_replaces_unlisted, decided)) > MAX_NAME_QUERIES:
                try:
                    await self.breaker.read(self._list_documents)
                except KnowledgeError as error:
                    raise ListingError(error) from error
                decided = await run_in_thread(self._plan_pages, batch)
            else:
                decided = [_require_lookup(planned) for planned in decided]
        self.record_changes()
        return decided

    def plan_known(
        self,
        found: Sequence[FoundFile],
        rows: Mapping[str, JournalRow],
        documents: Mapping[str, RemoteDocument],
    ) -> list[PlannedFile | ItemResult]:
        """Return the plans of files whose rows and documents are given by key. Blocking."""
        unchanged = _find_unchanged(found, rows)
        return [
            self._plan_file(item, rows.get(item.key), documents.get(item.key), unchanged)
            for item in found
        ]

    def record_changes(self) -> None:
        """Record the tokens and labels that changed although the files did not."""
        for content in self._changed_tokens:
            if content.token is not None:
                self.journal.update_token(content.file.key, content.token)
        self._changed_tokens.clear()
        for key, labels in self._changed_labels.items():
            self.journal.update_labels(key, str(labels))
        self._changed_labels.clear()

    def _plan_pages(
        self, batch: Sequence[FoundFile | ItemResult]
    ) -> list[PlannedFile | ItemResult]:
        pages = [
            batch[place : place + LIST_PAGE_SIZE] for place in range(0, len(batch), LIST_PAGE_SIZE)
        ]
        return [decided for page in pages for decided in self._plan_page(page)]

    def _plan_page(self, page: Sequence[FoundFile | ItemResult]) -> list[PlannedFile | ItemResult]:
        found = [item for item in page if isinstance(item, FoundFile)]
        rows = self.journal.get_rows([item.key for item in found])
        unchanged = _find_unchanged(found, rows)
        remote = (
            self.journal.documents.find_by_name([item.name for item in found])
            if self._is_listed
            else {}
        )
        return [
            self._plan_file(
                item,
                rows.get(item.key),
                remote.get(item.name)
                if self._is_listed
                else remembered_document(rows.get(item.key)),
                unchanged,
            )
            if isinstance(item, FoundFile)
            else item
            for item in page
        ]

    def _plan_file(
        self,
        found: FoundFile,
        row: JournalRow | None,
        remote: RemoteDocument | None,
        unchanged: AbstractSet[str],
    ) -> PlannedFile | ItemResult:
        metadata = self.metadata.collect(found)
        planned = plan_file(
            found,
            row,
            remote,
            self.options,
            is_unchanged=lambda before: (
                self._is_same(found, before, unchanged)
                and not metadata.changes_content(before.labels)
            ),
            has_new_metadata=row is not None and not metadata.is_recorded(row.labels),
        )
        if isinstance(planned, ItemResult):
            return planned
        return self._add_metadata(planned, metadata)

    def _add_metadata(
        self, planned: PlannedFile, metadata: FileMetadata
    ) -> PlannedFile | ItemResult:
        """Return the plan with its metadata, which is completed now if the file is not sent."""
        if metadata.is_pending:
            planned = evolve(planned, unread=metadata)
            if not planned.is_unchanged:
                return planned
        resolved = metadata.resolve()
        if planned.action is PlannedAction.ASSIGN_METADATA and planned.row is not None:
            recorded = Labels.parse(planned.row.labels).values == metadata.fingerprint
            if not resolved.values or (recorded and resolved.values == metadata.known_values):
                self._changed_labels[planned.found.key] = resolved.labels
                return keep_unchanged(planned)
        return evolve(
            planned,
            metadata=resolved.values,
            labels=resolved.labels,
            warnings=resolved.warnings,
        )

    def _is_same(self, found: FoundFile, row: JournalRow, unchanged: AbstractSet[str]) -> bool:
        """Return whether a file is unchanged since it was sent, by size and token, or content."""
        if found.size != row.size and (found.entry is None or found.entry.size is not None):
            return False
        unread = found.key in unchanged
        if unread and not self.checksum:
            return True
        try:
            content = read_content(found)
        except SourceError:
            return False  # sending it reports the error
        content.close()
        if content.digest != row.content:
            return False
        if not unread:
            self._changed_tokens.append(evolve(content, data=b""))
        return True

    async def _list_documents(self) -> None:
        """Copy the list of the dataset's documents into the journal."""
        await anyio.to_thread.run_sync(self.journal.documents.clear)
        place = -self.added.count
        async for rows in self.documents.iter(self.dataset).pages():
            noted = [
                (row.name, RemoteDocument.from_document(row, at))
                for at, row in enumerate(rows, place)
            ]
            place += len(rows)
            await anyio.to_thread.run_sync(self.journal.documents.add, noted)
        self._is_listed = True


def _find_unchanged(found: Iterable[FoundFile], rows: Mapping[str, JournalRow]) -> AbstractSet[str]:
    """Return the keys of the files that still have the token with which they were sent."""
    same: set[str] = set()
    entries: dict[FileSource, list[tuple[str, SourceEntry, str]]] = {}
    for file in found:
        row = rows.get(file.key)
        if row is None or row.token is None:
            continue
        if file.source is not None and file.entry is not None:
            entries.setdefault(file.source, []).append((file.key, file.entry, row.token))
        elif file.token == row.token:
            same.add(file.key)
    for source, known in entries.items():
        unchanged = source.find_unchanged([(entry, token) for _, entry, token in known])
        same.update(key for key, entry, _ in known if entry.key in unchanged)
    return same


def remembered_document(row: JournalRow | None) -> RemoteDocument | None:
    """Return the document recorded in the journal, assumed to be enabled and indexed."""
    if row is None or row.document_id is None:
        return None
    return RemoteDocument(
        document_id=row.document_id,
        enabled=True,
        status=IndexingStatus.COMPLETED,
        upload_file_id=row.upload_file_id,
    )


def _replaces_unlisted(planned: PlannedFile | ItemResult) -> bool:
    """Return whether the plan replaces an unlisted document, which may have been disabled."""
    return (
        isinstance(planned, PlannedFile)
        and planned.action is PlannedAction.SEND
        and planned.replaces is not None
    )


def _require_lookup(planned: PlannedFile | ItemResult) -> PlannedFile | ItemResult:
    if isinstance(planned, PlannedFile) and _replaces_unlisted(planned):
        return evolve(planned, action=PlannedAction.LOOK_UP)
    return planned
