"""Appending many chunks to a document, some at a time."""

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
from dify_kb.models import Dataset, DocForm, NewSegment

from ._pager import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dify_kb.models import Segment

    from .segments import Segments

AT_ONCE = 50
"""Chunks of one request: some 18 s of a real server, which takes 2 to 3 minutes for 500 (issue
10094 of Dify), and so below the 60 s that proxies wait."""

CHARACTERS = 400_000
"""Characters of one request, unless one chunk has more: a proxy may take 1 MiB only."""


def checked(dataset: Dataset | str, segments: Sequence[NewSegment | str]) -> Sequence[NewSegment]:
    """Let chunks through that the server takes: it would refuse a bad one among good ones late.

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
    """Cut into runs of at most so many chunks and characters; one chunk may be longer."""
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


async def append(
    segments: Segments,
    dataset: Dataset | str,
    document_id: str,
    new: Sequence[NewSegment],
    size: int,
) -> Sequence[Segment]:
    """Append chunks batch by batch, each only once the one before is there.

    Raises:
        PartialError: a batch failed after others were made.
        KnowledgeError: the first batch failed.
    """
    before = (await segments.list(dataset, document_id, limit=1)).total
    done: list[Segment] = []
    left = deque(batches(new, size))
    while left:
        batch = left.popleft()
        try:
            done += await segments.create(dataset, document_id, batch)
        except TooLargeError as error:
            if len(batch) == 1:
                raise _told(done, len(new), error) from error
            middle = len(batch) // 2
            left.extendleft((batch[middle:], batch[:middle]))
        except OutcomeUnknownError as error:
            found = await _landed(segments, dataset, document_id, before + len(done), batch)
            if found is None:
                raise _told(done, len(new), error) from error
            done += found
        except KnowledgeError as error:
            raise _told(done, len(new), error) from error
    return done


async def _landed(
    segments: Segments,
    dataset: Dataset | str,
    document_id: str,
    index: int,
    batch: Sequence[NewSegment],
) -> Sequence[Segment] | None:
    """Look whether the chunks of a batch whose answer was lost stand at its place."""
    found: list[Segment] = []
    number, total = index // PAGE + 1, index + 1
    try:
        while (number - 1) * PAGE < total:
            page = await segments.list(dataset, document_id, page=number, limit=PAGE)
            found += page.data
            number, total = number + 1, page.total
    except KnowledgeError:
        return None
    there = found[index % PAGE :]
    same = [row.content.strip() for row in there] == [item.content.strip() for item in batch]
    return there if same else None


def _told(done: Sequence[Segment], total: int, error: KnowledgeError) -> KnowledgeError:
    """Tell of a batch that failed; the error alone where there were none before it."""
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
