"""The methods of documents that switch their state, or return their files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.argument_checks import check_methods
from dify_kb.errors import ConfigError
from dify_kb.models import Dataset, DocumentIds, StoredFile
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_id, check_not_empty, get_dataset_id
from ._read_documents import fetch_documents
from ._recovery import recover

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ZIP_DOCUMENTS = 100
"""Maximum documents in one zip."""

_STATUS_FIELDS = {
    "enable": ("enabled", True),
    "disable": ("enabled", False),
    "archive": ("archived", True),
    "un_archive": ("archived", False),
}
"""The field of a document that each action sets, and its value."""


@check_methods
@frozen
class DocumentStateMethods:
    """Enable, disable and archive documents; download their files."""

    _send: CallSender

    async def enable(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Enable documents, so that searches find them again. Costs one request; requires 1.8.

        All documents are changed or none; the server does so in the background. A second change
        of a document may be rejected as "being indexed" for up to 10 minutes (measured).

        Raises:
            ConfigError: `document_ids` is empty.
            BadRequestError: a document is busy; none was changed.
        """
        await self._set_status(dataset_id, "enable", document_ids)

    async def disable(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Disable documents: excluded from search. Costs one request; requires 1.8; see `enable`.

        Raises:
            ConfigError: `document_ids` is empty.
            BadRequestError: a document is busy or not completed; none was changed.
        """
        await self._set_status(dataset_id, "disable", document_ids)

    async def archive(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Archive documents: excluded from search and protected from deletion. See `enable`.

        Raises:
            ConfigError: `document_ids` is empty.
            BadRequestError: a document is busy; none was changed.
        """
        await self._set_status(dataset_id, "archive", document_ids)

    async def unarchive(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Unarchive documents. Costs one request; requires 1.8; see `enable`.

        Raises:
            ConfigError: `document_ids` is empty.
            BadRequestError: a document is busy; none was changed.
        """
        await self._set_status(dataset_id, "un_archive", document_ids)

    async def download_url(self, dataset_id: Dataset | str, document_id: str) -> str:
        """Return a download URL of a document's file. Costs one request; requires 1.13.1.

        The URL is signed and valid for 300 seconds by default. Do not send the API key to it.

        Raises:
            NotFoundError: the document does not exist, or was not created from a file.
        """
        return (
            await self._send(
                catalog.GET_DOWNLOAD_URL.call(
                    **build_path_params(dataset_id, document_id=document_id)
                )
            )
        ).url

    async def download_zip(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> bytes:
        """Return the files of 1 to 100 documents as a zip. Costs one request; requires 1.13.1.

        Raises:
            ConfigError: no ids, more than 100, or an invalid id.
            NotFoundError: a document does not exist, or was not created from a file.
        """
        check_not_empty(document_ids, "document_ids")
        if len(document_ids) > MAX_ZIP_DOCUMENTS:
            raise ConfigError(
                f"Too many document_ids: {len(document_ids)}.",
                hint=f"Pass at most {MAX_ZIP_DOCUMENTS} per call.",
            )
        request = DocumentIds(document_ids=[check_id(id_, "document_ids") for id_ in document_ids])
        path_params = {"dataset_id": get_dataset_id(dataset_id)}
        return await self._send(catalog.DOWNLOAD_ZIP(request, **path_params))

    async def upload_file(self, dataset_id: Dataset | str, document_id: str) -> StoredFile:
        """Return details of a document's file. Costs one request; only up to 1.8.

        Raises:
            NotFoundError: the document does not exist, or the server is newer.
        """
        return await self._send(
            catalog.GET_UPLOAD_FILE.call(**build_path_params(dataset_id, document_id=document_id))
        )

    async def _set_status(
        self, dataset_id: Dataset | str, action: str, document_ids: Sequence[str]
    ) -> None:
        check_not_empty(document_ids, "document_ids")
        request = DocumentIds(document_ids=[check_id(id_, "document_ids") for id_ in document_ids])
        path_params = {"dataset_id": get_dataset_id(dataset_id), "action": action}
        await recover(
            self._change_status(request, path_params),
            partial(self._find_status, dataset_id, action, document_ids),
        )

    async def _change_status(self, request: DocumentIds, path_params: dict[str, str]) -> bool:
        await self._send(catalog.SET_DOCUMENT_STATUS(request, **path_params))
        return True

    async def _find_status(
        self, dataset_id: Dataset | str, action: str, document_ids: Sequence[str]
    ) -> bool | None:
        """Return True if all documents have the status that an action sets, else None."""
        name, value = _STATUS_FIELDS[action]
        rows = await fetch_documents(self._send, dataset_id, set(document_ids))
        is_set = all(getattr(row, name) == value for row in rows)
        return True if is_set and len(rows) == len(set(document_ids)) else None
