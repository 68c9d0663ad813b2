"""Read documents: one in full, a page of the list, or all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, DisplayStatus, GetDocument, ListDocuments
from dify_kb.wire import catalog

from ._named import dataset_id_of, slots
from ._pager import PAGE, Pager

if TYPE_CHECKING:
    from dify_kb.models import Dataset, Document, DocumentDetail, Page, Unset
    from dify_kb.wire.endpoint import Send


async def get_document(
    send: Send, dataset: Dataset | str, document_id: str, *, metadata: str | Unset = UNSET
) -> DocumentDetail:
    """Fetch one document in full."""
    request = GetDocument(metadata=metadata)
    return await send(catalog.GET_DOCUMENT(request, **slots(dataset, document_id=document_id)))


async def list_documents(
    send: Send,
    dataset: Dataset | str,
    *,
    page: int,
    limit: int = PAGE,
    keyword: str | Unset = UNSET,
    status: DisplayStatus | str | Unset = UNSET,
) -> Page[Document]:
    """Fetch one page, the newest first."""
    request = ListDocuments(
        page=page, limit=min(limit, PAGE), keyword=keyword, status=_checked_status(status)
    )
    return await send(catalog.LIST_DOCUMENTS(request, dataset_id=dataset_id_of(dataset)))


def iter_documents(
    send: Send,
    dataset: Dataset | str,
    *,
    keyword: str | Unset = UNSET,
    status: DisplayStatus | str | Unset = UNSET,
) -> Pager[Document]:
    """Return a pager of all documents, the newest first. One request per 100."""
    # Servers before 1.11 do not know the filter and list everything.
    return Pager(
        lambda number: list_documents(send, dataset, page=number, keyword=keyword, status=status),
        lambda document: document.id,
        lambda document: not status or document.display_status == status,
    )


def _checked_status(given: DisplayStatus | str | Unset) -> DisplayStatus | Unset:
    if not given:
        return UNSET
    status = DisplayStatus(given)
    if not status.known:
        raise ConfigError(
            f"status is {str(status)!r}, for which the server lists everything.",
            hint=f"It can be {', '.join(DisplayStatus)}.",
        )
    return status
