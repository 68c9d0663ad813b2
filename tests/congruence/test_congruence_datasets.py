from __future__ import annotations

import pytest

from dify_kb import (
    AsyncClient,
    BadRequestError,
    ConfigError,
    ConflictError,
    Dataset,
    IndexingTechnique,
    NotFoundError,
    Permission,
    RetrievalModel,
    SearchMethod,
    UnauthorizedError,
)

from .conftest import NOBODY, Create, Target, create_documents, indexed, is_older_than, unique_name


async def test_the_server_tells_its_version(client: AsyncClient) -> None:
    info = await client.ping()

    assert info.server_version == client.server_version
    assert client.server_version


async def test_another_key_is_refused(target: Target) -> None:
    async with AsyncClient(target.url, "dataset-nobody", policy=target.policy) as stranger:
        with pytest.raises(UnauthorizedError):
            await stranger.datasets.list()


async def test_a_base_comes_back_as_it_was_made(client: AsyncClient, create: Create) -> None:
    name = unique_name()

    created = await create(name=name, description="What we know", permission="only_me")

    dataset = await client.datasets.get(created.id)
    assert dataset.id == created.id
    assert dataset.name == created.name == name
    assert dataset.description == created.description == "What we know"
    assert dataset.permission is Permission.ONLY_ME
    assert dataset.indexing_technique is IndexingTechnique.ECONOMY
    assert dataset.provider == "vendor"
    assert dataset.document_count == dataset.word_count == dataset.app_count == 0
    assert dataset.created_at == created.created_at
    assert dataset.created_at.tzinfo is not None


async def test_without_a_technique_the_first_document_sets_it(
    client: AsyncClient, create: Create
) -> None:
    dataset = await create(indexing_technique=None)
    assert dataset.indexing_technique is None
    assert (await client.datasets.get(dataset)).indexing_technique is None

    created = await client.documents.create_by_text(
        dataset, "a.txt", "the wombat digs", indexing_technique="economy"
    )

    await indexed(client, dataset, created)
    assert (await client.datasets.get(dataset)).indexing_technique is IndexingTechnique.ECONOMY


async def test_a_name_that_is_taken_is_a_conflict(client: AsyncClient, dataset: Dataset) -> None:
    with pytest.raises(ConflictError) as refused:
        await client.datasets.create(dataset.name, indexing_technique="economy")

    assert refused.value.status == 409
    assert refused.value.code == "dataset_name_duplicate"


async def test_names_of_any_script_survive(client: AsyncClient, create: Create) -> None:
    for suffix in (" 知识库 数据", " žluťoučký kůň", " 🦘 emoji", " a&b=c/d?e#f", " 100%20"):
        name = unique_name(suffix)

        created = await create(name=name)

        assert created.name == name
        assert (await client.datasets.get(created)).name == name
        found = await client.datasets.find(name)
        assert found is not None
        assert found.id == created.id


async def test_a_name_has_1_to_40_characters(client: AsyncClient, create: Create) -> None:
    """Characters, not bytes: 40 of three bytes each are taken."""
    name = unique_name("知" * 40)[:40]
    assert (await create(name=name)).name == name

    for bad in ("", name + "知"):
        with pytest.raises(ConfigError):
            await client.datasets.create(bad)


async def test_find_takes_the_exact_name_only(client: AsyncClient, create: Create) -> None:
    """Another base is newer, so listed before, and its name holds the one that is wanted."""
    wanted = await create(name=unique_name())
    await create(name=f"{wanted.name} too")

    found = await client.datasets.find(wanted.name)

    assert found is not None
    assert found.id == wanted.id
    assert await client.datasets.find(wanted.name[:-1]) is None


async def test_bases_are_listed_by_page_and_searched_without_case(
    client: AsyncClient, create: Create
) -> None:
    part = unique_name()
    made = [(await create(name=f"{part} {letter}")).id for letter in "abc"]

    page = await client.datasets.list(keyword=part.upper(), limit=2)
    rest = await client.datasets.list(keyword=part, limit=2, page=2)
    rows = [row.id async for row in client.datasets.iter(keyword=part)]

    assert page.total == rest.total == 3
    assert (len(page.data), len(rest.data)) == (2, 1)
    assert sorted(rows) == sorted(made)
    assert sorted(row.id for row in (*page.data, *rest.data)) == sorted(made)


async def test_an_update_changes_what_it_names(client: AsyncClient, create: Create) -> None:
    created = await create(description="before")
    name = unique_name()

    updated = await client.datasets.update(created, name=name, permission="all_team_members")

    assert (updated.name, updated.description) == (name, "before")
    cleared = await client.datasets.update(created, description=None)
    assert not cleared.description
    dataset = await client.datasets.get(created)
    assert (dataset.name, dataset.permission) == (name, Permission.ALL_TEAM_MEMBERS)
    assert not dataset.description
    assert dataset.indexing_technique is IndexingTechnique.ECONOMY


async def test_renaming_to_a_name_that_is_taken(client: AsyncClient, create: Create) -> None:
    """Refused since 1.11; 1.4.3 and 1.8.1 then have two of a name (measured)."""
    first, second = await create(), await create()

    if is_older_than(client, "1.11"):
        assert (await client.datasets.update(second, name=first.name)).name == first.name
        return
    with pytest.raises(BadRequestError):
        await client.datasets.update(second, name=first.name)
    assert (await client.datasets.get(second)).name == second.name


async def test_a_base_keeps_how_it_is_searched(client: AsyncClient, create: Create) -> None:
    """1.4.3 cannot store keyword search (measured); every version keeps `top_k`."""
    if is_older_than(client, "1.8"):
        with pytest.raises(BadRequestError):
            await create(retrieval_model=RetrievalModel.keyword(top_k=7))
        return

    created = await create(retrieval_model=RetrievalModel.keyword(top_k=7))

    stored = (await client.datasets.get(created)).retrieval_model_dict
    assert stored is not None
    assert (stored.search_method, stored.top_k) == (SearchMethod.KEYWORD, 7)
    changed = await client.datasets.update(created, retrieval_model=RetrievalModel.keyword(top_k=3))
    assert changed.retrieval_model_dict is not None
    assert changed.retrieval_model_dict.top_k == 3


async def test_an_economy_base_shows_keyword_search(client: AsyncClient, dataset: Dataset) -> None:
    """It stores semantic search, which it cannot do; only `get` says what works (measured)."""
    stored = (await client.datasets.get(dataset)).retrieval_model_dict

    assert stored is not None
    assert stored.search_method is SearchMethod.KEYWORD


async def test_a_base_counts_what_it_holds(client: AsyncClient, dataset: Dataset) -> None:
    texts = ("the wombat digs", "the quokka smiles")

    await create_documents(client, dataset, *texts)

    counted = await client.datasets.get(dataset)
    assert counted.document_count == 2
    assert counted.word_count == sum(map(len, texts))


async def test_a_deleted_base_is_gone_at_once(client: AsyncClient, create: Create) -> None:
    dataset = await create()
    await client.documents.create_by_text(dataset, "a.txt", "the wombat digs")

    await client.datasets.delete(dataset)

    with pytest.raises(NotFoundError):
        await client.datasets.get(dataset)
    with pytest.raises(NotFoundError):
        await client.datasets.delete(dataset)
    assert await client.datasets.find(dataset.name) is None


async def test_the_name_of_a_deleted_base_is_free(client: AsyncClient, create: Create) -> None:
    first = await create()
    await client.datasets.delete(first)

    second = await create(name=first.name)

    assert second.id != first.id


async def test_an_unknown_base_is_not_found(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.datasets.get(NOBODY)
    with pytest.raises(NotFoundError):
        await client.datasets.update(NOBODY, description="x")
    with pytest.raises(NotFoundError):
        await client.documents.list(NOBODY)
    with pytest.raises(NotFoundError):
        await client.datasets.retrieve(NOBODY, "wombat", retrieval_model=RetrievalModel.keyword())
