"""Assign metadata values to many documents, by field name."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.errors import (
    BadRequestError,
    ConfigError,
    KnowledgeError,
    NotFoundError,
    OutcomeUnknownError,
    PartialError,
    TooLargeError,
)
from dify_kb.models import (
    AssignMetadata,
    CreateMetadata,
    Dataset,
    Document,
    DocumentDetail,
    DocumentMetadata,
    MetadataField,
    MetadataType,
    MetadataValue,
    read_values,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender
from dify_kb.wire.version_bugs import is_older

from ._arguments import check_length, get_dataset_id
from ._read_documents import get_document, iter_documents
from ._recovery import recover
from .metadata_validation import (
    MAX_NAME_LENGTH,
    AssignableValue,
    MetadataWarning,
    check_assigned_values,
    validate_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from dify_kb.models import MetadataFields

DOCUMENTS_PER_REQUEST = 50
"""Documents per request. The server writes each in its own transaction (recording 703): larger
requests would gain nothing and be more expensive to repeat."""


@define
class MetadataAssignment:
    """An assignment of metadata values by field name, which keeps all other values.

    Missing fields are created when first needed, with the type of the value: string, number or
    time (`datetime`). Texts are converted for number and time fields. Costs one request for the
    list of fields, one per new field, and one per 50 documents. Servers before 1.11 can only
    replace all values of a document, so a document that may have values is read first: one request
    each, on 1.4.3 once one per 100 documents of the dataset. This also applies if a proxy removes
    the server's version from its responses.

    Up to 1.12 the server silently ignores a deleted document (recording 702), which then counts as
    set unless it was read first. Values that other clients set between the read and the write are
    lost. A document must not be in two concurrent calls.
    """

    _send: CallSender
    _dataset: Dataset | str
    _fields: dict[str, MetadataField] | None = field(default=None, init=False)
    _values_by_document: dict[str, dict[str, MetadataValue]] | None = field(
        default=None, init=False
    )
    _rejected_fields: dict[str, BadRequestError] = field(factory=dict, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def require(self, metadata: Mapping[str, object]) -> None:
        """Check that these values can be set. Costs one request for the list of fields.

        Raises:
            ConfigError: a name or a value is invalid, or does not fit the type of its field.
        """
        wanted = validate_metadata(metadata)
        async with self._lock:
            fields = await self._load_fields()
        for name, value in wanted.items():
            if name in fields:
                fields[name].make_value(value)

    async def convert(
        self, metadata: Mapping[str, AssignableValue]
    ) -> tuple[dict[str, AssignableValue], Sequence[MetadataWarning]]:
        """Return the values that fit the type of their field, and a warning for each other.

        Missing fields are created. Costs as `assign`, which then assigns the values.

        Raises:
            KnowledgeError: the fields could not be listed or created.
        """
        values, warnings = dict[str, AssignableValue](), list[MetadataWarning]()
        for name, value in metadata.items():
            try:
                if name in self._rejected_fields:
                    raise self._rejected_fields[name]
                await self._build_value(name, value)
            except (ConfigError, BadRequestError) as error:
                warnings.append(MetadataWarning.from_error(name, error))
            else:
                values[name] = value
        return values, warnings

    async def complete(self, documents: Sequence[DocumentMetadata]) -> Sequence[DocumentMetadata]:
        """Return the values, with all others of the documents if the server would delete these.

        Costs nothing if the server is known to be 1.11 or newer; if its version is unknown, one
        request for the list of fields.

        Raises:
            NotFoundError: the server is older, and a document does not exist.
            ConfigError: the same on 1.4.3.
        """
        if self._send.server_version is None:
            async with self._lock:
                await self._load_fields()
        return [
            evolve(
                document,
                metadata_list=[
                    *(
                        await self._fetch_existing_values(document.document_id)
                        | _by_name(document.metadata_list)
                    ).values()
                ],
            )
            for document in documents
        ]

    async def assign(
        self,
        wanted: Mapping[str, Mapping[str, object]],
        *,
        fresh: AbstractSet[str] = frozenset(),
    ) -> dict[str, str | None]:
        """Set values of documents; return the reason of failure for each document id, or None.

        Each document gets all its values or none. A rejected batch is split in halves until the
        rejected documents are found: about 12 requests for one of 50, two per document if all are
        rejected. Safe to repeat.

        Args:
            wanted: the values by field name, for each document id.
            fresh: ids of new documents, which have no values to read first.

        Raises:
            KnowledgeError: an error that concerns all documents: no response, a server error, an
                invalid key, a plan limit, or a deleted dataset. Values already set remain.
        """
        reasons: dict[str, str | None] = dict.fromkeys(wanted)
        non_empty = [(key, metadata) for key, metadata in wanted.items() if metadata]
        if non_empty:
            async with self._lock:
                await self._load_fields()
        for start in range(0, len(non_empty), DOCUMENTS_PER_REQUEST):
            reasons |= await self._assign_batch(
                non_empty[start : start + DOCUMENTS_PER_REQUEST], fresh
            )
        return reasons

    async def _assign_batch(
        self, wanted: Iterable[tuple[str, Mapping[str, object]]], fresh: AbstractSet[str]
    ) -> dict[str, str]:
        """Set the values of a batch, and return the reason for each rejected document."""
        refused: dict[str, str] = {}
        ready: list[DocumentMetadata] = []
        for document_id, metadata in wanted:
            try:
                new_values = [
                    await self._build_value(*item) for item in validate_metadata(metadata).items()
                ]
                existing = (
                    {} if document_id in fresh else await self._fetch_existing_values(document_id)
                )
            except (ConfigError, BadRequestError, NotFoundError) as error:
                refused[document_id] = str(error)
                continue
            values = list((existing | _by_name(new_values)).values())
            ready.append(DocumentMetadata(document_id=document_id, metadata_list=values))
        return refused | await self._send_batch(ready)

    async def _send_batch(self, batch: Sequence[DocumentMetadata]) -> dict[str, str]:
        if not batch:
            return {}
        try:
            await assign_values(self._send, self._dataset, batch, partial_update=True)
        except (ConfigError, BadRequestError, TooLargeError) as error:
            if len(batch) == 1:
                return {batch[0].document_id: str(error)}
            middle = len(batch) // 2
            return await self._send_batch(batch[:middle]) | await self._send_batch(batch[middle:])
        if self._values_by_document is not None:
            self._values_by_document |= {
                row.document_id: _by_name(row.metadata_list) for row in batch
            }
        return {}

    async def _build_value(self, name: str, value: AssignableValue) -> MetadataValue:
        async with self._lock:
            fields = await self._load_fields()
            if name not in fields:
                fields = {
                    **fields,
                    name: await self._create_missing_field(name, _get_metadata_type(value)),
                }
                self._fields = fields
        return fields[name].make_value(value)

    async def _load_fields(self) -> dict[str, MetadataField]:
        if self._fields is None:
            answer = await list_fields(self._send, self._dataset)
            self._fields = {
                metadata_field.name: metadata_field for metadata_field in answer.doc_metadata
            }
        return self._fields

    async def _create_missing_field(self, name: str, kind: MetadataType) -> MetadataField:
        try:
            return await create_field(self._send, self._dataset, name, kind)
        except (BadRequestError, OutcomeUnknownError) as error:
            # Created by another client, or by this request, whose response was lost.
            self._fields = None
            fields = await self._load_fields()
            if name not in fields:
                if isinstance(error, BadRequestError):
                    self._rejected_fields[name] = error
                raise
            return fields[name]

    async def _fetch_existing_values(self, document_id: str) -> dict[str, MetadataValue]:
        """Return the values that the server would otherwise delete."""
        if merges_values(self._send, self._dataset):
            return {}
        if self._values_by_document is None:
            try:
                detail = await get_document(self._send, self._dataset, document_id, metadata="only")
            except (BadRequestError, NotFoundError) as error:
                if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                    raise
            else:
                return _read_document_values(detail)
        listed = await self._fetch_all_values()
        if document_id not in listed:
            raise ConfigError(f"Document {document_id} does not exist in the dataset.")
        return listed[document_id]

    async def _fetch_all_values(self) -> dict[str, dict[str, MetadataValue]]:
        """Return the values of all documents; 1.4.3 cannot return a single document."""
        async with self._lock:
            if self._values_by_document is None:
                rows = iter_documents(self._send, self._dataset)
                self._values_by_document = {
                    row.id: _read_document_values(row) async for row in rows
                }
            return self._values_by_document


async def assign_or_raise(
    assignment: MetadataAssignment, wanted: Mapping[str, Mapping[str, object]]
) -> None:
    """Set values of documents.

    Raises:
        PartialError: a document was rejected, or the server failed after some were set.
        KnowledgeError: the server failed before any document was set.
    """
    reasons: dict[str, str | None] = {}
    rows = list(wanted.items())
    for start in range(0, len(rows), DOCUMENTS_PER_REQUEST):
        try:
            reasons |= await assignment.assign(dict(rows[start : start + DOCUMENTS_PER_REQUEST]))
        except KnowledgeError as error:
            partial = _partial_error(reasons, len(rows), error)
            if not partial.done:
                raise
            raise partial from error
    if any(reasons.values()):
        raise _partial_error(reasons, len(rows))


def _partial_error(
    reasons: Mapping[str, str | None], total: int, error: KnowledgeError | None = None
) -> PartialError:
    assigned_ids = [key for key, reason in reasons.items() if reason is None]
    failed = {key: reason for key, reason in reasons.items() if reason is not None}
    why = error.summary if error else next(iter(failed.values()))
    return PartialError(
        f"Metadata was set on {len(assigned_ids)} of {total} documents: {why}",
        done=assigned_ids,
        failed=failed,
        hint="Repeat the call, which is safe; `failed` has the reason for each rejected document.",
    )


def _get_metadata_type(value: AssignableValue) -> MetadataType:
    match value:
        case str():
            return MetadataType.STRING
        case datetime():
            return MetadataType.TIME
        case _:
            return MetadataType.NUMBER


def _by_name(values: Iterable[MetadataValue]) -> dict[str, MetadataValue]:
    return {value.name: value for value in values}


def _read_document_values(document: Document | DocumentDetail) -> dict[str, MetadataValue]:
    """Return a document's values, without the built-in ones."""
    values = read_values(document.doc_metadata, parse=isinstance(document, Document))
    return _by_name(value for value in values if value.id != "built-in")


def merges_values(send: CallSender, dataset: Dataset | str) -> bool:
    """Return whether the server is known to support `partial_update`, as all since 1.11 do."""
    if send.server_version:
        return not is_older(send.server_version, "1.11")
    # Datasets have `enable_api` since 1.11 as well (recordings 090, 686).
    return isinstance(dataset, Dataset) and dataset.enable_api is not None


async def list_fields(send: CallSender, dataset: Dataset | str) -> MetadataFields:
    """Return the metadata fields of a dataset."""
    return await send(catalog.LIST_METADATA.call(dataset_id=get_dataset_id(dataset)))


async def create_field(
    send: CallSender, dataset: Dataset | str, name: str, kind: MetadataType
) -> MetadataField:
    """Create a metadata field.

    Raises:
        ConfigError: the name or the type is invalid.
    """
    if not kind.is_known:
        raise ConfigError(
            f"Invalid metadata type {str(kind)!r}.", hint=f"Use one of {', '.join(MetadataType)}."
        )
    request = CreateMetadata(name=check_length(name, "name", 1, MAX_NAME_LENGTH), type=kind)
    return await recover(
        send(catalog.CREATE_METADATA(request, dataset_id=get_dataset_id(dataset))),
        lambda: find_field(send, dataset, name=name, type=kind),
    )


async def find_field(
    send: CallSender, dataset: Dataset | str, **values: object
) -> MetadataField | None:
    """Return the field of a dataset with these values, or None."""
    fields = (await list_fields(send, dataset)).doc_metadata
    wanted = values.items()
    return next((row for row in fields if all(getattr(row, k) == v for k, v in wanted)), None)


async def assign_values(
    send: CallSender,
    dataset: Dataset | str,
    documents: Sequence[DocumentMetadata],
    *,
    partial_update: bool,
) -> None:
    """Set values of documents in one request.

    Raises:
        ConfigError: see `check_assigned_values`.
    """
    check_assigned_values(documents)
    operation = [evolve(document, partial_update=partial_update) for document in documents]
    request = AssignMetadata(operation_data=operation)
    await send(catalog.ASSIGN_METADATA(request, dataset_id=get_dataset_id(dataset)))
