"""Apply a reviewed table of chunks to a dataset."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from attrs import define, evolve, field

from dify_kb.errors import BadRequestError, KnowledgeError, NotFoundError
from dify_kb.models import UNSET, Dataset, NewSegment, Segment
from dify_kb.resources import Segments

from .segment_tables import ChunkRow, compute_checksum

ChangeKind = Literal["created", "updated", "deleted", "unchanged", "conflict", "failed"]


@define(kw_only=True)
class SegmentTableUpdate:
    """Applies rows to the chunks of a dataset, document by document.

    Chunks without a row stay. Costs one request per 100 chunks of each document in the table, one
    per changed chunk, and one per 50 new ones.
    """

    segments: Segments
    dataset: Dataset
    on_result: Callable[[ChangeKind, ChunkRow, str], None]
    force: bool = False
    """Whether to overwrite chunks that were changed on the server since the export."""

    dry_run: bool = False
    counts: Counter[str] = field(factory=Counter, init=False)

    async def apply(self, rows: Iterable[ChunkRow]) -> None:
        """Apply all rows; rows of one document should follow each other.

        Raises:
            KnowledgeError: an error that does not concern a single chunk.
        """
        for document_id, group in itertools.groupby(rows, lambda row: row.document_id):
            await self._apply_document(document_id, list(group))

    async def _apply_document(self, document_id: str, rows: Sequence[ChunkRow]) -> None:
        try:
            current = {
                segment.id: segment
                async for segment in self.segments.iter(self.dataset, document_id)
            }
        except NotFoundError as error:
            for row in rows:
                self._report("failed", row, error.summary)
            return
        for row in rows:
            if row.segment_id:
                await self._change(row, current)
        await self._append(document_id, [row for row in rows if not row.segment_id])

    async def _change(self, row: ChunkRow, current: Mapping[str, Segment]) -> None:
        segment = current.get(row.segment_id)
        if segment is None:
            self._report("failed", row, "the chunk does not exist")
            return
        wanted = evolve(
            segment, content=row.content, answer=row.answer, keywords=row.keywords,
            enabled=row.enabled,
        )  # fmt: skip
        # A row that was not edited is left alone, also if its chunk was.
        known = {row.checksum, compute_checksum(segment)}
        if compute_checksum(wanted) in known and not row.delete:
            self._report("unchanged", row, "")
            return
        if row.checksum and row.checksum != compute_checksum(segment) and not self.force:
            self._report("conflict", row, "changed on the server since the export")
            return
        kind: ChangeKind = "deleted" if row.delete else "updated"
        try:
            if not self.dry_run:
                await self._send(row, segment)
        except (BadRequestError, NotFoundError) as error:
            self._report("failed", row, error.summary)
        else:
            self._report(kind, row, "")

    async def _send(self, row: ChunkRow, segment: Segment) -> None:
        path = (self.dataset, row.document_id, row.segment_id)
        if row.delete:
            await self.segments.delete(*path)
            return
        has_text = (row.content, row.answer) != (segment.content, segment.answer or None)
        has_keywords = {*row.keywords} != {*(segment.keywords or ())} and bool(row.keywords)
        if has_text or has_keywords or (row.enabled and segment.enabled is False):
            await self.segments.update(
                *path,
                content=row.content,
                answer=row.answer or UNSET,
                keywords=row.keywords if has_keywords else UNSET,
                # A disabled chunk can only be changed together with its state.
                enabled=UNSET if segment.enabled is not False else row.enabled,
            )
            if segment.enabled is False:
                return
        if not row.enabled:
            await self.segments.update(*path, enabled=False)

    async def _append(self, document_id: str, rows: Sequence[ChunkRow]) -> None:
        new = [
            NewSegment(
                content=row.content, answer=row.answer or UNSET, keywords=row.keywords or UNSET
            )
            for row in rows
            if not row.delete
        ]
        if not new:
            return
        try:
            if not self.dry_run:
                await self.segments.create_many(self.dataset, document_id, new)
        except KnowledgeError as error:
            for row in rows:
                self._report("failed", row, error.summary)
            return
        for row in rows:
            self._report("created", row, "")

    def _report(self, kind: ChangeKind, row: ChunkRow, reason: str) -> None:
        self.counts[kind] += 1
        self.on_result(kind, row, reason)
