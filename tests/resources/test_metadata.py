from __future__ import annotations

import pytest

from dify_kb import AsyncClient, Dataset, DocumentMetadata, MetadataValue, Policy
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, NotFoundError

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


async def make_document(client: AsyncClient) -> tuple[Dataset, str]:
    """Return a dataset, and the id of a document with the values a = 1 and b = "x"."""
    dataset = await client.datasets.create("Base", indexing_technique="economy")
    document = await client.documents.create_by_text(dataset, "a.txt", "text")
    await client.metadata.assign_by_name(dataset, {document.document.id: {"a": 1, "b": "x"}})
    return dataset, document.document.id


async def read_values(client: AsyncClient, dataset: Dataset) -> dict[str, str]:
    (row,) = (await client.documents.list(dataset)).data
    return {
        str(entry["name"]): str(entry["value"])
        for entry in row.doc_metadata or ()
        if entry["id"] != "built-in"
    }


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.12.1", "1.16"])
async def test_assigned_value_replaces_only_itself(
    version: str, quick: Policy, *, by_id: bool
) -> None:
    """Servers before 1.11 ignore `partial_update` and delete the other values."""
    with Emulator(version=version) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset, document_id = await make_document(client)
            fields = {
                field.name: field for field in (await client.metadata.list(dataset)).doc_metadata
            }
        value = MetadataValue(id=fields["a"].id, name="a", value=2)

        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            await client.metadata.assign(
                dataset.id if by_id else dataset,
                [DocumentMetadata(document_id=document_id, metadata_list=[value])],
            )
            assert await read_values(client, dataset) == {"a": "2", "b": "x"}

            await client.metadata.assign(
                dataset,
                [DocumentMetadata(document_id=document_id, metadata_list=[value])],
                partial_update=False,
            )
            assert await read_values(client, dataset) == {"a": "2"}


async def test_known_version_costs_no_further_request(
    emulator: Emulator, client: AsyncClient
) -> None:
    dataset, document_id = await make_document(client)
    (field, *_) = (await client.metadata.list(dataset)).doc_metadata
    value = MetadataValue(id=field.id, name=field.name, value=2)
    before = len(emulator.history)

    await client.metadata.assign(
        dataset.id, [DocumentMetadata(document_id=document_id, metadata_list=[value])]
    )

    assert len(emulator.history) - before == 1


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1"])
async def test_unknown_document_of_an_old_server_is_reported(version: str, quick: Policy) -> None:
    with Emulator(version=version) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset, _ = await make_document(client)
            (field, *_) = (await client.metadata.list(dataset)).doc_metadata
            value = MetadataValue(id=field.id, name=field.name, value=2)

            with pytest.raises((NotFoundError, ConfigError)):
                await client.metadata.assign(
                    dataset, [DocumentMetadata(document_id=UNKNOWN_ID, metadata_list=[value])]
                )


async def test_value_that_the_database_cannot_store_is_refused(client: AsyncClient) -> None:
    dataset, document_id = await make_document(client)
    (field, *_) = (await client.metadata.list(dataset)).doc_metadata
    value = MetadataValue(id=field.id, name=field.name, value="a\0b")

    with pytest.raises(ConfigError, match="NUL"):
        await client.metadata.assign(
            dataset, [DocumentMetadata(document_id=document_id, metadata_list=[value])]
        )
