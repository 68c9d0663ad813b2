from __future__ import annotations

import pytest

from dify_kb import AsyncClient, Dataset, Policy, ProcessRule
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError

TEXT = "first part ### second part"
RULE = ProcessRule.custom(separator="###", max_tokens=100, chunk_overlap=0)


async def make_document(client: AsyncClient) -> tuple[Dataset, str]:
    dataset = await client.datasets.create("Base", indexing_technique="economy")
    document = await client.documents.create_by_text(
        dataset, "old.txt", TEXT, process_rule=RULE, indexing_technique="economy"
    )
    await client.documents.wait(dataset, [document])
    return dataset, document.document.id


async def read(client: AsyncClient, dataset: Dataset, document_id: str) -> tuple[str, list[str]]:
    """Return the name of the only document, and its chunks."""
    await client.documents.wait(dataset, [document_id])
    (document,) = (await client.documents.list(dataset)).data
    chunks = [chunk.content async for chunk in client.segments.iter(dataset, document_id)]
    assert document.id == document_id
    return document.name, chunks


@pytest.mark.parametrize(
    ("version", "rule"), [("1.4.3", RULE), ("1.8.1", None), ("1.8.1", RULE), ("1.16", None)]
)
async def test_renamed_document_keeps_its_id_metadata_and_chunks(
    version: str, rule: ProcessRule | None, quick: Policy
) -> None:
    with Emulator(version=version) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset, document_id = await make_document(client)
            await client.metadata.assign_by_name(dataset, {document_id: {"team": "infra"}})

            if rule:
                await client.documents.rename(dataset, document_id, "new.txt", process_rule=rule)
            else:
                await client.documents.rename(dataset, document_id, "new.txt")

            name, chunks = await read(client, dataset, document_id)
            (row,) = (await client.documents.list(dataset)).data
    assert (name, chunks) == ("new.txt", ["first part", "second part"])
    assert ("team", "infra") in {
        (entry["name"], entry["value"]) for entry in row.doc_metadata or ()
    }


async def test_rename_is_refused_where_it_would_hang_the_worker(quick: Policy) -> None:
    with Emulator(version="1.12.1") as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset, document_id = await make_document(client)

            with pytest.raises(ConfigError, match=r"1\.12\.1 cannot rename"):
                await client.documents.rename(dataset, document_id, "new.txt")

            name, _ = await read(client, dataset, document_id)
    assert name == "old.txt"


async def test_rename_on_a_server_without_document_details_needs_the_rule(quick: Policy) -> None:
    with Emulator(version="1.4.3") as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset, document_id = await make_document(client)

            with pytest.raises(ConfigError, match="process rule"):
                await client.documents.rename(dataset, document_id, "new.txt")


@pytest.mark.parametrize("name", ["", "a" * 201])
async def test_name_that_the_server_would_change_is_refused(client: AsyncClient, name: str) -> None:
    dataset, document_id = await make_document(client)
    before = "b" * 200

    with pytest.raises(ConfigError, match="characters"):
        await client.documents.rename(dataset, document_id, name)
    if name:
        with pytest.raises(ConfigError, match="characters"):
            await client.documents.create_by_text(dataset, name, "text")
        with pytest.raises(ConfigError, match="characters"):
            await client.documents.update_by_text(dataset, document_id, name=name, text="text")
    created = await client.documents.create_by_text(dataset, before, "text")

    assert created.document.name == before
