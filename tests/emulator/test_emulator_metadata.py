from __future__ import annotations

from typing import Any

import pytest
from emulator_client import UNKNOWN_ID, run_emulator
from emulator_metadata import BUILT_IN, MetadataDataset, create_metadata_dataset

from dify_kb.emulator import VERSIONS, ManualClock, Settings


async def test_field_names_are_unique_and_not_built_in() -> None:
    async with run_emulator() as client:
        one = MetadataDataset(client, await client.create_dataset())
        created = await one.create_field("town")
        refusals = [await one.create_field(name) for name in ("town", "uploader", "x" * 256)]
        bad = await one.create_field("x", "bool")
        empty = await one.create_field("")

    assert created.status == 201
    assert created.body == {"id": created.body["id"], "type": "string", "name": "town"}
    assert [(response.status, response.body["message"]) for response in refusals] == [
        (400, "Metadata name already exists."),
        (400, "Metadata name already exists in Built-in fields."),
        (400, "Metadata name cannot exceed 255 characters."),
    ]
    assert bad.body["message"].startswith(
        "1 validation error for MetadataArgs\ntype\n  Input should be 'string', 'number' or 'time'"
    )
    assert empty.status == 201


@pytest.mark.parametrize("version", VERSIONS)
async def test_renaming_moves_the_values_and_an_unknown_field_is_no_success(version: str) -> None:
    """Up to 1.12 the response to an unknown field is a 200 of nulls (660)."""
    async with run_emulator(version=version) as client:
        dataset_id = await create_metadata_dataset(client)
        await dataset_id.assign("m0", {"town": "paris", "rank": 5})
        path = f"{dataset_id.path}/metadata/{dataset_id.fields['town']}"
        renamed = await client.request("PATCH", path, json={"name": "city"})
        same = await client.request("PATCH", path, json={"name": "city"})
        unknown = await client.request(
            "PATCH", f"{dataset_id.path}/metadata/{UNKNOWN_ID}", json={"name": "z"}
        )
        hits = await client.retrieve(dataset_id.dataset, "zebra")

    assert renamed.body == {"id": dataset_id.fields["town"], "type": "string", "name": "city"}
    assert same.status == 400
    if version in {"1.14.2", "1.16"}:
        title = "1 validation error for DatasetMetadataResponse"
        assert (unknown.status, unknown.body["message"].split("\n")[0]) == (400, title)
    else:
        assert (unknown.status, unknown.body) == (200, {"id": None, "type": None, "name": None})
    (record,) = hits.body["records"]
    assert record["segment"]["document"]["doc_metadata"] == {"city": "paris", "rank": 5}


async def test_deleting_a_field_deletes_its_values_and_may_be_repeated() -> None:
    async with run_emulator() as client:
        dataset = await create_metadata_dataset(client)
        await dataset.assign("m0", {"town": "paris", "rank": 5})
        path = f"{dataset.path}/metadata/{dataset.fields['town']}"
        responses = [await client.request("DELETE", path) for _ in range(2)]
        own, counts = await dataset.get_own_values(), await dataset.get_counts()

    assert [response.status for response in responses] == [204, 204]
    assert own == {"rank": 5}
    assert counts == {"rank": 1, "seen": 0}


@pytest.mark.parametrize("version", ["1.12.1", "1.14.2"])
async def test_values_are_typed_but_strings_in_lists_up_to_1_12(version: str) -> None:
    """The built-in fields appear once any value is set."""
    clock = ManualClock()
    async with run_emulator(version=version, clock=clock) as client:
        dataset = await create_metadata_dataset(client)
        before = await dataset.get_values()
        clock.advance(60.5)
        await dataset.assign("m0", {"town": "paris", "rank": 5, "seen": 1.5})
        shown = await dataset.get_values()
        listing = await client.request("GET", f"{dataset.path}/documents")
        full = await client.request("GET", dataset.path)

    assert before is None
    assert [value["name"] for value in shown] == ["town", "rank", "seen", *BUILT_IN]
    assert [value["value"] for value in shown] == [
        "paris", 5, 1.5, "m0", "admin", "1800000000.0", "1800000060.5", "file_upload",
    ]  # fmt: skip
    assert {value["id"] for value in shown[3:]} == {"built-in"}
    (document,) = listing.body["data"]
    texts = [{**value, "value": str(value["value"])} for value in shown]
    assert document["doc_metadata"] == (texts if version == "1.12.1" else shown)
    assert full.body["doc_metadata"] == [
        {"id": dataset.fields[name], "name": name, "type": kind}
        for name, kind in {"town": "string", "rank": "number", "seen": "time"}.items()
    ]


@pytest.mark.parametrize(
    ("version", "left"),
    [
        ("1.8.1", {"town": "lyon"}),
        ("1.12.1", {"rank": 7, "town": "lyon"}),
        ("1.16", {"rank": 7, "town": "lyon"}),
    ],
)
async def test_a_partial_update_merges_since_1_11(version: str, left: dict[str, Any]) -> None:
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client)
        await dataset.assign("m0", {"town": "paris", "rank": 5})
        replaced = await dataset.assign("m0", {"rank": 7})
        after = await dataset.get_own_values()
        await dataset.assign("m0", {"town": "lyon"}, partial=True)
        merged = await dataset.get_own_values()
        await dataset.assign("m0", {})
        cleared = await dataset.get_values()

    assert replaced.raw == (b"200\n" if version == "1.8.1" else b'{"result":"success"}\n')
    assert after == {"rank": 7}
    assert merged == left
    assert cleared is None


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.16", 400)])
async def test_an_unknown_document_is_refused_since_1_16(version: str, status: int) -> None:
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client)
        response = await dataset.assign("nobody", {"town": "x"})

    assert response.status == status
    if status == 400:
        assert response.body["message"] == "Document not found."


async def test_values_of_unknown_fields_are_accepted_but_not_returned() -> None:
    """Recordings 690 to 699: the server checks neither types nor ids nor names."""
    async with run_emulator() as client:
        dataset_id = await create_metadata_dataset(client)
        ghost = await dataset_id.assign("m0", {"ghost": "x"})
        unseen = await dataset_id.get_own_values()
        await dataset_id.assign("m0", {"rank": True, "town": None, "seen": "soon"})
        typed = await dataset_id.get_own_values()
        refused = await dataset_id.assign("m0", {"rank": [1]})
        hits = await client.retrieve(dataset_id.dataset, "zebra")

    assert ghost.status == 200
    assert unseen == {}
    assert typed == {"rank": 1, "town": None, "seen": "soon"}
    assert refused.body["message"].startswith("3 validation errors for MetadataOperationData")
    (record,) = hits.body["records"]
    assert record["segment"]["document"]["doc_metadata"] == typed


@pytest.mark.parametrize(
    ("version", "path"),
    [("1.8.1", "/datasets/metadata/built-in"), ("1.12.1", "{}/metadata/built-in")],
)
async def test_path_of_built_in_fields_depends_on_the_version(version: str, path: str) -> None:
    async with run_emulator(version=version) as client:
        one = MetadataDataset(client, await client.create_dataset())
        response = await client.request("GET", path.format(one.path))

    assert [field["name"] for field in response.body["fields"]] == BUILT_IN


async def test_deleted_document_no_longer_counts_for_its_fields() -> None:
    async with run_emulator() as client:
        dataset = await create_metadata_dataset(client, "m0", "m1")
        for name in ("m0", "m1"):
            await dataset.assign(name, {"town": "paris"})
        both = await dataset.get_counts()
        await client.request("DELETE", f"{dataset.path}/documents/{dataset.documents['m0']}")
        remaining = await dataset.get_counts()

    assert (both["town"], remaining["town"]) == (2, 1)


@pytest.mark.parametrize(
    ("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.14.2", 500), ("1.16", 500)]
)
async def test_value_with_a_nul_is_never_written(version: str, status: int) -> None:
    """Up to 1.12 the response is a success (measured)."""
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client)
        await dataset.assign("m0", {"town": "paris"})
        response = await dataset.assign("m0", {"town": "a\0b"})
        hits = await client.retrieve(dataset.dataset, "zebra")

    assert response.status == status
    (record,) = hits.body["records"]
    assert record["segment"]["document"]["doc_metadata"] == {"town": "paris"}


@pytest.mark.parametrize("id_", ["abc", "built-in"])
@pytest.mark.parametrize(("version", "status"), [("1.12.1", 200), ("1.14.2", 500)])
async def test_field_id_that_is_not_a_uuid_crashes_since_1_14(
    version: str, status: int, id_: str
) -> None:
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client)
        dataset.fields["town"] = id_
        response = await dataset.assign("m0", {"town": "x"})

    assert response.status == status


async def test_field_that_is_assigned_twice_is_listed_twice() -> None:
    async with run_emulator(version="1.14.2") as client:
        dataset = await create_metadata_dataset(client)
        value = {"id": dataset.fields["town"], "name": "town"}
        values = [{**value, "value": "one"}, {**value, "value": "two"}]
        operation = {"document_id": dataset.documents["m0"], "metadata_list": values}
        await client.request(
            "POST", f"{dataset.path}/documents/metadata", json={"operation_data": [operation]}
        )
        shown = await dataset.get_values()

    assert [field["value"] for field in shown[:2]] == ["two", "two"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "value",
    ["x" * 100_000, ":", "中文", "\"q'", "a\nb", "😀", "  ", "", "123", "null", "\x01"],
    ids=range(11),
)
async def test_texts_are_stored_exactly(version: str, value: str) -> None:
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client)
        response = await dataset.assign("m0", {"town": value})
        rows = (await client.request("GET", f"{dataset.path}/documents")).body["data"]

    assert response.status == 200
    shown = [field["value"] for field in rows[0]["doc_metadata"] if field["name"] == "town"]
    assert shown == [value]


@pytest.mark.parametrize("version", VERSIONS)
async def test_replaced_documents_keep_their_values(version: str) -> None:
    """By a create of the same name as well as by an update."""
    async with run_emulator(version=version, settings=Settings(update_hangs=False)) as client:
        dataset = await create_metadata_dataset(client)
        await dataset.assign("m0", {"town": "rome"})
        again = await client.create_by_text(dataset.dataset, "m0", "a lion")
        await client.wait_until_indexed(dataset.dataset, again)
        path = f"{dataset.path}/documents/{dataset.documents['m0']}/update-by-text"
        updated = await client.request("POST", path, json={"name": "m0", "text": "a tiger"})
        entry = await client.wait_until_indexed(dataset.dataset, updated)
        rows = (await client.request("GET", f"{dataset.path}/documents")).body["data"]

    assert entry["indexing_status"] == "completed"
    assert rows[0]["doc_metadata"][0]["value"] == "rome"


@pytest.mark.parametrize("version", VERSIONS)
async def test_unknown_document_ends_an_assignment_in_the_middle_since_1_13(version: str) -> None:
    """The documents before it keep their new values; up to 1.12 it is skipped (703)."""
    async with run_emulator(version=version) as client:
        dataset = await create_metadata_dataset(client, "m0", "m1")
        value = {"id": dataset.fields["town"], "name": "town", "value": "rome"}
        operations = [
            {"document_id": document, "metadata_list": [value]}
            for document in (dataset.documents["m0"], UNKNOWN_ID, dataset.documents["m1"])
        ]
        response = await client.request(
            "POST", f"{dataset.path}/documents/metadata", json={"operation_data": operations}
        )
        counts = (await dataset.get_counts())["town"]

    assert (response.status, counts) == ((400, 1) if version in {"1.14.2", "1.16"} else (200, 2))
