from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.argument_checks import check_methods
from dify_kb.errors import (
    BadRequestError,
    ConfigError,
)
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    ListSegments,
    NewSegment,
    Page,
    Segment,
    SegmentChanges,
    SegmentResponse,
    SegmentStatus,
    SegmentStatusName,
    Unset,
    UpdateSegment,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_not_empty, check_page
from ._create_segments import (
    BATCH_SIZE,
    create_batch,
    create_batches,
    list_segments_page,
    validate_segments,
)
from ._pager import PAGE_SIZE, Pager

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@check_methods
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
        return (await self._fetch(path_params)).data

    async def list(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
        status: Sequence[SegmentStatus | SegmentStatusName] | Unset = UNSET,
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
            limit=check_page(page, limit),
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
        status: Sequence[SegmentStatus | SegmentStatusName] | Unset = UNSET,
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
        """Change, enable or disable a chunk, which is also indexed again.

        Omitted fields are kept. Costs one request, and one more to disable a chunk that is also
        changed, because the server ignores changes of a request that disables. A chunk of a
        `qa_model` document is read first, as the server deletes an answer that a request omits,
        and then fails to index the chunk (measured on 1.4.3, 1.12.1 and 1.14.2); if `dataset_id`
        is an id or a dataset without a form, each chunk is read first.

        Args:
            answer: new answer; only `qa_model` chunks have one.
            keywords: new keywords, which replace all old ones. An empty list is ignored, and in
                high-quality datasets also keywords together with new content (measured on 1.14.2).
            enabled: False disables the chunk after the other changes. A disabled chunk can be
                changed only together with True or False.
            regenerate_child_chunks: split the chunk into child chunks again; by default the old
                child chunks are kept.

        Raises:
            ConfigError: there are no changes, or the answer of a `qa_model` chunk is empty.
            BadRequestError: the chunk is disabled, or being indexed.
            NotFoundError: the chunk does not exist.
        """
        changes = SegmentChanges(
            content=content,
            answer=answer,
            keywords=keywords,
            regenerate_child_chunks=regenerate_child_chunks,
            summary=summary,
        )
        path_params = build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
        has_changes = changes != SegmentChanges()
        if not has_changes and enabled is UNSET:
            raise ConfigError("There are no changes.", hint="Pass content=…, enabled=… or others.")
        if enabled is False and not has_changes:
            return await self._disable(path_params)
        if enabled is not UNSET:
            changes = evolve(changes, enabled=True)
        if not (isinstance(dataset_id, Dataset) and dataset_id.doc_form not in {None, DocForm.QA}):
            changes = await self._complete_answer(path_params, changes)
        updated = await self._change(path_params, changes)
        return await self._disable(path_params) if enabled is False else updated

    async def _fetch(self, path_params: Mapping[str, str]) -> SegmentResponse:
        return await self._send(catalog.GET_SEGMENT.call(**path_params))

    async def _change(self, path_params: Mapping[str, str], changes: SegmentChanges) -> Segment:
        request = UpdateSegment(segment=changes)
        return (await self._send(catalog.UPDATE_SEGMENT(request, **path_params))).data

    async def _complete_answer(
        self, path_params: Mapping[str, str], changes: SegmentChanges
    ) -> SegmentChanges:
        """Add question and answer to the changes of a `qa_model` chunk.

        Raises:
            ConfigError: the chunk would lose its answer.
        """
        if changes.content and changes.answer:
            return changes
        current = await self._fetch(path_params)
        if current.doc_form != DocForm.QA:
            return changes
        answer = current.data.answer if changes.answer is UNSET else changes.answer
        if not answer:
            raise ConfigError(
                "A chunk of a qa_model document needs an answer.", hint="Pass answer=…."
            )
        return evolve(changes, content=changes.content or current.data.content, answer=answer)

    async def _disable(self, path_params: Mapping[str, str]) -> Segment:
        """Disable a chunk. The server refuses that for a disabled one, which is then returned."""
        try:
            return await self._change(path_params, SegmentChanges(enabled=False))
        except BadRequestError:
            current = (await self._fetch(path_params)).data
            if current.enabled is not False:
                raise
            return current

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
        status: Sequence[SegmentStatus | SegmentStatusName] | Unset,
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
