"""Create chunks of a document, in one request or in batches, and list them."""

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
from dify_kb.models import CreateSegments, Dataset, DocForm, ListSegments, NewSegment
from dify_kb.wire import catalog

from ._named import slots
from ._pager import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dify_kb.models import Page, Segment
    from dify_kb.wire.endpoint import Send

AT_ONCE = 50
"""Chunks of one request: some 18 s of a real server, which takes 2 to 3 minutes for 500 (issue
10094 of Dify), and so below the 60 s that proxies wait."""

CHARACTERS = 400_000
"""Characters of one request, unless one chunk has more: a proxy may take 1 MiB only."""


def checked(dataset: Dataset | str, segments: Sequence[NewSegment | str]) -> Sequence[NewSegment]:
    """Return the chunks if the server accepts all of them; it would reject a bad one late.

    Raises:
        ConfigError: one without text, or without the answer that a `qa_model` base wants.
    """
    new = [NewSegment(content=item) if isinstance(item, str) else item for item in segments]
    asks = isinstance(dataset, Dataset) and dataset.doc_form is DocForm.QA
    for number, segment in enumerate(new):
        if not segment.content.strip():
            raise ConfigError(f"segments[{number}] has no text.", hint="Leave it out.")
        if asks and not segment.answer:
            raise ConfigError(
                f"segments[{number}] has no answer.", hint="The base holds questions and answers."
            )
    return new


def batches(
    segments: Sequence[NewSegment], size: int, characters: int = CHARACTERS
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


async def list_page(
    send: Send, dataset: Dataset | str, document_id: str, request: ListSegments
) -> Page[Segment]:
    """Fetch one page of the chunks."""
    return await send(catalog.LIST_SEGMENTS(request, **slots(dataset, document_id=document_id)))


async def create_batch(
    send: Send, dataset: Dataset | str, document_id: str, segments: Sequence[NewSegment]
) -> Sequence[Segment]:
    """Create chunks in one request."""
    request = CreateSegments(segments=segments)
    answer = await send(catalog.CREATE_SEGMENTS(request, **slots(dataset, document_id=document_id)))
    return answer.data


async def create_batches(
    send: Send,
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
    before = (await list_page(send, dataset, document_id, ListSegments(page=1, limit=1))).total
    done: list[Segment] = []
    left = deque(batches(new, size))
    while left:
        batch = left.popleft()
        try:
            done += await create_batch(send, dataset, document_id, batch)
        except TooLargeError as error:
            if len(batch) == 1:
                raise _partial_error(done, len(new), error) from error
            middle = len(batch) // 2
            left.extendleft((batch[middle:], batch[:middle]))
        except OutcomeUnknownError as error:
            found = await _find_batch(send, dataset, document_id, before + len(done), batch)
            if found is None:
                raise _partial_error(done, len(new), error) from error
            done += found
        except KnowledgeError as error:
            raise _partial_error(done, len(new), error) from error
    return done


async def _find_batch(
    send: Send,
    dataset: Dataset | str,
    document_id: str,
    index: int,
    batch: Sequence[NewSegment],
) -> Sequence[Segment] | None:
    """Return the chunks of a batch whose answer was lost; None unless they are at its position."""
    found: list[Segment] = []
    number, total = index // PAGE + 1, index + 1
    try:
        while (number - 1) * PAGE < total:
            request = ListSegments(page=number, limit=PAGE)
            page = await list_page(send, dataset, document_id, request)
            found += page.data
            number, total = number + 1, page.total
    except KnowledgeError:
        return None
    there = found[index % PAGE :]
    same = [row.content.strip() for row in there] == [item.content.strip() for item in batch]
    return there if same else None


def _partial_error(done: Sequence[Segment], total: int, error: KnowledgeError) -> KnowledgeError:
    """Return the error for a failed batch: the error itself if no batch succeeded before."""
    if not done:
        return error
    unknown = isinstance(error, OutcomeUnknownError)
    hint = (
        "Look at the end of the document: the chunks after those may still be made."
        if unknown
        else f"Go on with the chunks from number {len(done) + 1}."
    )
    return PartialError(
        f"{len(done)} of {total} chunks were made: {error.summary}", done=done, hint=hint
    )
