from __future__ import annotations

import pytest
from emulator_client import UNKNOWN_ID, EmulatorClient, Response, run_emulator

from dify_kb.emulator import VERSIONS

TAGS = "/datasets/tags"
GOOD = [version for version in VERSIONS if version != "1.12.1"]
DONE = {"1.14.2": (204, b""), "1.16": (204, b"")}


def success_of(version: str) -> tuple[int, bytes]:
    return DONE.get(version, (200, b"204\n"))


async def create_tag(client: EmulatorClient, name: str) -> Response:
    return await client.request("POST", TAGS, json={"name": name})


async def create_tagged_dataset(client: EmulatorClient, *names: str) -> tuple[str, list[str]]:
    """Create a dataset with new tags."""
    dataset = await client.create_dataset()
    tags = [(await create_tag(client, name)).body["id"] for name in names]
    body = {"tag_ids": tags, "target_id": dataset}
    await client.request("POST", f"{TAGS}/binding", json=body)
    return dataset, tags


@pytest.mark.parametrize("version", GOOD)
async def test_tags_are_listed_newest_first_in_a_bare_array(version: str) -> None:
    async with run_emulator(version=version) as client:
        empty = await client.request("GET", TAGS)
        red = await create_tag(client, "red")
        _, (blue,) = await create_tagged_dataset(client, "blue")
        listing = await client.request("GET", TAGS)

    assert empty.body == []
    assert red.body == {
        "id": red.body["id"],
        "name": "red",
        "type": "knowledge",
        "binding_count": 0 if version == "1.4.3" else "0",
    }
    assert listing.body == [
        {"id": blue, "name": "blue", "type": "knowledge", "binding_count": "1"},
        {**red.body, "binding_count": "0"},
    ]


@pytest.mark.parametrize("version", GOOD)
async def test_tag_name_is_in_use_and_up_to_1_12_even_by_the_tag_itself(version: str) -> None:
    async with run_emulator(version=version) as client:
        red = await create_tag(client, "red")
        again = await create_tag(client, "red")
        change = {"tag_id": red.body["id"], "name": "red"}
        same = await client.request("PATCH", TAGS, json=change)
        other = await client.request("PATCH", TAGS, json=change | {"name": "crimson"})
        unknown = await client.request("PATCH", TAGS, json={"tag_id": UNKNOWN_ID, "name": "q"})
        crashed = await client.request("PATCH", TAGS, json={"tag_id": "abc", "name": "q"})
        long = await create_tag(client, "x" * 51)

    assert (again.status, again.body["message"]) == (400, "Tag name already exists")
    assert same.status == (200 if version in {"1.14.2", "1.16"} else 400)
    assert other.body["name"] == "crimson"
    assert (unknown.status, crashed.status, long.status) == (404, 500, 400)


async def test_1_12_1_refuses_its_own_tag_responses() -> None:
    """Recordings 820 to 830: the tags exist nevertheless."""
    async with run_emulator(version="1.12.1") as client:
        empty = await client.request("GET", TAGS)
        created = await create_tag(client, "red")
        again = await create_tag(client, "red")
        await create_tag(client, "blue")
        listing = await client.request("GET", TAGS)

    assert empty.body == []
    assert created.status == 400
    assert created.body["message"] == (
        "1 validation error for DataSetTag\nbinding_count\n  Input should be a valid string"
        " [type=string_type, input_value=0, input_type=int]\n"
        "    For further information visit https://errors.pydantic.dev/2.11/v/string_type"
    )
    assert again.body["message"] == "Tag name already exists"
    assert listing.status == 400
    assert listing.body["message"].startswith(
        "2 validation errors for list[DataSetTag]\n0.binding_count\n"
    )


@pytest.mark.parametrize("version", GOOD)
async def test_datasets_have_tags_until_they_are_unbound(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset, (red, blue) = await create_tagged_dataset(client, "red", "blue")
        path = f"/datasets/{dataset}"
        both = await client.request("GET", f"{path}/tags")
        shown = await client.request("GET", path)
        filtered = await client.request("GET", "/datasets", params={"tag_ids": red})
        body = {"tag_id": red, "target_id": dataset}
        responses = [await client.request("POST", f"{TAGS}/unbinding", json=body) for _ in range(2)]
        one = await client.request("GET", f"{path}/tags")
        none = await client.request("GET", "/datasets", params={"tag_ids": red})

    assert both.body == {
        "data": [{"id": blue, "name": "blue"}, {"id": red, "name": "red"}], "total": 2,
    }  # fmt: skip
    assert shown.body["tags"] == [
        {"id": blue, "name": "blue", "type": "knowledge"},
        {"id": red, "name": "red", "type": "knowledge"},
    ]
    assert [hits["id"] for hits in filtered.body["data"]] == [dataset]
    assert [(response.status, response.raw) for response in responses] == [success_of(version)] * 2
    assert one.body == {"data": [{"id": blue, "name": "blue"}], "total": 1}
    assert none.body["total"] == 0


async def test_the_newest_version_unbinds_several_tags() -> None:
    async with run_emulator() as client:
        dataset, tags = await create_tagged_dataset(client, "red", "blue")
        body = {"tag_ids": tags, "target_id": dataset}
        response = await client.request("POST", f"{TAGS}/unbinding", json=body)
        remaining = await client.request("GET", f"/datasets/{dataset}/tags")
        neither = await client.request("POST", f"{TAGS}/unbinding", json={"target_id": dataset})

    assert (response.status, remaining.body["total"], neither.status) == (204, 0, 400)


@pytest.mark.parametrize("version", VERSIONS)
async def test_binding_checks_only_the_dataset(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()

        async def bind(tag_ids: list[str], target: str) -> Response:
            body = {"tag_ids": tag_ids, "target_id": target}
            return await client.request("POST", f"{TAGS}/binding", json=body)

        unknown = await bind([UNKNOWN_ID], dataset)
        nowhere = await bind([UNKNOWN_ID], UNKNOWN_ID)
        empty = await bind([], dataset)
        crashed = await bind(["abc"], dataset)
        dataset_tags = await client.request("GET", f"/datasets/{dataset}/tags")

    assert (unknown.status, unknown.raw) == success_of(version)
    assert nowhere.status == 404
    assert empty.status == (200 if version in {"1.4.3", "1.8.1"} else 400)
    assert crashed.status == 500
    assert dataset_tags.body == {"data": [], "total": 0}


@pytest.mark.parametrize("version", GOOD)
async def test_a_deleted_tag_is_gone_from_its_datasets(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset, (red,) = await create_tagged_dataset(client, "red")
        deleted = await client.request("DELETE", TAGS, json={"tag_id": red})
        again = await client.request("DELETE", TAGS, json={"tag_id": red})
        dataset_tags = await client.request("GET", f"/datasets/{dataset}/tags")
        bare = await client.request("DELETE", TAGS)

    assert (deleted.status, deleted.raw) == success_of(version)
    assert again.status == 404
    assert dataset_tags.body["total"] == 0
    assert bare.status == (400 if version == "1.8.1" else 415)


async def test_a_deleted_dataset_does_not_count() -> None:
    async with run_emulator() as client:
        dataset, _ = await create_tagged_dataset(client, "red")
        await client.request("DELETE", f"/datasets/{dataset}")
        listing = await client.request("GET", TAGS)

    assert [tag["binding_count"] for tag in listing.body] == ["0"]


@pytest.mark.parametrize(("version", "names"), [("1.8.1", ["b", "a"]), ("1.14.2", ["a"])])
async def test_several_tag_ids_mean_all_of_them_since_1_14(version: str, names: list[str]) -> None:
    """Unknown tags match nothing, even if they were bound (1455, 1464, 1466)."""
    async with run_emulator(version=version) as client:
        datasets = [await client.create_dataset(name) for name in "ab"]
        red, blue = [(await create_tag(client, name)).body["id"] for name in ("red", "blue")]
        for dataset, tags in zip(datasets, ([red, blue, UNKNOWN_ID], [red]), strict=True):
            body = {"tag_ids": tags, "target_id": dataset}
            await client.request("POST", f"{TAGS}/binding", json=body)
        both = [("tag_ids", red), ("tag_ids", blue)]
        found = await client.request("GET", "/datasets", params=both)
        unknown = await client.request("GET", "/datasets", params={"tag_ids": UNKNOWN_ID})
        crashed = await client.request("GET", "/datasets", params={"tag_ids": "abc"})

    assert [dataset["name"] for dataset in found.body["data"]] == names
    assert (unknown.body["data"], crashed.status) == ([], 500)
