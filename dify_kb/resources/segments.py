from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import (
    ConfigError,
    KnowledgeError,
    OutcomeUnknownError,
    PartialError,
    TooLargeError,
)
from dify_kb.models import (
    UNSET,
    CreateSegments,
    Dataset,
    DocForm,
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
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_not_empty
from ._pager import PAGE_SIZE, Pager

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


BATCH_SIZE = 50
"""Chunks of one request: some 18 s of a real server, which takes 2 to 3 minutes for 500 (issue
10094 of Dify), and so below the 60 s that proxies wait."""

BATCH_CHARACTERS = 400_000
"""Characters of one request, unless one chunk has more: a proxy may take 1 MiB only."""


@frozen
class Segments:
    """The chunks of a document."""

    _send: CallSender

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
        check_not_empty(segments, "segments")
        new = [NewSegment(content=item) if isinstance(item, str) else item for item in segments]
        return await create_batch(self._send, dataset_id, document_id, new)

    async def create_many(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segments: Sequence[NewSegment | str],
        *,
        batch_size: int = BATCH_SIZE,
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
        check_not_empty(segments, "segments")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}.", hint="It must be at least 1.")
        new = validate_segments(dataset_id, segments)
        return await create_batches(self._send, dataset_id, document_id, new, batch_size)

    async def get(self, dataset_id: Dataset | str, document_id: str, segment_id: str) -> Segment:
        """Fetch one chunk. One request. Up to 1.12 the document is not compared.

        Raises:
            NotFoundError: no such chunk.
        """
        path_params = build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
        return (await self._send(catalog.GET_SEGMENT.call(**path_params))).data

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
            check_not_empty(status, "status")
        request = ListSegments(
            page=page,
            limit=min(limit, PAGE_SIZE),
            keyword=keyword,
            status=[str(word) for word in status] if status else UNSET,
        )
        return await list_segments_page(self._send, dataset_id, document_id, request)

    def iter(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        keyword: str | Unset = UNSET,
        status: Sequence[SegmentStatus | str] | Unset = UNSET,
    ) -> Pager[Segment]:
        """Go through all chunks, in their order. One request per 100."""
        page = partial(self._fetch_page, dataset_id, document_id, keyword, status)
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
        path_params = build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
        return (
            await self._send(catalog.UPDATE_SEGMENT(UpdateSegment(segment=changes), **path_params))
        ).data

    async def delete(self, dataset_id: Dataset | str, document_id: str, segment_id: str) -> None:
        """Delete a chunk. One request.

        Raises:
            NotFoundError: no such chunk.
        """
        await self._send(
            catalog.DELETE_SEGMENT.call(
                **build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
            )
        )

    async def _fetch_page(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        keyword: str | Unset,
        status: Sequence[SegmentStatus | str] | Unset,
        number: int,
    ) -> Page[Segment]:
        return await self.list(
            dataset_id,
            document_id,
            page=number,
            limit=PAGE_SIZE,
            keyword=keyword,
            status=status,
        )


def validate_segments(
    dataset: Dataset | str, segments: Sequence[NewSegment | str]
) -> Sequence[NewSegment]:
    """Return the chunks if the server accepts all of them; it would reject a bad one late.

    Raises:
        ConfigError: one without text, or without the answer that a `qa_model` base wants.
    """
    new = [NewSegment(content=item) if isinstance(item, str) else item for item in segments]
    needs_answer = isinstance(dataset, Dataset) and dataset.doc_form is DocForm.QA
    for index, segment in enumerate(new):
        if not segment.content.strip():
            raise ConfigError(f"segments[{index}] has no text.", hint="Leave it out.")
        if needs_answer and not segment.answer:
            raise ConfigError(
                f"segments[{index}] has no answer.",
                hint="The base holds questions and answers.",
            )
    return new


def split_batches(
    segments: Sequence[NewSegment], size: int, characters: int = BATCH_CHARACTERS
) -> Iterator[Sequence[NewSegment]]:
    """Split into batches of at most `size` chunks and `characters`; one chunk may be longer."""
    batch: list[NewSegment] = []
    length = 0
    for segment in segments:
        if batch and (len(batch) == size or length + len(segment.content) > characters):
            yield batch
            batch, length = [], 0
        batch.append(segment)
        length += len(segment.content)
    if batch:
        yield batch


async def list_segments_page(
    send: CallSender, dataset: Dataset | str, document_id: str, request: ListSegments
) -> Page[Segment]:
    """Fetch one page of the chunks."""
    return await send(
        catalog.LIST_SEGMENTS(request, **build_path_params(dataset, document_id=document_id))
    )


async def create_batch(
    send: CallSender, dataset: Dataset | str, document_id: str, segments: Sequence[NewSegment]
) -> Sequence[Segment]:
    """Create chunks in one request."""
    request = CreateSegments(segments=segments)
    answer = await send(
        catalog.CREATE_SEGMENTS(request, **build_path_params(dataset, document_id=document_id))
    )
    return answer.data


async def create_batches(
    send: CallSender,
    dataset: Dataset | str,
    document_id: str,
    new: Sequence[NewSegment],
    size: int,
) -> Sequence[Segment]:
    """Create chunks batch by batch, each only once the one before exists.

    Raises:
        PartialError: a batch failed after others were made.
        KnowledgeError: the first batch failed.
    """
    initial_total = (
        await list_segments_page(send, dataset, document_id, ListSegments(page=1, limit=1))
    ).total
    created: list[Segment] = []
    pending = deque(split_batches(new, size))
    while pending:
        batch = pending.popleft()
        try:
            created += await create_batch(send, dataset, document_id, batch)
        except TooLargeError as error:
            if len(batch) == 1:
                raise _partial_error(created, len(new), error) from error
            middle = len(batch) // 2
            pending.extendleft((batch[middle:], batch[:middle]))
        except OutcomeUnknownError as error:
            rows = await _find_created_batch(
                send, dataset, document_id, initial_total + len(created), batch
            )
            if rows is None:
                raise _partial_error(created, len(new), error) from error
            created += rows
        except KnowledgeError as error:
            raise _partial_error(created, len(new), error) from error
    return created


async def _find_created_batch(
    send: CallSender,
    dataset: Dataset | str,
    document_id: str,
    index: int,
    batch: Sequence[NewSegment],
) -> Sequence[Segment] | None:
    """Return the chunks of a batch whose answer was lost; None unless they are at its position."""
    rows: list[Segment] = []
    page_number, total = index // PAGE_SIZE + 1, index + 1
    try:
        while (page_number - 1) * PAGE_SIZE < total:
            request = ListSegments(page=page_number, limit=PAGE_SIZE)
            page = await list_segments_page(send, dataset, document_id, request)
            rows += page.data
            page_number, total = page_number + 1, page.total
    except KnowledgeError:
        return None
    batch_rows = rows[index % PAGE_SIZE :]
    is_same = [row.content.strip() for row in batch_rows] == [
        item.content.strip() for item in batch
    ]
    return batch_rows if is_same else None


def _partial_error(created: Sequence[Segment], total: int, error: KnowledgeError) -> KnowledgeError:
    """Return the error for a failed batch: the error itself if no batch succeeded before."""
    if not created:
        return error
    unknown = isinstance(error, OutcomeUnknownError)
    hint = (
        "Look at the end of the document: the chunks after those may still be made."
        if unknown
        else f"Go on with the chunks from number {len(created) + 1}."
    )
    return PartialError(
        f"{len(created)} of {total} chunks were made: {error.summary}", done=created, hint=hint
    )
