from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import anyio.to_thread
from attrs import frozen

from dify_kb.errors import ConfigError, SourceError
from dify_kb.models import (
    UNSET,
    CreateByFile,
    CreateByText,
    Dataset,
    DisplayStatus,
    DocForm,
    Document,
    DocumentCreated,
    DocumentDetail,
    DocumentStatus,
    File,
    GetDocument,
    IndexingTechnique,
    ListDocuments,
    Page,
    ProcessRule,
    RetrievalModel,
    Unset,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Send

from ._named import checked_id, dataset_id_of
from ._pager import PAGE, Pager

if TYPE_CHECKING:
    from collections.abc import Sequence

_REFUSED = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|%22|\s$')
"""What the server does not take in a file name (recordings 210 to 226; measured), and what UTF-8
does not (the lone surrogates that stand for the bytes of a name that is not UTF-8)."""


@frozen
class Documents:
    """The documents of a knowledge base."""

    _send: Send

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
    ) -> DocumentCreated:
        """Create a document from a text, or replace the enabled one of the same name.

        One request; indexing follows on the server, see `indexing_status`. The server insists on
        `indexing_technique`, and up to 1.8 on `process_rule`: a `Dataset` fills in what is left
        out, an id does not.

        Args:
            name: cut to 200 characters by the server.

        Raises:
            BadRequestError: something that the server insists on is missing.
            OutcomeUnknownError: no answer came; look for the name before sending it again: a
                second create while the first is still being indexed doubles its chunks.
        """
        request = CreateByText(
            name=name,
            text=text,
            indexing_technique=_technique(dataset_id, indexing_technique),
            doc_form=_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=_rule(dataset_id, process_rule),
            retrieval_model=retrieval_model,
        )
        return await self._send(
            catalog.CREATE_DOCUMENT_BY_TEXT(request, dataset_id=dataset_id_of(dataset_id))
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
        duplicate: bool | Unset = UNSET,
    ) -> DocumentCreated:
        r"""Upload a file as a document, or replace the enabled one of the same name.

        One request; indexing follows on the server, see `indexing_status`. A file of more than
        64 KiB is streamed in blocks of 256 KiB, never held in memory. A `Dataset` fills in what
        the server insists on for a first document; an id does not.

        Args:
            file: a path, the bytes, or a binary file object, which is read from where it stands.
            name: what the document will be called; needed for bytes, else the file's own name.
                It must not hold any of / \\ : * ? " < > | and its extension must be one that the
                server takes. Names of over 200 characters are cut at their first dot.
            duplicate: False makes a second document instead of replacing the first.

        Raises:
            ConfigError: a name that the server would refuse, or none.
            SourceError: the file cannot be read, or changes while it is sent.
            BadRequestError: a type or size that the server does not take.
            OutcomeUnknownError: no answer came; look for the name before sending it again.
        """
        request = CreateByFile(
            file=await _opened(file, name),
            indexing_technique=_technique(dataset_id, indexing_technique),
            doc_form=_form(dataset_id, doc_form),
            doc_language=doc_language,
            process_rule=_rule(dataset_id, process_rule),
            retrieval_model=retrieval_model,
            duplicate=duplicate,
        )
        return await self._send(
            catalog.CREATE_DOCUMENT_BY_FILE(request, dataset_id=dataset_id_of(dataset_id))
        )

    async def get(
        self, dataset_id: Dataset | str, document_id: str, *, metadata: str | Unset = UNSET
    ) -> DocumentDetail:
        """Fetch one document in full. One request; servers before 1.8 do not have it.

        Args:
            metadata: `all`, `only` or `without`.

        Raises:
            NotFoundError: none of this id.
        """
        return await self._send(
            catalog.GET_DOCUMENT(
                GetDocument(metadata=metadata),
                dataset_id=dataset_id_of(dataset_id),
                document_id=checked_id(document_id, "document_id"),
            )
        )

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
        request = ListDocuments(
            page=page,
            limit=min(limit, PAGE),
            keyword=keyword,
            status=DisplayStatus(status) if status else UNSET,
        )
        return await self._send(
            catalog.LIST_DOCUMENTS(request, dataset_id=dataset_id_of(dataset_id))
        )

    def iter(
        self,
        dataset_id: Dataset | str,
        *,
        keyword: str | Unset = UNSET,
        status: DisplayStatus | str | Unset = UNSET,
    ) -> Pager[Document]:
        """Go through all documents, the newest first. One request per 100."""
        page = partial(self._numbered, dataset_id, keyword, status)
        return Pager(page, lambda document: document.id)

    async def delete(self, dataset_id: Dataset | str, document_id: str) -> None:
        """Delete a document, whatever its state; its chunks vanish a little later. One request.

        Raises:
            NotFoundError: none of this id.
            ForbiddenError: it is archived.
        """
        await self._send(
            catalog.DELETE_DOCUMENT.at(
                dataset_id=dataset_id_of(dataset_id),
                document_id=checked_id(document_id, "document_id"),
            )
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
            catalog.GET_INDEXING_STATUS.at(dataset_id=dataset_id_of(dataset_id), batch=batch)
        )
        return answer.data

    async def _numbered(
        self,
        dataset_id: Dataset | str,
        keyword: str | Unset,
        status: DisplayStatus | str | Unset,
        number: int,
    ) -> Page[Document]:
        return await self.list(dataset_id, page=number, limit=PAGE, keyword=keyword, status=status)


async def _opened(file: Path | str | bytes | BinaryIO, name: str | None) -> File:
    return _named(await anyio.to_thread.run_sync(_measured, file, name))


def _measured(file: Path | str | bytes | BinaryIO, name: str | None) -> File:
    match file:
        case bytes():
            return File(name=name or "", content=file, size=len(file))
        case str() | Path():
            path = Path(file)
            try:
                return File(name=name or path.name, content=path, size=path.stat().st_size)
            except OSError as error:
                raise SourceError(
                    f"{path} could not be read ({error.strerror or error}).",
                    hint="Check the path and its permissions.",
                ) from error
        case _:
            return _of_stream(file, name)


def _of_stream(file: BinaryIO, name: str | None) -> File:
    own = getattr(file, "name", None)
    name = name or (Path(own).name if isinstance(own, str) else "")
    if not file.seekable():
        content = file.read()
        return File(name=name, content=content, size=len(content))
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    return File(name=name, content=file, size=size, start=start)


def _named(file: File) -> File:
    if not file.name:
        raise ConfigError("The file has no name.", hint='Pass name="….txt": it names the document.')
    if _REFUSED.search(file.name):
        raise ConfigError(
            f"name is {file.name!r}, which the server does not take.",
            hint='Leave out / \\ : * ? " < > |, %22, control characters and spaces at the end.',
        )
    return file


def _technique(
    dataset: Dataset | str, given: IndexingTechnique | str | Unset
) -> IndexingTechnique | Unset:
    if given:
        return IndexingTechnique(given)
    return (isinstance(dataset, Dataset) and dataset.indexing_technique) or UNSET


def _form(dataset: Dataset | str, given: DocForm | str | Unset) -> DocForm | Unset:
    if given:
        return DocForm(given)
    return (isinstance(dataset, Dataset) and dataset.doc_form) or UNSET


def _rule(dataset: Dataset | str, given: ProcessRule | Unset) -> ProcessRule | Unset:
    """A first document needs a rule; later ones take that of the dataset."""
    if given or not isinstance(dataset, Dataset) or dataset.document_count:
        return given
    return ProcessRule.automatic()
