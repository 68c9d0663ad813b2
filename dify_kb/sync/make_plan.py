"""Create the plan of a sync: read as little of the dataset as it needs, and decide."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import define, field, frozen

from dify_kb.ingest.journal import Journal, JournalRow, JournalState
from dify_kb.ingest.load_setup import LoadSetup
from dify_kb.ingest.planning.document_lookup import MAX_NAME_QUERIES, DocumentLookup
from dify_kb.ingest.planning.planner import Planner
from dify_kb.ingest.remote_document import AddedDocuments
from dify_kb.ingest.sources.source_reader import SourceReader
from dify_kb.models import Dataset, Document

from .dataset_documents import DatasetDocuments, Ownership, read_rows
from .decide_changes import SyncDecider
from .edited_documents import keep_edited
from .sync_options import SyncOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.ingest.report import ItemResult
    from dify_kb.ingest.sources.found_file import FoundFile

    from .sync_plan import SyncPlan

HEAD_SIZE = 100
"""Documents of the first page: up to this number, it shows all of them."""

HEAD = "sync_head"
"""The name of the value in the journal that identifies the state of the dataset."""


@frozen
class DatasetHead:
    """The number of documents of a dataset and the id of the newest one.

    If both are as after the last run, nobody else made or deleted a document: ids are never reused,
    and new documents come first.
    """

    total: int = 0
    newest: str = ""

    def __str__(self) -> str:
        return json.dumps([self.total, self.newest])


@define(kw_only=True)
class PlanMaker:
    """Makes the plan of one run."""

    setup: LoadSetup
    dataset_id: str
    source: SourceReader
    options: SyncOptions
    journal: Journal
    sync_id: str
    head: DatasetHead = field(factory=DatasetHead)
    """The head of the dataset when it was read."""

    async def make(self, items: Sequence[FoundFile | ItemResult]) -> SyncPlan:
        """Return the plan for the files of a source; read of the dataset what it needs.

        Raises:
            KnowledgeError: the dataset could not be listed.
        """
        plan = await self._decide(items)
        if self.options.protect_edits:
            await keep_edited(plan, self.setup.sender, self.dataset_id)
        return plan

    async def _decide(self, items: Sequence[FoundFile | ItemResult]) -> SyncPlan:
        known = await anyio.to_thread.run_sync(self.journal.files.list_rows)
        rows = {row.key: row for row in known}
        page = await self.setup.server.documents.list(self.dataset_id, limit=HEAD_SIZE)
        self.head = DatasetHead(page.total, page.data[0].id if page.data else "")
        if page.total <= len(page.data):
            return await self._decide_with(items, rows, DatasetDocuments.from_list(page.data))
        remembered = await anyio.to_thread.run_sync(self.journal.get_value, HEAD)
        unsettled = any(row.state is JournalState.SENDING for row in known)
        if self.options.state == "base" or not rows or remembered != str(self.head):
            return await self._decide_with(items, rows, await self._list_all(page.data))
        trusted = DatasetDocuments.from_list((), ())
        plan = await self._decide_with(items, rows, trusted)
        if plan.is_idle and not unsettled:
            plan.foreign = self.head.total - plan.owned
            return plan
        names = plan.affected_names() | {
            row.name for row in known if row.state is JournalState.SENDING
        }
        if len(names) > MAX_NAME_QUERIES or self.options.load.dry_run:
            return await self._decide_with(items, rows, await self._list_all(page.data))
        lookup = DocumentLookup(self.setup.server.documents, self.dataset_id)
        documents = [one for name in sorted(names) for one in await lookup.find_all(name)]
        plan = await self._decide_with(items, rows, DatasetDocuments.from_list(documents, names))
        plan.foreign = self.head.total - plan.owned
        return plan

    async def _list_all(self, first: Sequence[Document]) -> DatasetDocuments:
        """List all documents, after their first page."""
        documents, total, page = list(first), self.head.total, 2
        while len(documents) < total:
            rows = await self.setup.server.documents.list(
                self.dataset_id, page=page, limit=HEAD_SIZE
            )
            if not rows.data or rows.total != total:
                # A document was deleted or made meanwhile, so that others have changed places.
                return await self._list_again()
            documents += rows.data
            page += 1
        return DatasetDocuments.from_list(documents)

    async def _list_again(self) -> DatasetDocuments:
        """List all documents twice, as one list may miss some while others are deleted."""
        pages = [self.setup.server.documents.iter(self.dataset_id) for _ in range(2)]
        return DatasetDocuments.from_list([row for rows in pages async for row in rows])

    async def _decide_with(
        self,
        items: Sequence[FoundFile | ItemResult],
        journal_rows: Mapping[str, JournalRow],
        documents: DatasetDocuments,
    ) -> SyncPlan:
        rows, leftovers = dict(journal_rows), list[Document]()
        if documents.is_complete and (self.options.state == "base" or not rows):
            rows, leftovers = read_rows(documents, self.sync_id, journal_rows)
            await anyio.to_thread.run_sync(self.journal.files.replace_rows, list(rows.values()))
        ids = {row.document_id for row in rows.values() if row.document_id is not None}
        ids |= {one.id for row in rows.values() for one in documents.find_versions(row)}
        planner = self._planner()
        decider = SyncDecider(
            options=self.options,
            sync_id=self.sync_id,
            documents=documents,
            ownership=Ownership(self.sync_id, frozenset(ids), leftovers),
            rows=rows,
            plan_files=planner.plan_known,
            find_existing=lambda keys: self.source.exists(self.options.load.rules, keys),
            now=time.time(),
        )
        plan = await anyio.to_thread.run_sync(decider.decide, items)
        planner.record_changes()
        return plan

    def _planner(self) -> Planner:
        server, options = self.setup.server, self.options.load
        return Planner(
            journal=self.journal,
            documents=server.documents,
            dataset=Dataset(id=self.dataset_id, name=""),
            source=self.source,
            rules=options.rules,
            options=options.plan_options,
            metadata=self.setup.metadata,
            checksum=options.checksum,
            breaker=server.breaker,
            added=AddedDocuments(),
        )
