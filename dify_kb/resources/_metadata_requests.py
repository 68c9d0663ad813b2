"""Requests about metadata that both the resource and the assignment by name send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from dify_kb.errors import ConfigError
from dify_kb.models import AssignMetadata, CreateMetadata, MetadataType
from dify_kb.wire import catalog

from ._checked import length, some
from ._named import checked_id, dataset_id_of
from .values import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import (
        Dataset,
        DocumentMetadata,
        MetadataField,
        MetadataFields,
        MetadataValue,
    )
    from dify_kb.wire.endpoint import Send


async def list_fields(send: Send, dataset: Dataset | str) -> MetadataFields:
    """Fetch the fields of a dataset."""
    return await send(catalog.LIST_METADATA.at(dataset_id=dataset_id_of(dataset)))


async def create_field(
    send: Send, dataset: Dataset | str, name: str, kind: MetadataType
) -> MetadataField:
    """Create a field.

    Raises:
        ConfigError: a name or a type that the server does not take.
    """
    if not kind.known:
        raise ConfigError(f"type is {str(kind)!r}.", hint=f"It can be {', '.join(MetadataType)}.")
    request = CreateMetadata(name=length(name, "name", 1, MAX_NAME), type=kind)
    return await send(catalog.CREATE_METADATA(request, dataset_id=dataset_id_of(dataset)))


async def assign_values(
    send: Send,
    dataset: Dataset | str,
    documents: Sequence[DocumentMetadata],
    *,
    partial_update: bool,
) -> None:
    """Set values of documents in one request.

    Raises:
        ConfigError: no documents, or a value that is neither text, number nor None.
    """
    some(documents, "documents")
    for document in documents:
        checked_id(document.document_id, "document_id")
        for value in document.metadata_list:
            _check_value(value)
    operation = [evolve(document, partial_update=partial_update) for document in documents]
    request = AssignMetadata(operation_data=operation)
    await send(catalog.ASSIGN_METADATA(request, dataset_id=dataset_id_of(dataset)))


def _check_value(value: MetadataValue) -> None:
    if isinstance(value.value, bool) or not isinstance(value.value, str | int | float | None):
        raise ConfigError(
            f"The value of {value.name!r} is {value.value!r}.",
            hint="Pass a text, a number (also for a time: seconds since the epoch) or None.",
        )
