"""The source becomes planned files, a batch at a time: scanned, compared, decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import define, evolve, field

from dify_kb.errors import ConfigError, SourceError
from dify_kb.ingest.engine.assign_metadata import fingerprint
from dify_kb.ingest.journal import Journal
from dify_kb.ingest.report import ItemResult, Outcome, refused
from dify_kb.ingest.sources.content import content_of, settled_mtime
from dify_kb.ingest.sources.items import Item
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.models import Dataset, IndexingStatus
from dify_kb.resources import Documents
from dify_kb.resources.values import Value, checked

from .document_lookup import FEW, DocumentLookup
from .plan import Do, Planned, Wishes, complete, plan
from .remote_document import RemoteDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.ingest.engine.run import Run
    from dify_kb.ingest.journal import Row
    from dify_kb.ingest.sources.reader import Judged, SourceReader

SETTLED = 100
"""Unsettled sends that are looked for one by one; for more, the whole list is read."""

PAGE = 200
"""Files that the journal is asked for at a time: SQLite may take 999 values in a statement."""

Metadata = Mapping[str, object] | Callable[[Item], Mapping[str, object] | None] | None


@define
class Planner:
    """Hands every file of a source over to a run, with what is to be done about it."""

    _journal: Journal
    _documents: Documents
    _dataset: Dataset
    _wishes: Wishes
    _metadata: Metadata
    _walked: bool = False
    """Whether the journal knows what the knowledge base holds, and need not be trusted."""

    _touched: list[FoundFile] = field(factory=list)

    async def prepare(self, run: Run) -> None:
        """Learn what the knowledge base holds, unless the journal must know all of it.

        It knows all when the base has as many documents as are remembered. Those that an earlier
        run was sending when it was killed are looked for first: one request each.
        """
        known = await anyio.to_thread.run_sync(self._journal.known)
        unsettled = await anyio.to_thread.run_sync(self._journal.unsettled)
        if 0 < unsettled <= SETTLED:
            names = await anyio.to_thread.run_sync(self._journal.unsettled_names)
            known, unsettled = known + await self._present(names), 0
        documents = self._dataset.document_count
        if not complete(known=known, unsettled=unsettled, documents=documents):
            await self._walk(run)

    async def _present(self, names: Sequence[str]) -> int:
        lookup = DocumentLookup(self._documents, self._dataset.id)
        return sum([await lookup.named(name) is not None for name in names])

    async def through(self, source: SourceReader, run: Run) -> None:
        """Hand over every file; of items that a caller makes, none once the run has stopped."""
        async for batch in source.batches(run.options.rules):
            if run.halted and not source.counted:
                return
            run.found += len(batch)
            for decided in await self._decided(batch, run):
                if isinstance(decided, ItemResult):
                    if run.options.pause is not None:
                        await run.options.pause()
                    run.end(decided)
                else:
                    await run.hand_over(decided)
            for found in self._touched:
                self._journal.touched(found.key, settled_mtime(found))
            self._touched.clear()

    async def _decided(self, batch: Sequence[Judged], run: Run) -> list[Planned | ItemResult]:
        decided = await anyio.to_thread.run_sync(self._plan, batch)
        if self._walked:
            return decided
        updates = sum(_unseen(planned) for planned in decided)
        if updates > FEW:
            await self._walk(run)
            return await anyio.to_thread.run_sync(self._plan, batch)
        return [
            evolve(planned, do=Do.LOOK)
            if isinstance(planned, Planned) and _unseen(planned)
            else planned
            for planned in decided
        ]

    def _plan(self, batch: Sequence[Judged]) -> list[Planned | ItemResult]:
        pages = [batch[place : place + PAGE] for place in range(0, len(batch), PAGE)]
        return [decided for page in pages for decided in self._planned(page)]

    def _planned(self, batch: Sequence[Judged]) -> list[Planned | ItemResult]:
        found = [item for item in batch if isinstance(item, FoundFile)]
        rows = self._journal.rows([item.key for item in found])
        remote = self._journal.remote([item.name for item in found]) if self._walked else {}
        return [
            self._one(item, rows.get(item.key), remote) if isinstance(item, FoundFile) else item
            for item in batch
        ]

    def _one(
        self, found: FoundFile, row: Row | None, remote: Mapping[str, RemoteDocument]
    ) -> Planned | ItemResult:
        try:
            metadata = self._metadata_of(found)
        except ConfigError as error:
            return refused(found.key, Outcome.FAILED, error.summary, size=found.size)
        return plan(
            found,
            row,
            remote.get(found.name) if self._walked else _trusted(row),
            self._wishes,
            same=lambda before: self._same(found, before),
            metadata=metadata,
            labels=fingerprint(metadata),
        )

    def _same(self, found: FoundFile, row: Row) -> bool:
        """Tell whether a file is what was sent; by its time, and else by its content."""
        if found.size != row.size:
            return False
        if found.mtime_ns is not None and found.mtime_ns == row.mtime_ns:
            return True
        try:
            same = content_of(found).digest == row.content
        except SourceError:
            return False  # sending it will tell why
        if same and settled_mtime(found) is not None:
            self._touched.append(found)
        return same

    def _metadata_of(self, found: FoundFile) -> Mapping[str, Value]:
        given = self._metadata
        if callable(given):
            given = given(_item(found))
        return checked({**(given or {}), **(found.metadata or {})})

    async def _walk(self, run: Run) -> None:
        await anyio.to_thread.run_sync(self._journal.forget_remote)
        place = -run.watcher.created
        async for rows in self._documents.iter(self._dataset).pages():
            noted = [(row.name, RemoteDocument.of(row, at)) for at, row in enumerate(rows, place)]
            place += len(rows)
            await anyio.to_thread.run_sync(self._journal.note_remote, noted)
        self._walked = True


def _item(found: FoundFile) -> Item:
    path = None if found.path is None else Path(found.path)
    return Item(found.key, path=path, bytes=found.data)


def _trusted(row: Row | None) -> RemoteDocument | None:
    """Take the journal's word for what the server has."""
    if row is None or row.document_id is None:
        return None
    return RemoteDocument(
        document_id=row.document_id,
        enabled=True,
        status=IndexingStatus.COMPLETED,
        upload_file_id=row.upload_file_id,
    )


def _unseen(planned: Planned | ItemResult) -> bool:
    """Tell whether a document would be replaced that nobody has looked at: it may be disabled."""
    return isinstance(planned, Planned) and planned.do is Do.SEND and planned.replaces is not None
