"""Searches with metadata filters."""

from __future__ import annotations

import pytest
from emulator_client import run_emulator
from emulator_metadata import BUILT_IN, create_metadata_dataset

TOWNS = {
    "m0": {"town": "paris", "rank": 0, "seen": 1700000000},
    "m1": {"town": "london", "rank": 10, "seen": 1700000001},
    "m2": {"town": "tokyo", "rank": 20, "seen": 1700000002},
    "m3": {"town": "paris", "rank": 30, "seen": 1700000003},
}
"""Metadata of recordings 780 to 804; m4 has no values."""


async def test_built_in_values_can_be_searched_while_enabled() -> None:
    async with run_emulator() as client:
        dataset_id = await create_metadata_dataset(client, "m0", "m1")
        switch = f"{dataset_id.path}/metadata/built-in"
        by_name = {"name": "document_name", "comparison_operator": "is", "value": "m1"}
        conditions = {"metadata_filtering_conditions": {"conditions": [by_name]}}
        off = await client.retrieve(dataset_id.dataset, "zebra", **conditions)
        responses = [await client.request("POST", f"{switch}/enable") for _ in range(2)]
        responses.append(await client.request("POST", f"{switch}/bogus"))
        await dataset_id.create_document("m2")
        on = await client.retrieve(dataset_id.dataset, "zebra", **conditions)
        new = await dataset_id.get_values("m2")
        shown = await client.request("GET", dataset_id.path)
        await client.request("POST", f"{switch}/disable")
        gone = await dataset_id.get_values()

    assert [response.body for response in responses] == [{"result": "success"}] * 3
    assert (len(off.body["records"]), len(on.body["records"])) == (0, 1)
    assert [value["name"] for value in new] == BUILT_IN
    assert shown.body["built_in_field_enabled"] is True
    assert len(shown.body["doc_metadata"]) == 3 + len(BUILT_IN)
    assert gone is None


@pytest.mark.parametrize(
    ("operator", "name", "value", "found"),
    [
        ("is", "town", "paris", "m0 m3"), ("is not", "town", "paris", "m1 m2"),
        ("contains", "town", "on", "m1"), ("not contains", "town", "on", "m0 m2 m3"),
        ("start with", "town", "lo", "m1"), ("end with", "town", "yo", "m2"),
        ("empty", "town", None, "m4"), ("not empty", "town", None, "m0 m1 m2 m3"),
        ("=", "rank", "10", "m1"), (">", "rank", 5, "m1 m2 m3"), ("<", "rank", 20, "m0 m1"),
        ("≥", "rank", 10, "m1 m2 m3"), ("≤", "rank", 10, "m0 m1"),
        ("before", "seen", 1700000002, "m0 m1"), ("after", "seen", 1700000002, "m3"),
        ("in", "town", ["paris", "tokyo"], "m0 m2 m3"), ("in", "town", "london, x", "m1"),
        ("not in", "town", ["paris"], "m1 m2"), ("is", "nofield", "x", ""),
        ("is", "town", None, "m0 m1 m2 m3 m4"),
    ],
)  # fmt: skip
async def test_searches_find_what_recorded_servers_found(
    operator: str, name: str, value: object, found: str
) -> None:
    async with run_emulator() as client:
        dataset_id = await create_metadata_dataset(client, *TOWNS, "m4")
        for document, values in TOWNS.items():
            await dataset_id.assign(document, values)
        condition = {"name": name, "comparison_operator": operator, "value": value}
        filters = {"metadata_filtering_conditions": {"conditions": [condition]}}
        response = await client.retrieve(dataset_id.dataset, "zebra", **filters)

    names = sorted(record["segment"]["document"]["name"] for record in response.body["records"])
    assert " ".join(names) == found


@pytest.mark.parametrize(
    ("operator", "value"), [(">", "many"), ("before", "Ann"), (">", True), ("is", False)]
)
async def test_value_that_the_database_cannot_compare_crashes(operator: str, value: object) -> None:
    """Recordings 1880, 1881, 1916 and 1933."""
    async with run_emulator(version="1.14.2") as client:
        dataset = await create_metadata_dataset(client)
        condition = {"name": "rank", "comparison_operator": operator, "value": value}
        filters = {"metadata_filtering_conditions": {"conditions": [condition]}}
        response = await client.retrieve(dataset.dataset, "zebra", **filters)

    assert (response.status, response.body["code"]) == (500, "internal_server_error")
    assert "psycopg2.errors" in response.body["message"]


@pytest.mark.parametrize(("joined", "found"), [("and", 1), ("or", 4)])
async def test_conditions_are_combined_by_the_logical_operator(joined: str, found: int) -> None:
    async with run_emulator() as client:
        dataset_id = await create_metadata_dataset(client, *TOWNS)
        for document, values in TOWNS.items():
            await dataset_id.assign(document, values)
        conditions = [
            {"name": "town", "comparison_operator": "is", "value": "paris"},
            {"name": "rank", "comparison_operator": ">", "value": 5},
        ]
        filters = {"logical_operator": joined, "conditions": conditions}
        response = await client.retrieve(
            dataset_id.dataset, "zebra", metadata_filtering_conditions=filters
        )

    assert len(response.body["records"]) == found


@pytest.mark.parametrize(
    ("version", "operator", "status"),
    [("1.4.3", "in", 400), ("1.8.1", "in", 200), ("1.12.1", "like", 400), ("1.16", "like", 400)],
)
async def test_an_operator_that_the_version_does_not_have_is_refused(
    version: str, operator: str, status: int
) -> None:
    async with run_emulator(version=version) as client:
        dataset_id = await create_metadata_dataset(client)
        condition = {"name": "town", "comparison_operator": operator, "value": ["x"]}
        filters = {"metadata_filtering_conditions": {"conditions": [condition]}}
        response = await client.retrieve(dataset_id.dataset, "zebra", **filters)

    assert response.status == status
    if status == 400:
        # Since 1.13 the filter is validated with the whole body (800).
        place = (
            "HitTestingPayload\nretrieval_model.metadata_filtering_conditions."
            if version == "1.16"
            else "MetadataFilteringCondition\n"
        )
        assert f"{place}conditions.0.comparison_operator\n" in response.body["message"]
