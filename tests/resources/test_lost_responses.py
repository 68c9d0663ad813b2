"""Requests that succeed while their response is lost, on a real socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from dify_kb import AsyncClient, BadRequestError, Dataset, Document, OutcomeUnknownError, Policy
from dify_kb.emulator import Emulator

LOST = ["commit-then-reset"]


async def create_dataset(client: AsyncClient) -> Dataset:
    return await client.datasets.create("docs", indexing_technique="economy")


async def create_document(client: AsyncClient, dataset: Dataset) -> Document:
    created = await client.documents.create_by_text(dataset, "a.txt", "hello world")
    (document,) = await client.documents.wait(dataset, [created])
    return document


@pytest.mark.parametrize("fault", ["commit-then-reset", "commit-then-500", "commit-then-504"])
async def test_a_created_dataset_is_found(
    client: AsyncClient, emulator: Emulator, fault: str
) -> None:
    emulator.faults.plan("datasets.create", [fault])

    created = await client.datasets.create("docs", indexing_technique="economy")

    assert [row.id async for row in client.datasets.iter()] == [created.id]
    assert not emulator.faults.left()


async def test_a_dataset_with_documents_is_not_the_created_one(
    client: AsyncClient, emulator: Emulator
) -> None:
    """A create of a name that is in use fails, also if its response is lost."""
    dataset = await create_dataset(client)
    await create_document(client, dataset)
    emulator.faults.plan("datasets.create", ["500"])

    with pytest.raises(OutcomeUnknownError):
        await client.datasets.create("docs", indexing_technique="economy")


async def test_a_dataset_that_was_not_created_stays_unknown(
    client: AsyncClient, emulator: Emulator
) -> None:
    """The server may still create it: a second create would make a duplicate."""
    emulator.faults.plan("datasets.create", ["reset"])

    with pytest.raises(OutcomeUnknownError):
        await create_dataset(client)

    assert not emulator.faults.left()


async def test_a_failed_lookup_keeps_the_error_of_the_create(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan("datasets.create", LOST)
    emulator.faults.plan("datasets.list", ["500"] * 3)

    with pytest.raises(OutcomeUnknownError):
        await create_dataset(client)


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.16"])
async def test_created_and_renamed_tags_and_fields_are_found(version: str, quick: Policy) -> None:
    """Old servers reject a rename to the own name, which a retry is."""
    with Emulator(version=version) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            for endpoint in ("tags.create", "tags.update", "metadata.create", "metadata.update"):
                emulator.faults.plan(endpoint, LOST)

            tag = await client.tags.create("red")
            renamed_tag = await client.tags.update(tag.id, "blue")
            field = await client.metadata.create(dataset, "year", type="number")
            renamed = await client.metadata.update(dataset, field.id, "jahr")

            assert (renamed_tag.id, renamed_tag.name) == (tag.id, "blue")
            assert (renamed.id, renamed.name) == (field.id, "jahr")
            assert [row.name for row in await client.tags.list()] == ["blue"]
            assert [row.name for row in (await client.metadata.list(dataset)).doc_metadata] == [
                "jahr"
            ]
            assert not emulator.faults.left()


@pytest.mark.parametrize("change", ["disable", "archive"])
async def test_a_repeated_change_of_a_status_succeeds(
    client: AsyncClient, emulator: Emulator, change: str
) -> None:
    """The server locks a document after a change, and rejects the repetition as busy."""
    dataset = await create_dataset(client)
    document = await create_document(client, dataset)
    emulator.faults.plan("documents.set_status", [*LOST, "being-indexed"])

    await getattr(client.documents, change)(dataset, [document.id])

    detail = await client.documents.get(dataset, document.id)
    assert (detail.enabled, detail.archived) == (change != "disable", change == "archive")
    assert not emulator.faults.left()


async def test_a_rejected_change_of_a_status_that_is_not_set_is_an_error(
    client: AsyncClient, emulator: Emulator
) -> None:
    dataset = await create_dataset(client)
    document = await create_document(client, dataset)
    emulator.faults.plan("documents.set_status", ["reset", "being-indexed"])

    with pytest.raises(BadRequestError):
        await client.documents.disable(dataset, [document.id])


async def test_repeated_deletes_and_bindings_succeed(
    client: AsyncClient, emulator: Emulator
) -> None:
    dataset = await create_dataset(client)
    document = await create_document(client, dataset)
    (segment,) = (await client.segments.list(dataset, document.id)).data
    tag = await client.tags.create("red")
    field = await client.metadata.create(dataset, "year", type="number")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "tags.bind": lambda: client.tags.bind(dataset, [tag.id]),
        "tags.unbind": lambda: client.tags.unbind(dataset, tag.id),
        "metadata.set_built_in": lambda: client.metadata.enable_built_in(dataset),
        "segments.delete": lambda: client.segments.delete(dataset, document.id, segment.id),
        "metadata.delete": lambda: client.metadata.delete(dataset, field.id),
        "tags.delete": lambda: client.tags.delete(tag.id),
        "documents.delete": lambda: client.documents.delete(dataset, document.id),
        "datasets.delete": lambda: client.datasets.delete(dataset),
    }
    for endpoint, call in calls.items():
        emulator.faults.plan(endpoint, LOST)
        await call()

    assert not emulator.faults.left()
