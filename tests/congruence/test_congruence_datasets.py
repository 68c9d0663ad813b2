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

from .conftest import (
    UNKNOWN_ID,
    DatasetFactory,
    Target,
    create_documents,
    is_older_than,
    unique_name,
    wait_until_indexed,
)


async def test_server_reports_its_version(client: AsyncClient) -> None:
    info = await client.ping()

    assert info.server_version == client.server_version
    assert client.server_version


async def test_wrong_api_key_is_refused(target: Target) -> None:
    async with AsyncClient(target.url, "dataset-nobody", policy=target.policy) as stranger:
        with pytest.raises(UnauthorizedError):
            await stranger.datasets.list()


async def test_dataset_is_returned_as_created(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    name = unique_name()

    created = await create_dataset(name=name, description="What we know", permission="only_me")

    dataset = await client.datasets.get(created.id)
    assert dataset.id == created.id
    assert dataset.name == created.name == name
    assert dataset.description == created.description == "What we know"
    assert dataset.permission is Permission.ONLY_ME
    assert dataset.indexing_technique is IndexingTechnique.ECONOMY
    assert dataset.provider == "vendor"
    assert dataset.document_count == dataset.word_count == dataset.app_count == 0
    assert dataset.created_at == created.created_at
    assert dataset.created_at is not None
    assert dataset.created_at.tzinfo is not None


async def test_first_document_sets_the_indexing_technique(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    dataset = await create_dataset(indexing_technique=None)
    assert dataset.indexing_technique is None
    assert (await client.datasets.get(dataset)).indexing_technique is None

    created = await client.documents.create_by_text(
        dataset, "a.txt", "the wombat digs", indexing_technique="economy"
    )

    await wait_until_indexed(client, dataset, created)
    assert (await client.datasets.get(dataset)).indexing_technique is IndexingTechnique.ECONOMY


async def test_duplicate_name_is_a_conflict(client: AsyncClient, dataset: Dataset) -> None:
    with pytest.raises(ConflictError) as refused:
        await client.datasets.create(dataset.name, indexing_technique="economy")

    assert refused.value.status == 409
    assert refused.value.code == "dataset_name_duplicate"


async def test_dataset_names_may_contain_any_characters(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    for suffix in (" 知识库 数据", " žluťoučký kůň", " 🦘 emoji", " a&b=c/d?e#f", " 100%20"):
        name = unique_name(suffix)

        created = await create_dataset(name=name)

        assert created.name == name
        assert (await client.datasets.get(created)).name == name
        found = await client.datasets.find(name)
        assert found is not None
        assert found.id == created.id


async def test_dataset_name_has_1_to_40_characters(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    """The limit counts characters, not bytes: 40 characters of three bytes are accepted."""
    name = unique_name("知" * 40)[:40]
    assert (await create_dataset(name=name)).name == name

    for bad in ("", name + "知"):
        with pytest.raises(ConfigError):
            await client.datasets.create(bad)


async def test_find_matches_the_exact_name_only(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    """A newer dataset, which is listed first, has a name that contains the wanted one."""
    wanted = await create_dataset(name=unique_name())
    await create_dataset(name=f"{wanted.name} too")

    found = await client.datasets.find(wanted.name)

    assert found is not None
    assert found.id == wanted.id
    assert await client.datasets.find(wanted.name[:-1]) is None


async def test_datasets_are_paged_and_searched_ignoring_case(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    part = unique_name()
    made = [(await create_dataset(name=f"{part} {letter}")).id for letter in "abc"]

    page = await client.datasets.list(keyword=part.upper(), limit=2)
    rest = await client.datasets.list(keyword=part, limit=2, page=2)
    rows = [row.id async for row in client.datasets.iter(keyword=part)]

    assert page.total == rest.total == 3
    assert (len(page.data), len(rest.data)) == (2, 1)
    assert sorted(rows) == sorted(made)
    assert sorted(row.id for row in (*page.data, *rest.data)) == sorted(made)


async def test_update_changes_only_named_fields(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    created = await create_dataset(description="before")
    name = unique_name()

    updated = await client.datasets.update(created, name=name, permission="all_team_members")

    assert (updated.name, updated.description) == (name, "before")
    cleared = await client.datasets.update(created, description=None)
    assert not cleared.description
    dataset = await client.datasets.get(created)
    assert (dataset.name, dataset.permission) == (name, Permission.ALL_TEAM_MEMBERS)
    assert not dataset.description
    assert dataset.indexing_technique is IndexingTechnique.ECONOMY


async def test_rename_to_a_duplicate_name(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    """It is rejected since 1.11; 1.4.3 and 1.8.1 allow two datasets of one name (measured)."""
    first, second = await create_dataset(), await create_dataset()

    if is_older_than(client, "1.11"):
        assert (await client.datasets.update(second, name=first.name)).name == first.name
        return
    with pytest.raises(BadRequestError):
        await client.datasets.update(second, name=first.name)
    assert (await client.datasets.get(second)).name == second.name


async def test_dataset_stores_its_retrieval_model(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    """1.4.3 cannot store keyword search (measured); every version keeps `top_k`."""
    if is_older_than(client, "1.8"):
        with pytest.raises(BadRequestError):
            await create_dataset(retrieval_model=RetrievalModel.keyword(top_k=7))
        return

    created = await create_dataset(retrieval_model=RetrievalModel.keyword(top_k=7))

    stored = (await client.datasets.get(created)).retrieval_model_dict
    assert stored is not None
    assert (stored.search_method, stored.top_k) == (SearchMethod.KEYWORD, 7)
    changed = await client.datasets.update(created, retrieval_model=RetrievalModel.keyword(top_k=3))
    assert changed.retrieval_model_dict is not None
    assert changed.retrieval_model_dict.top_k == 3


async def test_economy_dataset_shows_keyword_search_since_1_11(
    client: AsyncClient, dataset: Dataset
) -> None:
    """It stores semantic search, which it does not support; only `get` shows keyword search
    (measured).
    """
    stored = (await client.datasets.get(dataset)).retrieval_model_dict
    is_old = is_older_than(client, "1.11")

    assert stored is not None
    assert stored.search_method is (SearchMethod.SEMANTIC if is_old else SearchMethod.KEYWORD)


async def test_dataset_counts_its_documents(client: AsyncClient, dataset: Dataset) -> None:
    texts = ("the wombat digs", "the quokka smiles")

    await create_documents(client, dataset, *texts)

    counted = await client.datasets.get(dataset)
    assert counted.document_count == 2
    assert counted.word_count == sum(map(len, texts))


async def test_deleted_dataset_is_gone_immediately(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    dataset = await create_dataset()
    await client.documents.create_by_text(dataset, "a.txt", "the wombat digs")

    await client.datasets.delete(dataset)

    with pytest.raises(NotFoundError):
        await client.datasets.get(dataset)
    with pytest.raises(NotFoundError):
        await client.datasets.delete(dataset)
    assert await client.datasets.find(dataset.name) is None


async def test_name_of_a_deleted_dataset_is_free(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    first = await create_dataset()
    await client.datasets.delete(first)

    second = await create_dataset(name=first.name)

    assert second.id != first.id


async def test_unknown_dataset_is_not_found(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.datasets.get(UNKNOWN_ID)
    with pytest.raises(NotFoundError):
        await client.datasets.update(UNKNOWN_ID, description="x")
    with pytest.raises(NotFoundError):
        await client.documents.list(UNKNOWN_ID)
    with pytest.raises(NotFoundError):
        await client.datasets.retrieve(
            UNKNOWN_ID, "wombat", retrieval_model=RetrievalModel.keyword()
        )
