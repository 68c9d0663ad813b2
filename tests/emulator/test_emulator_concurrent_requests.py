"""Requests that arrive at the same time and create one name, or change one document.

All of this was measured; the window in which they overlap is wide enough for any busy machine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from emulator_client import EmulatorClient, Response, run_emulator
from emulator_metadata import create_metadata_dataset

from dify_kb.emulator import ManualClock, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable

OVERLAPPING = Settings(race_window=0.3)


async def count_statuses(*requests: Awaitable[Response]) -> dict[int, int]:
    return dict(Counter(response.status for response in await asyncio.gather(*requests)))


async def list_names(client: EmulatorClient) -> list[str]:
    return [row["name"] for row in (await client.request("GET", "/datasets")).body["data"]]


@pytest.mark.parametrize(
    ("version", "created"), [("1.4.3", 1), ("1.12.1", 1), ("1.14.2", 3), ("1.16", 3)]
)
async def test_dataset_names_are_not_unique_among_overlapping_creates_since_1_13(
    version: str, created: int
) -> None:
    """Recording 1071 and four more tries of 1.14.2: of 8 creates, 1 to 4 succeeded."""
    async with run_emulator(version=version, settings=OVERLAPPING) as client:
        body = {"name": "one"}
        statuses = await count_statuses(
            *(client.request("POST", "/datasets", json=body) for _ in range(8))
        )
        later = await client.request("POST", "/datasets", json=body)
        names = await list_names(client)

    assert statuses == {200: created, 409: 8 - created}
    assert later.status == 409
    assert names == ["one"] * created


async def test_names_that_exist_or_differ_do_not_race() -> None:
    async with run_emulator(settings=OVERLAPPING) as client:
        await client.create_dataset("one")
        statuses = await count_statuses(
            *(client.request("POST", "/datasets", json={"name": name}) for name in ("one", "one")),
            *(client.request("POST", "/datasets", json={"name": name}) for name in ("a", "b")),
        )

    assert statuses == {409: 2, 200: 2}


@pytest.mark.parametrize(("version", "fields"), [("1.4.3", 4), ("1.12.1", 2), ("1.14.2", 1)])
async def test_one_field_made_by_several_at_once_exists_several_times_up_to_1_12(
    version: str, fields: int
) -> None:
    async with run_emulator(version=version, settings=OVERLAPPING) as client:
        path = f"/datasets/{await client.create_dataset()}/metadata"
        body = {"name": "town", "type": "string"}
        statuses = await count_statuses(
            *(client.request("POST", path, json=body) for _ in range(4))
        )
        listing = await client.request("GET", path)

    assert statuses.get(201) == fields
    assert [field["name"] for field in listing.body["doc_metadata"]] == ["town"] * fields


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.4.3", {200: 4}), ("1.12.1", {200: 4}), ("1.14.2", {200: 1, 400: 3})],
)
async def test_only_one_request_at_a_time_changes_the_values_of_a_document_since_1_13(
    version: str, expected: dict[int, int]
) -> None:
    async with run_emulator(version=version, settings=OVERLAPPING) as client:
        dataset = await create_metadata_dataset(client, "m0", "m1")
        statuses = await count_statuses(
            *(dataset.assign("m0", {"town": str(number)}) for number in range(4))
        )
        others = await count_statuses(
            *(dataset.assign(name, {"town": "rome"}) for name in ("m0", "m1"))
        )

    assert statuses == expected
    assert others == {200: 2}


async def test_refused_assignment_has_a_message_that_clients_recognize() -> None:
    async with run_emulator(settings=OVERLAPPING) as client:
        dataset = await create_metadata_dataset(client)
        responses = await asyncio.gather(
            *(dataset.assign("m0", {"town": town}) for town in ("rome", "oslo"))
        )
        (refused,) = [response for response in responses if response.status == 400]

    assert refused.body["code"] == "invalid_param"
    assert "Another document metadata operation is running" in refused.body["message"]


async def test_disabled_chunk_is_locked_until_its_task_has_run() -> None:
    """Measured on all versions: 0.4 s on an idle server."""
    clock = ManualClock()
    async with run_emulator(settings=Settings(segment_lock=0.4), clock=clock) as client:
        dataset = await client.create_dataset()
        created = await client.create_by_text(dataset, "a.txt")
        await client.wait_until_indexed(dataset, created)
        path = f"/datasets/{dataset}/documents/{created.body['document']['id']}/segments"
        (segment,) = (await client.request("GET", path)).body["data"]
        disable, enable = ({"segment": {"enabled": enabled}} for enabled in (False, True))
        responses = [await client.request("POST", f"{path}/{segment['id']}", json=disable)]
        responses += [await client.request("POST", f"{path}/{segment['id']}", json=enable)]
        clock.advance(0.5)
        responses += [await client.request("POST", f"{path}/{segment['id']}", json=enable)]

    assert [response.status for response in responses] == [200, 400, 200]
    assert responses[1].body["message"] == "Segment is indexing, please try again later"
