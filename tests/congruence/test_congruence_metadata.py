from __future__ import annotations

import pytest

from dify_kb import (
    AsyncClient,
    BadRequestError,
    ConfigError,
    Dataset,
    KnowledgeError,
    NotFoundError,
    RetrievalModel,
)
from dify_kb.models import (
    Condition,
    DocumentMetadata,
    Field,
    MetadataField,
    MetadataFilter,
    MetadataScalar,
    MetadataType,
    MetadataTypeName,
    MetadataValue,
)

from .conftest import (
    UNKNOWN_ID,
    create_documents,
    document_names,
    is_older_than,
    list_document_names,
)

BUILT_IN = {"document_name", "uploader", "upload_date", "last_update_date", "source"}

Fields = dict[str, MetadataField]


async def create_fields(client: AsyncClient, dataset: Dataset) -> Fields:
    """Create a field of each type."""
    types: dict[str, MetadataTypeName] = {"town": "string", "rank": "number", "seen": "time"}
    return {
        name: await client.metadata.create(dataset, name, type=kind) for name, kind in types.items()
    }


def build_metadata(
    document_id: str, fields_by_name: Fields, **metadata_values: MetadataScalar
) -> DocumentMetadata:
    return DocumentMetadata(
        document_id=document_id,
        metadata_list=[
            MetadataValue(id=fields_by_name[name].id, name=name, value=value)
            for name, value in metadata_values.items()
        ],
    )


async def read_metadata(client: AsyncClient, dataset: Dataset) -> dict[str, dict[str, str]]:
    """Return the values of all documents; lists contain them as strings (measured)."""
    return {
        row.name: {
            str(entry["name"]): str(entry["value"])
            for entry in row.doc_metadata or ()
            if entry["id"] != "built-in"
        }
        async for row in client.documents.iter(dataset)
    }


async def test_fields_are_listed_as_created(client: AsyncClient, dataset: Dataset) -> None:
    made = await create_fields(client, dataset)
    spaced = await client.metadata.create(dataset, "My Field 知识", type=MetadataType.STRING)

    answer = await client.metadata.list(dataset)

    assert {(row.id, row.name, row.type) for row in answer.doc_metadata} == {
        (row.id, row.name, row.type) for row in (*made.values(), spaced)
    }
    assert {row.count for row in answer.doc_metadata} == {0}
    assert not answer.built_in_field_enabled


async def test_duplicate_name_is_refused(client: AsyncClient, dataset: Dataset) -> None:
    """This includes names of built-in fields, and renaming a field to its own name (measured)."""
    made = await create_fields(client, dataset)

    for name in ("town", "uploader"):
        with pytest.raises(BadRequestError):
            await client.metadata.create(dataset, name, type="string")
    for name in ("town", "rank", "uploader"):
        with pytest.raises(BadRequestError):
            await client.metadata.update(dataset, made["town"].id, name)
    with pytest.raises(ConfigError):
        await client.metadata.create(dataset, "flag", type="bool")  # type: ignore[arg-type]  # the point

    assert len((await client.metadata.list(dataset)).doc_metadata) == 3


async def test_assigned_values_are_listed_with_documents(
    client: AsyncClient, dataset: Dataset
) -> None:
    first, second, third = await create_documents(client, dataset, "wombat", "quokka", "numbat")
    fields_by_name = await create_fields(client, dataset)

    await client.metadata.assign(
        dataset,
        [
            build_metadata(first.id, fields_by_name, town="łódź", rank=20, seen=1700000000),
            build_metadata(second.id, fields_by_name, rank=1.5),
        ],
    )

    assert await read_metadata(client, dataset) == {
        first.name: {"town": "łódź", "rank": "20", "seen": "1700000000"},
        second.name: {"rank": "1.5"},
        third.name: {},
    }
    counts = {row.name: row.count for row in (await client.metadata.list(dataset)).doc_metadata}
    assert counts == {"town": 1, "rank": 2, "seen": 1}


async def test_document_details_keep_value_types(client: AsyncClient, dataset: Dataset) -> None:
    """They exist since 1.8. Numbers are numbers, unlike in lists (measured)."""
    (document,) = await create_documents(client, dataset, "wombat")
    fields_by_name = await create_fields(client, dataset)

    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, town="oslo", rank=20)]
    )

    if is_older_than(client, "1.8"):
        return
    detail = await client.documents.get(dataset, document.id, metadata="only")
    found = {str(entry["name"]): entry["value"] for entry in detail.doc_metadata or ()}
    assert (found["town"], found["rank"]) == ("oslo", 20)
    assert found.keys() >= BUILT_IN


async def test_omitted_values_are_kept(client: AsyncClient, dataset: Dataset) -> None:
    """Servers before 1.11 replace all values (measured), so the client sends them again."""
    (document,) = await create_documents(client, dataset, "wombat")
    fields_by_name = await create_fields(client, dataset)
    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, town="oslo", rank=1)]
    )

    await client.metadata.assign(dataset, [build_metadata(document.id, fields_by_name, rank=2)])

    kept = {"town": "oslo", "rank": "2"}
    assert await read_metadata(client, dataset) == {document.name: kept}


async def test_values_are_replaced_on_request(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "wombat")
    fields_by_name = await create_fields(client, dataset)
    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, town="oslo", rank=1)]
    )

    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, rank=2)], partial_update=False
    )

    assert await read_metadata(client, dataset) == {document.name: {"rank": "2"}}
    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name)], partial_update=False
    )
    assert await read_metadata(client, dataset) == {document.name: {}}


async def test_boolean_value_is_rejected(client: AsyncClient, dataset: Dataset) -> None:
    """The server would accept True as 1 (measured)."""
    with pytest.raises(ConfigError):
        await client.metadata.assign(
            dataset,
            [
                DocumentMetadata(
                    document_id=UNKNOWN_ID,
                    metadata_list=[MetadataValue(id=UNKNOWN_ID, name="rank", value=True)],
                )
            ],
        )


async def test_renamed_field_keeps_its_values(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "wombat")
    fields_by_name = await create_fields(client, dataset)
    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, town="oslo")]
    )

    renamed = await client.metadata.update(dataset, fields_by_name["town"].id, "city")

    assert (renamed.id, renamed.name, renamed.type) == (fields_by_name["town"].id, "city", "string")
    assert await read_metadata(client, dataset) == {document.name: {"city": "oslo"}}


async def test_deleting_a_field_deletes_its_values(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "wombat")
    fields_by_name = await create_fields(client, dataset)
    await client.metadata.assign(
        dataset, [build_metadata(document.id, fields_by_name, town="oslo", rank=1)]
    )

    await client.metadata.delete(dataset, fields_by_name["town"].id)

    left = {row.name for row in (await client.metadata.list(dataset)).doc_metadata}
    assert left == {"rank", "seen"}
    assert await read_metadata(client, dataset) == {document.name: {"rank": "1"}}


async def test_built_in_fields_are_listed(client: AsyncClient, dataset: Dataset) -> None:
    """The path was different before 1.11 (measured)."""
    assert {field.name for field in await client.metadata.built_in_fields(dataset)} == BUILT_IN


async def test_built_in_fields_can_be_enabled_and_disabled(
    client: AsyncClient, dataset: Dataset
) -> None:
    await create_documents(client, dataset, "wombat")

    await client.metadata.enable_built_in(dataset)
    assert (await client.metadata.list(dataset)).built_in_field_enabled
    assert (await client.datasets.get(dataset)).built_in_field_enabled
    (document,) = (await client.documents.list(dataset)).data
    shown = {str(entry["name"]): entry["value"] for entry in document.doc_metadata or ()}
    assert shown["document_name"] == "a.txt"
    assert shown.keys() == BUILT_IN

    await client.metadata.disable_built_in(dataset)
    assert not (await client.metadata.list(dataset)).built_in_field_enabled


async def test_search_filters_by_a_built_in_field(client: AsyncClient, dataset: Dataset) -> None:
    await client.metadata.enable_built_in(dataset)
    await create_documents(client, dataset, "wombat one", "wombat two")

    found = await search_with_filter(client, dataset, Field("document_name").is_("b.txt"))

    assert found == ["b.txt"]


async def test_unknown_dataset_has_no_fields(client: AsyncClient, dataset: Dataset) -> None:
    """Updating an unknown field is an empty success up to 1.12, an error later (measured)."""
    with pytest.raises(NotFoundError):
        await client.metadata.create(UNKNOWN_ID, "town", type="string")
    with pytest.raises(KnowledgeError):
        await client.metadata.update(dataset, UNKNOWN_ID, "town")
    assert not (await client.metadata.list(dataset)).doc_metadata


async def search_with_filter(
    client: AsyncClient, dataset: Dataset, *conditions: Condition
) -> list[str]:
    """Search for a word that all documents contain; return the sorted names of the hits."""
    model = RetrievalModel.keyword(top_k=10, metadata_filter=MetadataFilter.all_of(*conditions))
    return sorted(
        document_names(await client.datasets.retrieve(dataset, "wombat", retrieval_model=model))
    )


async def create_documents_with_metadata(client: AsyncClient, dataset: Dataset) -> None:
    """Create four documents as in recordings 780 to 805; the last one has no town."""
    rows = await create_documents(client, dataset, "wombat 1", "wombat 2", "wombat 3", "wombat 4")
    fields_by_name = await create_fields(client, dataset)
    metadata_values: list[dict[str, MetadataScalar]] = [
        {"town": "paris", "rank": 0, "seen": 1700000000},
        {"town": "london", "rank": 10, "seen": 1700000001},
        {"town": "tokyo", "rank": 20},
        {"rank": 30, "seen": 1700000003},
    ]
    await client.metadata.assign(
        dataset,
        [
            build_metadata(row.id, fields_by_name, **one)
            for row, one in zip(rows, metadata_values, strict=True)
        ],
    )


async def test_search_filters_by_every_operator(client: AsyncClient, dataset: Dataset) -> None:
    """A document without the field only matches `empty` (measured)."""
    await create_documents_with_metadata(client, dataset)
    town, rank, seen = Field("town"), Field("rank"), Field("seen")

    expected = {
        "a": [town.is_("paris"), town == "paris", rank < 10, rank == 0],
        "b": [town.contains("on"), town.starts_with("lo"), rank.is_(10), rank == 10],
        "c": [town.ends_with("yo")],
        "d": [rank > 20, seen.after(1700000001)],
        "ab": [seen.before(1700000002), rank <= 10],
        "ac": [town.not_contains("on"), town != "london"],
        "bc": [town.is_not("paris")],
        "bcd": [rank >= 10, rank != 0],
        "abc": [town.not_empty()],
        "": [Field("nothing").is_("x"), town.is_("Paris")],
    }
    wanted = {
        condition: [f"{letter}.txt" for letter in letters]
        for letters, conditions in expected.items()
        for condition in conditions
    }
    found = {
        condition: await search_with_filter(client, dataset, condition) for condition in wanted
    }

    assert found == wanted


async def test_number_equals_its_string(client: AsyncClient, dataset: Dataset) -> None:
    """Before 1.11 a number never equals a string (recording 789)."""
    await create_documents_with_metadata(client, dataset)

    found = await search_with_filter(client, dataset, Field("rank") == "10")

    assert found == ([] if is_older_than(client, "1.11") else ["b.txt"])


async def test_search_filters_by_in_and_not_in(client: AsyncClient, dataset: Dataset) -> None:
    """1.4.3 rejects the operators; 1.8.1 accepts and ignores them (recording 801)."""
    await create_documents_with_metadata(client, dataset)
    inside, outside = Field("town").in_(["paris", "tokyo"]), Field("town").not_in(["paris"])

    if is_older_than(client, "1.8"):
        for condition in (inside, outside):
            with pytest.raises(BadRequestError):
                await search_with_filter(client, dataset, condition)
        return
    if is_older_than(client, "1.11"):
        assert await search_with_filter(client, dataset, inside) == await list_document_names(
            client, dataset
        )
        return
    assert await search_with_filter(client, dataset, inside) == ["a.txt", "c.txt"]
    assert await search_with_filter(client, dataset, outside) == ["b.txt", "c.txt"]


async def test_empty_finds_documents_without_the_field(
    client: AsyncClient, dataset: Dataset
) -> None:
    await create_documents_with_metadata(client, dataset)

    assert await search_with_filter(client, dataset, Field("town").empty()) == ["d.txt"]


async def test_conditions_are_combined_by_the_logical_operator(
    client: AsyncClient, dataset: Dataset
) -> None:
    await create_documents_with_metadata(client, dataset)
    paris, high = Field("town").is_("paris"), Field("rank") > 10

    assert await search_with_filter(client, dataset, paris, high) == []
    assert await search_with_filter(client, dataset, Field("rank") > 0, Field("rank") < 20) == [
        "b.txt"
    ]
    either = RetrievalModel.keyword(top_k=10, metadata_filter=MetadataFilter.any_of(paris, high))
    found = await client.datasets.retrieve(dataset, "wombat", retrieval_model=either)
    assert sorted(document_names(found)) == ["a.txt", "c.txt", "d.txt"]
    assert await list_document_names(client, dataset) == ["a.txt", "b.txt", "c.txt", "d.txt"]
