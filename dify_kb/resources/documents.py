from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from attrs import field, frozen

from dify_kb.config import Polling
from dify_kb.errors import ConfigError
from dify_kb.models import (
    UNSET,
    CreateByFile,
    CreateByText,
    CreatedDocument,
    Dataset,
    DisplayStatus,
    DocForm,
    Document,
    DocumentDetail,
    DocumentIds,
    DocumentStatus,
    IndexingTechnique,
    Page,
    ProcessRule,
    RetrievalModel,
    StoredFile,
    Unset,
    UpdateByFile,
    UpdateByText,
    validate_retrieval_model,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from . import _dataset_defaults as fitting
from ._arguments import (
    build_path_params,
    check_id,
    check_not_empty,
    file_from_argument,
    get_dataset_id,
    get_document_id,
)
from ._pager import Pager  # noqa: TC001 -- the blocking twins are written by this annotation
from ._read_documents import get_document, iter_documents, list_documents, wait_until_indexed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_ZIP_DOCUMENTS = 100
"""Documents of one zip."""


@frozen
class Documents:
    """The documents of a knowledge base."""

    _send: CallSender
    _times: Polling = field(factory=Polling)

    async def create_by_text(
        self,
        dataset_id: Dataset | str,
        name: str,
        text: str,
        *,
        indexing_technique: IndexingTechnique | str | Unset = UNSET,
        doc_form: DocForm | str | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
    ) -> CreatedDocument:
        """Create a document from a text, or replace the enabled one of the same name.

        One request; indexing follows on the server, see `indexing_status`. The server insists on
        `indexing_technique`, and up to 1.8 on `process_rule`: a `Dataset` fills in what is left
        out, but for the rule of a base that has documents, which no old server tells.

        Args:
            name: cut to 200 characters by the server.

        Raises:
            ConfigError: the rule is missing, and the server would crash (500); or a search that
                the server does not take.
            BadRequestError: something that the server insists on is missing.
            OutcomeUnknownError: no answer came; look for the name before sending it again: a
                second create while the first is still being indexed doubles its chunks.
        """
        request = CreateByText(
            name=name,
            text=text,
            indexing_technique=fitting.resolve_technique(dataset_id, indexing_technique),
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=fitting.resolve_process_rule_for_text(dataset_id, process_rule),
            retrieval_model=validate_retrieval_model(retrieval_model) if retrieval_model else UNSET,
        )
        return await self._send(
            catalog.CREATE_DOCUMENT_BY_TEXT(request, dataset_id=get_dataset_id(dataset_id))
        )

    async def create_by_file(
        self,
        dataset_id: Dataset | str,
        file: Path | str | bytes | BinaryIO,
        *,
        name: str | None = None,
        indexing_technique: IndexingTechnique | str | Unset = UNSET,
        doc_form: DocForm | str | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
        duplicate: bool = True,
    ) -> CreatedDocument:
        r"""Upload a file as a document, or replace the enabled one of the same name.

        One request; indexing follows on the server, see `indexing_status`. A file of more than
        64 KiB is streamed in blocks of 256 KiB, never held in memory. A `Dataset` fills in what
        the server insists on for a first document; an id does not.

        Args:
            file: a path, the bytes, or a binary file object, which is read from where it stands.
            name: what the document will be called; needed for bytes, else the file's own name.
                It must not hold any of / \\ : * ? " < > | and its extension must be one that the
                server takes. Names of over 200 characters are cut at their first dot.
            duplicate: False creates a second document of the same name instead of replacing the
                first, on every version (measured: 1.4.3, 1.12.1, 1.14.2). Of several, a later
                create replaces the newest.

        Raises:
            ConfigError: a name or a search that the server would refuse, or no name.
            SourceError: the file cannot be read, or changes while it is sent.
            BadRequestError: a type or size that the server does not take.
            OutcomeUnknownError: no answer came; look for the name before sending it again.
        """
        request = CreateByFile(
            file=await file_from_argument(file, name),
            indexing_technique=fitting.resolve_technique(dataset_id, indexing_technique),
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=fitting.resolve_process_rule(dataset_id, process_rule),
            retrieval_model=validate_retrieval_model(retrieval_model) if retrieval_model else UNSET,
            duplicate=UNSET if duplicate else False,
        )
        return await self._send(
            catalog.CREATE_DOCUMENT_BY_FILE(request, dataset_id=get_dataset_id(dataset_id))
        )

    async def update_by_text(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        name: str,
        text: str,
        doc_form: DocForm | str | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
    ) -> CreatedDocument:
        """Give a document another text; it is indexed again under its old batch.

        One request. Edits of its chunks are lost. Warns on 1.12.0 and 1.12.1, whose worker hangs
        for ever on it: there, create the document again by its name.

        Raises:
            BadRequestError: it is not available: still being indexed, failed, disabled, archived.
            NotFoundError: none of this id.
            OutcomeUnknownError: no answer came.
        """
        request = UpdateByText(
            name=name,
            text=text,
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=process_rule,
        )
        path_params = build_path_params(dataset_id, document_id=document_id)
        return await self._send(catalog.UPDATE_DOCUMENT_BY_TEXT(request, **path_params))

    async def update_by_file(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        file: Path | str | bytes | BinaryIO,
        *,
        name: str | None = None,
        doc_form: DocForm | str | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
    ) -> CreatedDocument:
        """Give a document another file; it is indexed again under its old batch.

        One request: a PATCH since 1.16, a POST before. Edits of its chunks are lost. Warns on
        1.12.0 and 1.12.1, whose worker hangs for ever on it.

        Args:
            name: what the document will be called; else the file's name.

        Raises:
            ConfigError: a name that the server would refuse, or none.
            BadRequestError: it is not available: still being indexed, failed, disabled, archived.
            NotFoundError: none of this id.
            TooLargeError: it is larger than the server takes.
            UnsupportedTypeError: the server does not take its type.
            OutcomeUnknownError: no answer came.
        """
        request = UpdateByFile(
            file=await file_from_argument(file, name),
            name=UNSET if name is None else name,
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=process_rule,
        )
        path_params = build_path_params(dataset_id, document_id=document_id)
        return await self._send(catalog.UPDATE_DOCUMENT_BY_FILE(request, **path_params))

    async def get(
        self, dataset_id: Dataset | str, document_id: str, *, metadata: str | Unset = UNSET
    ) -> DocumentDetail:
        """Fetch one document in full. One request; servers before 1.8 do not have it.

        Args:
            metadata: `all`, `only` or `without`.

        Raises:
            NotFoundError: none of this id.
        """
        return await get_document(self._send, dataset_id, document_id, metadata=metadata)

    async def list(
        self,
        dataset_id: Dataset | str,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
        status: DisplayStatus | str | Unset = UNSET,
    ) -> Page[Document]:
        """Fetch one page, the newest first. One request.

        Args:
            limit: rows, at most 100: larger pages are cut by the server without saying so.
            keyword: a pattern for the name in which `%` and `_` are wildcards; mind the case.
            status: since 1.11; older servers list everything.

        Raises:
            NotFoundError: no such dataset.
        """
        return await list_documents(
            self._send, dataset_id, page=page, limit=limit, keyword=keyword, status=status
        )

    def iter(
        self,
        dataset_id: Dataset | str,
        *,
        keyword: str | Unset = UNSET,
        status: DisplayStatus | str | Unset = UNSET,
    ) -> Pager[Document]:
        """Go through all documents, the newest first. One request per 100."""
        return iter_documents(self._send, dataset_id, keyword=keyword, status=status)

    async def delete(self, dataset_id: Dataset | str, document_id: str) -> None:
        """Delete a document, whatever its state; its chunks vanish a little later. One request.

        Raises:
            NotFoundError: none of this id.
            ForbiddenError: it is archived.
        """
        await self._send(
            catalog.DELETE_DOCUMENT.call(**build_path_params(dataset_id, document_id=document_id))
        )

    async def indexing_status(
        self, dataset_id: Dataset | str, batch: str
    ) -> Sequence[DocumentStatus]:
        """Ask how far the documents of a batch are, with their segments counted. One request.

        A create makes a batch of its own, so there is one entry; batches made in the console
        hold several.

        Raises:
            NotFoundError: the document was deleted, or created again by a later batch.
        """
        answer = await self._send(
            catalog.GET_INDEXING_STATUS.call(dataset_id=get_dataset_id(dataset_id), batch=batch)
        )
        return answer.data

    async def wait(
        self,
        dataset_id: Dataset | str,
        documents: Sequence[CreatedDocument | Document | str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- seconds of the caller's patience
        stall_after: float = 900.0,
    ) -> Sequence[Document]:
        """Wait until documents are indexed, and give the end state of each, in their order.

        Costs a page of the list per 100 documents at growing intervals. A document without a
        change for `stall_after` seconds comes back as it is: its `indexing_status` is not final.

        Raises:
            RequestTimeoutError: `timeout` seconds passed.
            NotFoundError: one of them was deleted.
        """
        ids = [get_document_id(document) for document in documents]
        return await wait_until_indexed(
            self._send, dataset_id, ids, timeout, stall_after, self._times
        )

    async def enable(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Let documents be found again. One request; since 1.8.

        All or nothing, and carried out later. A document whose status was changed a moment ago
        may answer "being indexed" for up to 10 minutes (measured): do not flip it twice.

        Raises:
            ConfigError: no ids.
            BadRequestError: one of them is busy; none was changed.
        """
        await self._set_status(dataset_id, "enable", document_ids)

    async def disable(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Keep completed documents from being found. One request; since 1.8; see `enable`.

        Raises:
            ConfigError: no ids.
            BadRequestError: one of them is busy or not completed; none was changed.
        """
        await self._set_status(dataset_id, "disable", document_ids)

    async def archive(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Keep documents from being found and deleted. One request; since 1.8; see `enable`.

        Raises:
            ConfigError: no ids.
            BadRequestError: one of them is busy; none was changed.
        """
        await self._set_status(dataset_id, "archive", document_ids)

    async def unarchive(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> None:
        """Take documents out of the archive. One request; since 1.8; see `enable`.

        Raises:
            ConfigError: no ids.
            BadRequestError: one of them is busy; none was changed.
        """
        await self._set_status(dataset_id, "un_archive", document_ids)

    async def download_url(self, dataset_id: Dataset | str, document_id: str) -> str:
        """Get an address of a document's file. One request; since 1.16.

        It is signed, lasts 300 seconds by default, and must not be given the API key.

        Raises:
            NotFoundError: none of this id, or it was no file.
        """
        return (
            await self._send(
                catalog.GET_DOWNLOAD_URL.call(
                    **build_path_params(dataset_id, document_id=document_id)
                )
            )
        ).url

    async def download_zip(self, dataset_id: Dataset | str, document_ids: Sequence[str]) -> bytes:
        """Fetch the files of 1 to 100 documents as a zip, in memory. One request; since 1.16.

        Raises:
            ConfigError: no ids, over 100, or one that is none.
            NotFoundError: one of them does not exist, or was no file.
        """
        check_not_empty(document_ids, "document_ids")
        if len(document_ids) > MAX_ZIP_DOCUMENTS:
            raise ConfigError(
                f"document_ids names {len(document_ids)} documents.",
                hint=f"The server zips at most {MAX_ZIP_DOCUMENTS} at a time.",
            )
        request = DocumentIds(document_ids=[check_id(id_, "document_ids") for id_ in document_ids])
        path_params = {"dataset_id": get_dataset_id(dataset_id)}
        return await self._send(catalog.DOWNLOAD_ZIP(request, **path_params))

    async def upload_file(self, dataset_id: Dataset | str, document_id: str) -> StoredFile:
        """Fetch what is known of a document's file. One request; up to 1.8.

        Raises:
            NotFoundError: none of this id, or the server has no such operation any more.
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
        await self._send(catalog.SET_DOCUMENT_STATUS(request, **path_params))
