from __future__ import annotations

from functools import partial

from attrs import frozen

from dify_kb.argument_checks import check_methods
from dify_kb.models import UNSET, ChildChunk, Dataset, ListChildChunks, Page, Unset, WriteChildChunk
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_page
from ._pager import PAGE_SIZE, Pager


@check_methods
@frozen
class ChildChunks:
    """The child chunks of a segment, by which parent-child datasets are searched.

    Version 1.8.1 returns 404 for every update and delete.
    """

    _send: CallSender

    async def create(
        self, dataset_id: Dataset | str, document_id: str, segment_id: str, content: str
    ) -> ChildChunk:
        """Create a child chunk. Costs one request, not retried if it may have succeeded.

        Raises:
            NotFoundError: the segment does not exist.
        """
        path_params = build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
        answer = await self._send(
            catalog.CREATE_CHILD_CHUNK(WriteChildChunk(content=content), **path_params)
        )
        return answer.data

    async def list(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segment_id: str,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
    ) -> Page[ChildChunk]:
        """Return one page of child chunks. Costs one request; the page has no `has_more`.

        Args:
            limit: number of rows, at most 100.
            keyword: text that the content must contain.
        """
        request = ListChildChunks(page=page, limit=check_page(page, limit), keyword=keyword)
        path_params = build_path_params(dataset_id, document_id=document_id, segment_id=segment_id)
        return await self._send(catalog.LIST_CHILD_CHUNKS(request, **path_params))

    def iter(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segment_id: str,
        *,
        keyword: str | Unset = UNSET,
    ) -> Pager[ChildChunk]:
        """Iterate over all child chunks. Costs one request per 100."""
        page = partial(self._fetch_page, dataset_id, document_id, segment_id, keyword)
        return Pager(page, lambda chunk: chunk.id)

    async def update(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segment_id: str,
        child_chunk_id: str,
        content: str,
    ) -> ChildChunk:
        """Change the content of a child chunk. Costs one request.

        Raises:
            NotFoundError: the child chunk does not exist, or the server is 1.8.1.
        """
        path_params = build_path_params(
            dataset_id,
            document_id=document_id,
            segment_id=segment_id,
            child_chunk_id=child_chunk_id,
        )
        answer = await self._send(
            catalog.UPDATE_CHILD_CHUNK(WriteChildChunk(content=content), **path_params)
        )
        return answer.data

    async def delete(
        self, dataset_id: Dataset | str, document_id: str, segment_id: str, child_chunk_id: str
    ) -> None:
        """Delete a child chunk. Costs one request.

        Raises:
            NotFoundError: the child chunk does not exist, or the server is 1.8.1.
        """
        path_params = build_path_params(
            dataset_id,
            document_id=document_id,
            segment_id=segment_id,
            child_chunk_id=child_chunk_id,
        )
        await self._send(catalog.DELETE_CHILD_CHUNK.call(**path_params))

    async def _fetch_page(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        segment_id: str,
        keyword: str | Unset,
        number: int,
    ) -> Page[ChildChunk]:
        return await self.list(
            dataset_id, document_id, segment_id, page=number, limit=PAGE_SIZE, keyword=keyword
        )
