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
"""Chunks per request. 50 take a real server about 18 s and 500 take 2 to 3 minutes (Dify issue
10094); proxies time out after 60 s."""

BATCH_CHARACTERS = 400_000
"""Maximum characters per request of several chunks, as proxies may limit bodies to 1 MiB."""


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

        Costs one request, during which the server indexes the chunks: 500 take minutes. Not
        retried if it may have succeeded. All chunks are created or none, but in a high-quality
        dataset a chunk whose embedding failed is returned with the status `error`.

        Args:
            segments: strings, or `NewSegment` with keywords (economy) or an answer (`qa_model`).

        Raises:
            ConfigError: no segments.
            NotFoundError: the document does not exist, is not completed, or is disabled.
            BadRequestError: a chunk has no text.
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
        """Append any number of chunks to a document in batches, in this order.

        Costs one request for the current number of chunks, and one per 50 chunks or 400,000
        characters, sent one after another. A batch that is too large for a proxy is split in
        halves. After a lost response, the chunks at the end of the document are read (one request
        per 100) to find out whether the batch was created; if so, the call continues. No other
        client should add chunks during the call. As with `create`, a chunk whose embedding failed
        is returned with the status `error`.

        Args:
            batch_size: maximum chunks per request; 50 take a real server up to 18 s.

        Raises:
            ConfigError: no segments, a chunk without text, or `batch_size` below 1. Nothing was
                sent.
            PartialError: a batch failed after others were created. `done` are the chunks created;
                `segments[len(error.done):]` are the remaining ones.
            OutcomeUnknownError: the first batch got no response, and was not found.
            NotFoundError: the document does not exist, is not completed, or is disabled.
        """
        check_not_empty(segments, "segments")
        if batch_size < 1:
            raise ConfigError(f"Invalid batch_size: {batch_size}.", hint="Use 1 or more.")
        new = validate_segments(dataset_id, segments)
        return await create_batches(self._send, dataset_id, document_id, new, batch_size)

    async def get(self, dataset_id: Dataset | str, document_id: str, segment_id: str) -> Segment:
        """Return one chunk. Costs one request. Up to 1.12 the server ignores `document_id`.

        Raises:
            NotFoundError: the chunk does not exist.
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
        """Return one page of chunks, in document order. Costs one request.

        Args:
            limit: number of rows, at most 100.
            keyword: text that the content must contain, ignoring case.
            status: return only chunks with one of these statuses.

        Raises:
            ConfigError: `status` is a single string.
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
        """Iterate over all chunks, in document order. Costs one request per 100."""
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
        """Change, enable or disable a chunk. Costs one request, which also indexes it again.

        Args:
            enabled: False disables the chunk and drops all other changes of the call. A disabled
                chunk can be changed only together with True.
            keywords: new keywords, which replace all old ones.
            regenerate_child_chunks: split the chunk into child chunks again; by default the old
                child chunks are kept.

        Raises:
            BadRequestError: the chunk is disabled, or being indexed.
            NotFoundError: the chunk does not exist.
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
        """Delete a chunk. Costs one request.

        Raises:
            NotFoundError: the chunk does not exist.
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
    """Return the chunks if the server accepts all of them. Rejects invalid chunks before sending.

    Raises:
        ConfigError: a chunk has no text, or lacks the answer that a `qa_model` dataset needs.
    """
    new = [NewSegment(content=item) if isinstance(item, str) else item for item in segments]
    needs_answer = isinstance(dataset, Dataset) and dataset.doc_form is DocForm.QA
    for index, segment in enumerate(new):
        if not segment.content.strip():
            raise ConfigError(f"segments[{index}] has no text.", hint="Remove it.")
        if needs_answer and not segment.answer:
            raise ConfigError(
                f"segments[{index}] has no answer.",
                hint="Pass NewSegment(content=…, answer=…): the dataset is of the form qa_model.",
            )
    return new


def split_batches(
    segments: Sequence[NewSegment], size: int, characters: int = BATCH_CHARACTERS
) -> Iterator[Sequence[NewSegment]]:
    """Yield batches of at most `size` chunks and `characters`; a single chunk may be longer."""
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
    """Return one page of chunks."""
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
    """Create chunks in batches, one after another.

    Raises:
        PartialError: a batch failed after others were created.
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
    """Return the chunks of a batch without a response, or None if not found at its position."""
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
    """Return a PartialError for a failed batch, or `error` itself if no batch succeeded before."""
    if not created:
        return error
    unknown = isinstance(error, OutcomeUnknownError)
    hint = (
        "Check the end of the document: the following chunks may still be created."
        if unknown
        else f"Continue with chunk {len(created) + 1}."
    )
    return PartialError(
        f"Created {len(created)} of {total} chunks: {error.summary}", done=created, hint=hint
    )
