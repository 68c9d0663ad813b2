"""Compare the chunks of a document with archived ones, and repair what differs."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import anyio
from attrs import define, field

from dify_kb.errors import BadRequestError, KnowledgeError
from dify_kb.models import (
    UNSET,
    ChildChunk,
    Dataset,
    DocForm,
    NewSegment,
    Segment,
    SegmentStatus,
    Unset,
)
from dify_kb.wire.version_bugs import is_older

from .archive_session import ArchiveSession
from .archived_document import ArchivedDocument
from .restore_plan import create_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .archived_document import ArchivedChunk

MAX_BUSY: Final = 20
"""Times that a change is repeated while the server still indexes the chunk."""


class RestoreError(KnowledgeError):
    """Raised if one document cannot be created; the import continues with the others."""


@define(kw_only=True)
class ChunkRestorer:
    """Repairs and appends the chunks of one document. `dataset` has the form of the document."""

    session: ArchiveSession
    dataset: Dataset
    document: ArchivedDocument
    document_id: str
    random: Random
    keeps_keywords: bool
    losses: set[str] = field(factory=set, init=False)
    _disabled: list[str] = field(factory=list, init=False)

    async def repair(self, segment: Segment, chunk: ArchivedChunk) -> None:
        """Change what differs in a chunk that the server made."""
        keywords = self._missing_keywords(segment, chunk)
        is_answered = chunk.answer is None or segment.answer == chunk.answer
        if segment.content != chunk.content or not is_answered:
            segment = await self._update(segment, chunk, keywords, content=chunk.content)
            keywords = self._missing_keywords(segment, chunk)
        if keywords:
            # With new content, high-quality datasets ignore keywords (measured).
            segment = await self._update(segment, chunk, keywords, content=segment.content)
        if self.keeps_keywords and set(segment.keywords or ()) != set(chunk.keywords):
            self.losses.add("keywords" if chunk.keywords else "empty keywords")
        await self._repair_children(segment, chunk)
        if not chunk.enabled:
            self._disabled.append(segment.id)

    async def append(self, chunks: Sequence[ArchivedChunk]) -> None:
        """Append chunks in order.

        Raises:
            RestoreError: the server could not index a chunk.
        """
        if not chunks:
            return
        new = [
            NewSegment(
                # A blank chunk can only be set by an update (measured).
                content=chunk.content if chunk.content.strip() else create_token(self.random),
                answer=chunk.answer or self._replace_answer(),
                keywords=chunk.keywords if self._keeps_keywords(chunk) else UNSET,
            )
            for chunk in chunks
        ]
        created = await self.session.segments.create_many(self.dataset, self.document_id, new)
        for segment, chunk in zip(created, chunks, strict=True):
            if segment.status == SegmentStatus.ERROR:
                raise RestoreError(f"A chunk could not be indexed: {segment.error}")
            await self.repair(segment, chunk)

    async def disable(self) -> None:
        """Disable the chunks that were disabled: last, as a disabled chunk cannot be changed."""
        for segment_id in self._disabled:
            path = (self.dataset, self.document_id, segment_id)
            await self._repeat_while_busy(
                partial(self.session.segments.update, *path, enabled=False)
            )

    async def _update(
        self, segment: Segment, chunk: ArchivedChunk, keywords: Sequence[str], *, content: str
    ) -> Segment:
        is_new = content != segment.content
        has_children = bool(chunk.children)
        return await self._repeat_while_busy(
            lambda: self.session.segments.update(
                self.dataset,
                self.document_id,
                segment.id,
                content=content,
                answer=chunk.answer or UNSET,
                keywords=keywords or UNSET,
                regenerate_child_chunks=True if is_new and has_children else UNSET,
            )
        )

    async def _repeat_while_busy(self, send: Callable[[], Awaitable[Segment]]) -> Segment:
        for _ in range(MAX_BUSY):
            try:
                return await send()
            except BadRequestError as error:
                if "indexing" not in error.message:
                    raise
                await anyio.sleep(self.session.setup.server.policy.polling.first_interval)
        return await send()

    def _replace_answer(self) -> str | Unset:
        """Return the answer of a chunk that lost it: questions and answers cannot be without."""
        if self.document.form != DocForm.QA:
            return UNSET
        self.losses.add("missing answers")
        return "-"

    def _keeps_keywords(self, chunk: ArchivedChunk) -> bool:
        return self.keeps_keywords and bool(chunk.keywords)

    def _missing_keywords(self, segment: Segment, chunk: ArchivedChunk) -> Sequence[str]:
        """Return the keywords to set; empty if they are right, or cannot be set."""
        is_right = set(segment.keywords or ()) == set(chunk.keywords)
        return () if is_right or not self.keeps_keywords else chunk.keywords

    async def _repair_children(self, segment: Segment, chunk: ArchivedChunk) -> None:
        if self.document.form != DocForm.HIERARCHICAL:
            return
        session = self.session
        existing = list(segment.child_chunks or ()) or await self._list_children(segment.id)
        existing.sort(key=lambda child: child.position or 0)
        contents = [child.content for child in existing]
        path = (self.dataset, self.document_id, segment.id)
        if contents != [*chunk.children[: len(contents)]]:
            version = session.sender.server_version
            if version and not is_older(version, "1.8") and is_older(version, "1.9"):
                self.losses.add("edited child chunks (1.8 cannot delete any)")
                return
            for child in existing:
                await session.child_chunks.delete(*path, child.id)
            contents = []
        for content in chunk.children[len(contents) :]:
            await session.child_chunks.create(*path, content)

    async def _list_children(self, segment_id: str) -> list[ChildChunk]:
        async def collect_children() -> list[ChildChunk]:
            children = self.session.child_chunks.iter(self.dataset, self.document_id, segment_id)
            return [child async for child in children]

        return await self.session.read(collect_children)
