"""Get and list documents, and wait until they are indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from dify_kb.errors import ConfigError, RequestTimeoutError
from dify_kb.models import UNSET, DisplayStatus, GetDocument, ListDocuments
from dify_kb.transport.clock import loop_time
from dify_kb.wire import catalog

from ._arguments import build_path_params, check_page, get_dataset_id
from ._pager import PAGE_SIZE, Pager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.config import Polling
    from dify_kb.models import (
        Dataset,
        DisplayStatusName,
        Document,
        DocumentDetail,
        MetadataSelection,
        Page,
        Unset,
    )
    from dify_kb.wire.endpoint import CallSender


async def get_document(
    send: CallSender,
    dataset: Dataset | str,
    document_id: str,
    *,
    metadata: MetadataSelection | Unset = UNSET,
) -> DocumentDetail:
    """Return one document with all its fields."""
    request = GetDocument(metadata=metadata)
    return await send(
        catalog.GET_DOCUMENT(request, **build_path_params(dataset, document_id=document_id))
    )


async def list_documents(
    send: CallSender,
    dataset: Dataset | str,
    *,
    page: int,
    limit: int = PAGE_SIZE,
    keyword: str | Unset = UNSET,
    status: DisplayStatus | DisplayStatusName | Unset = UNSET,
) -> Page[Document]:
    """Return one page of documents, newest first."""
    request = ListDocuments(
        page=page, limit=check_page(page, limit), keyword=keyword, status=_parse_status(status)
    )
    return await send(catalog.LIST_DOCUMENTS(request, dataset_id=get_dataset_id(dataset)))


def iter_documents(
    send: CallSender,
    dataset: Dataset | str,
    *,
    keyword: str | Unset = UNSET,
    status: DisplayStatus | DisplayStatusName | Unset = UNSET,
) -> Pager[Document]:
    """Return a pager over all documents, newest first. Costs one request per 100."""
    # Servers before 1.11 ignore the status filter.
    return Pager(
        lambda number: list_documents(send, dataset, page=number, keyword=keyword, status=status),
        lambda document: document.id,
        lambda document: not status or document.display_status == status,
    )


def _parse_status(value: DisplayStatus | DisplayStatusName | Unset) -> DisplayStatus | Unset:
    if not value:
        return UNSET
    status = DisplayStatus(value)
    if not status.is_known:
        raise ConfigError(
            f"Invalid status {str(status)!r}.",
            hint=f"Pass one of {', '.join(DisplayStatus)}.",
        )
    return status


async def wait_until_indexed(
    send: CallSender,
    dataset: Dataset | str,
    ids: Sequence[str],
    timeout: float | None,  # noqa: ASYNC109 -- an option of the caller, in seconds
    stall_after: float,
    polling: Polling,
) -> Sequence[Document]:
    """Poll the list until all documents are completed or failed, or no document changes."""
    rows: dict[str, Document] = {}
    last_change, interval = loop_time(), polling.first_interval
    with anyio.move_on_after(timeout):
        while True:
            now = loop_time()
            for row in await fetch_documents(send, dataset, set(ids)):
                previous = rows.get(row.id)
                if previous is None or previous.indexing_status != row.indexing_status:
                    last_change, interval = now, polling.first_interval
                rows[row.id] = row
            unseen_ids = set(ids) - rows.keys()
            for missing in unseen_ids:
                # Raises if the document does not exist; else its row moved to another page.
                await get_document(send, dataset, missing)
            final = all(row.indexing_status.is_final for row in rows.values())
            if not unseen_ids and (final or now - last_change > stall_after):
                return [rows[id_] for id_ in ids]
            await anyio.sleep(interval)
            interval = min(interval * polling.interval_growth, polling.max_interval)
    waiting = sum(not (id_ in rows and rows[id_].indexing_status.is_final) for id_ in ids)
    raise RequestTimeoutError(
        f"documents.wait: {waiting} of {len(ids)} documents were not indexed within {timeout:g} s.",
        endpoint="documents.wait",
        hint="Wait again: the server continues to index them.",
    )


async def fetch_documents(
    send: CallSender, dataset: Dataset | str, missing_ids: set[str]
) -> Sequence[Document]:
    """Return the documents with these ids. Costs one request per 100 documents of the dataset."""
    rows_found: list[Document] = []
    if not missing_ids:
        return rows_found
    async for rows in iter_documents(send, dataset).pages():
        rows_found += [row for row in rows if row.id in missing_ids]
        missing_ids -= {row.id for row in rows}
        if not missing_ids:
            break
    return rows_found
