from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.models import (
    BuiltInField,
    Dataset,
    DocumentMetadata,
    MetadataField,
    MetadataFields,
    MetadataType,
    RenameMetadata,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import build_path_params, check_id, check_length, check_not_empty, get_dataset_id
from .metadata_assignment import (
    MetadataAssignment,
    assign_or_raise,
    assign_values,
    create_field,
    list_fields,
)
from .metadata_validation import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@frozen
class Metadata:
    """The metadata fields of a knowledge base, and their values on documents."""

    _send: CallSender

    async def create(
        self,
        dataset_id: Dataset | str,
        name: str,
        *,
        type: MetadataType | str,  # noqa: A002 -- the API's word
    ) -> MetadataField:
        """Add a field. One request, never repeated when it may have been carried out.

        Args:
            name: 1 to 255 characters, unique in the base.
            type: string, number or time.

        Raises:
            ConfigError: a name or a type that the server does not take.
            BadRequestError: the base has a field of that name, or it is a built-in one's.
        """
        return await create_field(self._send, dataset_id, name, MetadataType(type))

    async def list(self, dataset_id: Dataset | str) -> MetadataFields:
        """Fetch the fields, each with the number of documents that have a value. One request."""
        return await list_fields(self._send, dataset_id)

    async def update(self, dataset_id: Dataset | str, metadata_id: str, name: str) -> MetadataField:
        """Give a field another name. One request.

        Raises:
            ConfigError: a name that the server does not take.
            BadRequestError: the name is taken, also when it is the field's own.
            ProtocolError: up to 1.12 an unknown id is answered with a field of nulls.
        """
        request = RenameMetadata(name=check_length(name, "name", 1, MAX_NAME_LENGTH))
        return await self._send(
            catalog.RENAME_METADATA(
                request, **build_path_params(dataset_id, metadata_id=metadata_id)
            )
        )

    async def delete(self, dataset_id: Dataset | str, metadata_id: str) -> None:
        """Delete a field with its values. One request; up to 1.12 an unknown id succeeds too."""
        await self._send(
            catalog.DELETE_METADATA.call(**build_path_params(dataset_id, metadata_id=metadata_id))
        )

    async def built_in_fields(self, dataset_id: Dataset | str) -> Sequence[BuiltInField]:
        """Fetch the fields that the server fills in by itself. One request; before 1.11 they are
        asked for at another path.
        """
        path_params = {"dataset_id": get_dataset_id(dataset_id)}
        return (await self._send(catalog.LIST_BUILT_IN_FIELDS.call(**path_params))).fields

    async def enable_built_in(self, dataset_id: Dataset | str) -> None:
        """Show the built-in fields among a document's metadata. One request."""
        await self._set_built_in(dataset_id, "enable")

    async def disable_built_in(self, dataset_id: Dataset | str) -> None:
        """Hide the built-in fields. One request."""
        await self._set_built_in(dataset_id, "disable")

    async def assign(
        self,
        dataset_id: Dataset | str,
        documents: Sequence[DocumentMetadata],
        *,
        partial_update: bool = True,
    ) -> None:
        """Set values of documents. One request.

        Up to 1.12 an unknown document or field is passed over without a word, and servers before
        1.11 replace all values of a document whatever `partial_update` says: read back what
        matters.

        Args:
            documents: the values of each document; a number for a number or time field, or
                searches will not match it.
            partial_update: keep the values that are not named.

        Raises:
            ConfigError: no documents, or a value that is neither text, number nor None.
        """
        await assign_values(self._send, dataset_id, documents, partial_update=partial_update)

    async def assign_by_name(
        self, dataset_id: Dataset | str, values: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Set values of many documents by the names of their fields, and keep what they have.

        A field that the base does not have is made, with the type of its first value: text,
        number or `datetime`. Costs one list of the fields, one request for each new field and one
        per 50 documents; before 1.11, and where the dataset is only an id, one more for each
        document, as servers before 1.11 would drop the values that are not named. A document
        gets all of its values or none. Safe to repeat.

        Args:
            values: names and values by the ids of the documents.

        Raises:
            ConfigError: no documents.
            PartialError: some were refused, or the server failed after some were set: `done` and
                `failed` name them.
            KnowledgeError: the server failed before any was set.
        """
        check_not_empty(values, "values")
        for document_id in values:
            check_id(document_id, "document_id")
        await assign_or_raise(MetadataAssignment(self._send, dataset_id), values)

    async def _set_built_in(self, dataset_id: Dataset | str, action: str) -> None:
        path_params = {"dataset_id": get_dataset_id(dataset_id), "action": action}
        await self._send(catalog.SET_BUILT_IN_FIELDS.call(**path_params))
