from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO

from attrs import field, frozen

from dify_kb.argument_checks import check_methods
from dify_kb.arguments import parse_duration, parse_optional_duration
from dify_kb.config import Polling
from dify_kb.errors import ApiError, ConfigError
from dify_kb.models import (
    UNSET,
    CreateByFile,
    CreateByText,
    CreatedDocument,
    Dataset,
    DisplayStatus,
    DisplayStatusName,
    DocForm,
    DocFormName,
    Document,
    DocumentDetail,
    DocumentStatus,
    IndexingTechnique,
    MetadataSelection,
    Page,
    ProcessRule,
    RetrievalModel,
    TechniqueName,
    Unset,
    UpdateByFile,
    UpdateByText,
    validate_retrieval_model,
)
from dify_kb.wire import catalog
from dify_kb.wire.version_bugs import hangs_on_update

from . import _dataset_defaults as fitting
from ._arguments import (
    build_path_params,
    check_length,
    file_from_argument,
    get_dataset_id,
    get_document_id,
)
from ._document_states import DocumentStateMethods
from ._pager import Pager  # noqa: TC001 -- the blocking twins are written by this annotation
from ._read_documents import get_document, iter_documents, list_documents, wait_until_indexed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dify_kb.arguments import Duration

MAX_NAME_LENGTH = 200
"""Characters of a document's name that the server keeps (measured on 1.4.3, 1.12.1 and 1.14.2)."""


@check_methods
@frozen
class Documents(DocumentStateMethods):
    """The documents of a knowledge base."""

    _times: Polling = field(factory=Polling)

    async def create_by_text(
        self,
        dataset_id: Dataset | str,
        name: str,
        text: str,
        *,
        indexing_technique: IndexingTechnique | TechniqueName | Unset = UNSET,
        doc_form: DocForm | DocFormName | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
    ) -> CreatedDocument:
        """Create a document from a text, or replace the enabled document of the same name.

        Costs one request. Indexing continues on the server; see `wait`. The server requires
        `indexing_technique`, and up to 1.8 also `process_rule`. A `Dataset` as `dataset_id`
        provides both, except for the rule of a dataset with documents on servers up to 1.8.

        Args:
            name: name of the document, at most 200 characters: the server would truncate it, and
                replace the document of another name that begins alike (measured on 1.14.2).

        Raises:
            ConfigError: the name is too long, `process_rule` is missing although the server needs
                it, or the retrieval model is invalid.
            BadRequestError: a required field is missing.
            OutcomeUnknownError: no response arrived. Search for the name before repeating the
                create: a second one while the first is being indexed duplicates its chunks.
        """
        request = CreateByText(
            name=check_length(name, "name", 0, MAX_NAME_LENGTH),
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
        indexing_technique: IndexingTechnique | TechniqueName | Unset = UNSET,
        doc_form: DocForm | DocFormName | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
        duplicate: bool = True,
    ) -> CreatedDocument:
        r"""Create a document from a file, or replace the enabled document of the same name.

        Costs one request. Indexing continues on the server; see `wait`. Files of more than 64 KiB
        are streamed in blocks of 256 KiB. A `Dataset` as `dataset_id` provides the fields that
        the server requires for a first document; an id does not.

        Args:
            file: a path, bytes, or a binary file object, which is read from its current position.
            name: name of the document; required for bytes, otherwise by default the file's name.
                It must not contain / \\ : * ? " < > | and needs an extension that the server
                accepts. The server shortens names of more than 200 characters at the first dot.
            duplicate: False creates a second document of the same name instead of replacing the
                first, on every version (measured: 1.4.3, 1.12.1, 1.14.2). Of several, a later
                create replaces the newest.

        Raises:
            ConfigError: the name is missing or invalid, or the retrieval model is invalid.
            SourceError: the file cannot be read, or changes while it is sent.
            BadRequestError: the server does not accept the file's type or size.
            OutcomeUnknownError: no response arrived. Search for the name before repeating.
        """
        request = CreateByFile(
            file=file_from_argument(file, name),
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
        doc_form: DocForm | DocFormName | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
    ) -> CreatedDocument:
        """Replace the text of a document, which is then indexed again under the same batch.

        Costs one request. Edits of its chunks are lost. Warns on 1.12.0 and 1.12.1, whose worker
        would hang forever: on these versions, create the document again under its name.

        Raises:
            BadRequestError: the document is being indexed, failed, disabled or archived.
            NotFoundError: the document does not exist.
            OutcomeUnknownError: no response arrived.
        """
        request = UpdateByText(
            name=check_length(name, "name", 0, MAX_NAME_LENGTH),
            text=text,
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=process_rule,
        )
        return await self._update_by_text(dataset_id, document_id, request)

    async def rename(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        name: str,
        *,
        process_rule: ProcessRule | Unset = UNSET,
    ) -> CreatedDocument:
        """Rename a document. Its id, position and metadata stay, but it is indexed again.

        The server renames only together with indexing from its stored file: until `wait` returns,
        searches do not find the document, and edits of its chunks are lost (measured on 1.4.3 and
        1.14.2). Another document of that name is not replaced. Costs two requests, or one if
        `process_rule` is given.

        Args:
            name: new name of the document, at most 200 characters. Keep its extension.
            process_rule: how to split the document; by default as before, which requires 1.8.

        Raises:
            ConfigError: the name is empty or too long; the server is 1.12.0 or 1.12.1, whose worker
                would hang forever; or it is too old to return the rule.
            BadRequestError: the document is being indexed, failed, disabled or archived.
            NotFoundError: the document does not exist.
            OutcomeUnknownError: no response arrived. Repeating the call is safe once the document
                is indexed.
        """
        check_length(name, "name", 1, MAX_NAME_LENGTH)
        rule = process_rule or await self._fetch_process_rule(dataset_id, document_id)
        if hangs_on_update(self._send.server_version):
            raise ConfigError(
                f"Dify {self._send.server_version} cannot rename a document: its worker would hang"
                " forever.",
                hint="Create the document under the new name and delete the old one, or upgrade.",
            )
        request = UpdateByText(name=name, process_rule=rule)
        return await self._update_by_text(dataset_id, document_id, request)

    async def update_by_file(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        file: Path | str | bytes | BinaryIO,
        *,
        name: str | None = None,
        doc_form: DocForm | DocFormName | Unset = UNSET,
        doc_language: str | Unset = UNSET,
        process_rule: ProcessRule | Unset = UNSET,
    ) -> CreatedDocument:
        """Replace the file of a document, which is then indexed again under the same batch.

        Costs one request: PATCH since 1.14.2, POST before. Edits of its chunks are lost. Warns on
        1.12.0 and 1.12.1, whose worker would hang forever.

        Args:
            name: new name of the document; by default the file's name.

        Raises:
            ConfigError: the name is missing or invalid.
            BadRequestError: the document is being indexed, failed, disabled or archived.
            NotFoundError: the document does not exist.
            TooLargeError: the file exceeds the server's size limit.
            UnsupportedTypeError: the server does not accept the file's type.
            OutcomeUnknownError: no response arrived.
        """
        request = UpdateByFile(
            file=file_from_argument(file, name),
            name=UNSET if name is None else name,
            doc_form=fitting.resolve_doc_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=process_rule,
        )
        path_params = build_path_params(dataset_id, document_id=document_id)
        return await self._send(catalog.UPDATE_DOCUMENT_BY_FILE(request, **path_params))

    async def get(
        self,
        dataset_id: Dataset | str,
        document_id: str,
        *,
        metadata: MetadataSelection | Unset = UNSET,
    ) -> DocumentDetail:
        """Return one document with all its fields. Costs one request; requires 1.8.

        Args:
            metadata: `all`, `only` (no other fields) or `without`.

        Raises:
            NotFoundError: the document does not exist.
        """
        return await get_document(self._send, dataset_id, document_id, metadata=metadata)

    async def list(
        self,
        dataset_id: Dataset | str,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
        status: DisplayStatus | DisplayStatusName | Unset = UNSET,
    ) -> Page[Document]:
        """Return one page of documents, newest first. Costs one request.

        Args:
            limit: number of rows, at most 100.
            keyword: text that the name must contain, case-sensitive; `%` and `_` are wildcards.
            status: return only documents with this status; ignored by servers before 1.11.

        Raises:
            NotFoundError: the dataset does not exist.
        """
        return await list_documents(
            self._send, dataset_id, page=page, limit=limit, keyword=keyword, status=status
        )

    def iter(
        self,
        dataset_id: Dataset | str,
        *,
        keyword: str | Unset = UNSET,
        status: DisplayStatus | DisplayStatusName | Unset = UNSET,
    ) -> Pager[Document]:
        """Iterate over all documents, newest first. Costs one request per 100."""
        return iter_documents(self._send, dataset_id, keyword=keyword, status=status)

    async def delete(self, dataset_id: Dataset | str, document_id: str) -> None:
        """Delete a document in any state. Its chunks are removed later. Costs one request.

        Raises:
            NotFoundError: the document does not exist.
            ForbiddenError: the document is archived.
        """
        await self._send(
            catalog.DELETE_DOCUMENT.call(**build_path_params(dataset_id, document_id=document_id))
        )

    async def indexing_status(
        self, dataset_id: Dataset | str, batch: str
    ) -> Sequence[DocumentStatus]:
        """Return the indexing progress of the documents of a batch. Costs one request.

        Each create has its own batch with one document; batches of the console may have several.

        Raises:
            NotFoundError: the document was deleted, or created again in a later batch.
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
        timeout: Duration | None = None,  # noqa: ASYNC109 -- an option of the caller
        stall_after: Duration = 900.0,
    ) -> Sequence[Document]:
        """Wait until documents are indexed, and return their final state in the given order.

        Costs one request per 100 documents of the dataset for each poll, at growing intervals.
        Both times are in seconds, or texts such as `15m`. After `stall_after` without any change,
        the documents are returned as they are, also with an `indexing_status` that is not final.

        Raises:
            ConfigError: a time is not a duration, or an id is invalid.
            RequestTimeoutError: `timeout` passed.
            NotFoundError: a document was deleted.
        """
        ids = [get_document_id(document) for document in documents]
        return await wait_until_indexed(
            self._send,
            dataset_id,
            ids,
            parse_optional_duration(timeout, "timeout"),
            parse_duration(stall_after, "stall_after"),
            self._times,
        )

    async def _update_by_text(
        self, dataset_id: Dataset | str, document_id: str, request: UpdateByText
    ) -> CreatedDocument:
        path_params = build_path_params(dataset_id, document_id=document_id)
        return await self._send(catalog.UPDATE_DOCUMENT_BY_TEXT(request, **path_params))

    async def _fetch_process_rule(self, dataset_id: Dataset | str, document_id: str) -> ProcessRule:
        """Return the rule by which a document was split."""
        try:
            detail = await get_document(self._send, dataset_id, document_id)
        except ApiError as error:
            if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            raise ConfigError(
                f"Dify {error.server_version} does not return the process rule of a document.",
                hint="Pass process_rule=….",
            ) from error
        rule = detail.document_process_rule or detail.dataset_process_rule
        return ProcessRule.from_response(rule) if rule else ProcessRule.automatic()
