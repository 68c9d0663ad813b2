from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.models import (
    UNSET,
    Dataset,
    ListSegments,
    NewSegment,
    Page,
    Segment,
    SegmentChanges,
    SegmentStatus,
    Unset,
    UpdateSegment,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Send

from ._checked import some
from ._create_segments import AT_ONCE, checked, create_batch, create_batches, list_page
from ._named import slots
from ._pager import PAGE, Pager

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen
class Segments:
    """The chunks of a document."""

    _send: Send

    async def create(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segments: Sequence[NewSegment | str],
    ) -> Sequence[Segment]:
        """Append chunks to a document, in this order.

        One request, in which the server also indexes them: 500 of them take minutes. Never
        repeated when it may have been carried out. If one is bad, none is made; on a high-quality
        base a chunk whose embedding failed comes back with the status `error` all the same.

        Args:
            segments: a text, or a `NewSegment` with keywords (economy) or an answer (`qa_model`).

        Raises:
            ConfigError: no segments.
            NotFoundError: no such document, or it is not completed, or disabled.
            BadRequestError: a chunk without text.
        """
        some(segments, "segments")
        new = [NewSegment(content=item) if isinstance(item, str) else item for item in segments]
        return await create_batch(self._send, dataset_id, document_id, new)

    async def create_many(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segments: Sequence[NewSegment | str],
        *,
        batch_size: int = AT_ONCE,
    ) -> Sequence[Segment]:
        """Append any number of chunks to a document, in this order, without timing out.

        Costs a request for the number of chunks that are there, and one per 50 chunks or 400,000
        characters, one after the other. A batch that is too large for a proxy is halved. Where an
        answer is lost, the document's end tells whether the batch was made (a request per 100
        chunks from there on); if so it goes on. Nobody else should add chunks meanwhile. As with
        `create`, a chunk whose embedding failed comes back with the status `error`.

        Args:
            batch_size: chunks of one request; 50 take a real server up to 18 s.

        Raises:
            ConfigError: no segments, one without text, or `batch_size` below 1; nothing was sent.
            PartialError: it failed after some batches; `done` are the chunks that were made, so
                `segments[len(error.done):]` is what is left.
            OutcomeUnknownError: no answer came to the first batch, and it was not there yet.
            NotFoundError: no such document, or it is not completed, or disabled.
        """
        some(segments, "segments")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}.", hint="It must be at least 1.")
        new = checked(dataset_id, segments)
        return await create_batches(self._send, dataset_id, document_id, new, batch_size)

    async def get(self, dataset_id: Dataset | str, document_id: str, segment_id: str) -> Segment:
        """Fetch one chunk. One request. Up to 1.12 the document is not compared.

        Raises:
            NotFoundError: no such chunk.
        """
        where = slots(dataset_id, document_id=document_id, segment_id=segment_id)
        return (await self._send(catalog.GET_SEGMENT.at(**where))).data

    async def list(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
        status: Sequence[SegmentStatus | str] | Unset = UNSET,
    ) -> Page[Segment]:
        """Fetch one page of chunks, in their order. One request.

        Args:
            limit: rows, at most 100.
            keyword: a part of the content, in any case.
            status: only chunks of one of these.

        Raises:
            ConfigError: `status` is a single text.
        """
        if status:
            some(status, "status")
        request = ListSegments(
            page=page,
            limit=min(limit, PAGE),
            keyword=keyword,
            status=[str(word) for word in status] if status else UNSET,
        )
        return await list_page(self._send, dataset_id, document_id, request)

    def iter(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        keyword: str | Unset = UNSET,
        status: Sequence[SegmentStatus | str] | Unset = UNSET,
    ) -> Pager[Segment]:
        """Go through all chunks, in their order. One request per 100."""
        page = partial(self._numbered, dataset_id, document_id, keyword, status)
        return Pager(page, lambda segment: segment.id)

    async def update(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segment_id: str,
        *,
        content: str | Unset = UNSET,
        answer: str | Unset = UNSET,
        keywords: Sequence[str] | Unset = UNSET,
        enabled: bool | Unset = UNSET,
        regenerate_child_chunks: bool | Unset = UNSET,
        summary: str | Unset | None = UNSET,
    ) -> Segment:
        """Change a chunk, or switch it on or off. One request, in which it is indexed again.

        Args:
            enabled: False only switches it off: other changes of the same call are dropped. One
                that is off can be changed together with True alone.
            keywords: replaces the list.
            regenerate_child_chunks: cut its child chunks anew; otherwise the old ones stay.

        Raises:
            BadRequestError: it is off, or being indexed.
            NotFoundError: no such chunk.
        """
        changes = SegmentChanges(
            content=content,
            answer=answer,
            keywords=keywords,
            enabled=enabled,
            regenerate_child_chunks=regenerate_child_chunks,
            summary=summary,
        )
        where = slots(dataset_id, document_id=document_id, segment_id=segment_id)
        return (
            await self._send(catalog.UPDATE_SEGMENT(UpdateSegment(segment=changes), **where))
        ).data

    async def delete(self, dataset_id: Dataset | str, document_id: str, segment_id: str) -> None:
        """Delete a chunk. One request.

        Raises:
            NotFoundError: no such chunk.
        """
        await self._send(
            catalog.DELETE_SEGMENT.at(
                **slots(dataset_id, document_id=document_id, segment_id=segment_id)
            )
        )

    async def _numbered(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        keyword: str | Unset,
        status: Sequence[SegmentStatus | str] | Unset,
        number: int,
    ) -> Page[Segment]:
        return await self.list(
            dataset_id, document_id, page=number, limit=PAGE, keyword=keyword, status=status
        )
