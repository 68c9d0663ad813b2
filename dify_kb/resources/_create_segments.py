"""Create many segments in batches, and find out whether a batch without a response was created."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dify_kb.errors import (
    ConfigError,
    KnowledgeError,
    OutcomeUnknownError,
    PartialError,
    TooLargeError,
)
from dify_kb.models import CreateSegments, Dataset, DocForm, ListSegments, NewSegment, Page, Segment
from dify_kb.wire import catalog

from ._arguments import build_path_params
from ._pager import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dify_kb.wire.endpoint import CallSender

BATCH_SIZE = 50
"""Chunks per request. 50 take a real server about 18 s and 500 take 2 to 3 minutes (Dify issue
10094); proxies time out after 60 s."""

BATCH_CHARACTERS = 400_000
"""Maximum characters per request of several chunks, as proxies may limit bodies to 1 MiB."""


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
