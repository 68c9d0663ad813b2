from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.argument_checks import check_methods
from dify_kb.models import (
    BuiltInField,
    Dataset,
    DocumentMetadata,
    MetadataField,
    MetadataFields,
    MetadataType,
    MetadataTypeName,
    RenameMetadata,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_id, check_length, check_not_empty, get_dataset_id
from ._recovery import recover
from .metadata_assignment import (
    MetadataAssignment,
    assign_or_raise,
    assign_values,
    create_field,
    find_field,
    list_fields,
)
from .metadata_validation import MAX_NAME_LENGTH, check_assigned_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@check_methods
@frozen
class Metadata:
    """The metadata fields of a knowledge base, and their values on documents."""

    _send: CallSender

    async def create(
        self,
        dataset_id: Dataset | str,
        name: str,
        *,
        type: MetadataType | MetadataTypeName,  # noqa: A002 -- the API's word
    ) -> MetadataField:
        """Create a metadata field. Costs one request; if its response is lost, it is looked up.

        Args:
            name: 1 to 255 characters, unique in the dataset.
            type: `string`, `number` or `time`.

        Raises:
            ConfigError: the name or the type is invalid.
            BadRequestError: the name is that of an existing or a built-in field.
        """
        return await create_field(self._send, dataset_id, name, MetadataType(type))

    async def list(self, dataset_id: Dataset | str) -> MetadataFields:
        """Return the fields, with the number of documents that use each. Costs one request."""
        return await list_fields(self._send, dataset_id)

    async def update(self, dataset_id: Dataset | str, metadata_id: str, name: str) -> MetadataField:
        """Rename a field. Costs one request.

        Raises:
            ConfigError: the name is invalid.
            BadRequestError: the name is already in use, also by the field itself.
            ProtocolError: the id is unknown, and the server is 1.12 or older.
        """
        request = RenameMetadata(name=check_length(name, "name", 1, MAX_NAME_LENGTH))
        path_params = build_path_params(dataset_id, metadata_id=metadata_id)
        return await recover(
            self._send(catalog.RENAME_METADATA(request, **path_params)),
            lambda: find_field(self._send, dataset_id, id=metadata_id, name=name),
        )

    async def delete(self, dataset_id: Dataset | str, metadata_id: str) -> None:
        """Delete a field and its values. Costs one request.

        Up to 1.12, deleting an unknown id also succeeds.
        """
        await self._send(
            catalog.DELETE_METADATA.call(**build_path_params(dataset_id, metadata_id=metadata_id))
        )

    async def built_in_fields(self, dataset_id: Dataset | str) -> Sequence[BuiltInField]:
        """Return the fields that the server fills in automatically. Costs one request."""
        path_params = {"dataset_id": get_dataset_id(dataset_id)}
        return (await self._send(catalog.LIST_BUILT_IN_FIELDS.call(**path_params))).fields

    async def enable_built_in(self, dataset_id: Dataset | str) -> None:
        """Include the built-in fields in the metadata of documents. Costs one request."""
        await self._set_built_in(dataset_id, "enable")

    async def disable_built_in(self, dataset_id: Dataset | str) -> None:
        """Exclude the built-in fields from the metadata of documents. Costs one request."""
        await self._set_built_in(dataset_id, "disable")

    async def assign(
        self,
        dataset_id: Dataset | str,
        documents: Sequence[DocumentMetadata],
        *,
        partial_update: bool = True,
    ) -> None:
        """Set metadata values of documents, by field id. Costs one request.

        Servers before 1.11 replace all values of a document, so with `partial_update` its values
        are read first, which costs one request per document, on 1.4.3 one per 100 documents of the
        dataset; and one more if the client does not know the server's version yet. Up to 1.12 the
        server silently ignores unknown documents and fields.

        Args:
            documents: the values of each document. Fields of type number or time need a number;
                otherwise searches do not match the value.
            partial_update: keep the values of other fields.

        Raises:
            ConfigError: no documents, or a value that is neither a string, a number nor None, or
                contains NUL, which Dify fails to store.
            BadRequestError: since 1.14 a document does not exist. Those before it were changed.
            NotFoundError: before 1.11 a document does not exist.
        """
        check_assigned_values(documents)
        if partial_update:
            documents = await MetadataAssignment(self._send, dataset_id).complete(documents)
        await assign_values(self._send, dataset_id, documents, partial_update=partial_update)

    async def assign_by_name(
        self, dataset_id: Dataset | str, values: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Set metadata values of many documents, by field name. Other values are kept.

        Missing fields are created, with the type of their first value (string, number or
        `datetime`). Each document gets all its values or none. Safe to repeat.

        Costs one request for the list of fields, one per new field and one per 50 documents.
        Before 1.11 each document is read first, one request each: the server would delete its
        other values.

        Args:
            values: the values by field name, for each document id.

        Raises:
            ConfigError: no documents.
            PartialError: documents were rejected, or the server failed after some were set;
                `done` and `failed` list them.
            KnowledgeError: the server failed before any document was set.
        """
        check_not_empty(values, "values")
        for document_id in values:
            check_id(document_id, "document_id")
        await assign_or_raise(MetadataAssignment(self._send, dataset_id), values)

    async def _set_built_in(self, dataset_id: Dataset | str, action: str) -> None:
        path_params = {"dataset_id": get_dataset_id(dataset_id), "action": action}
        await self._send(catalog.SET_BUILT_IN_FIELDS.call(**path_params))
