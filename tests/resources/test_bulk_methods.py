"""Bulk methods, which send several requests."""

from __future__ import annotations

import pytest

from dify_kb import (
    AsyncClient,
    BadRequestError,
    ConfigError,
    Dataset,
    NewSegment,
    NotFoundError,
    OutcomeUnknownError,
    PartialError,
    ServerError,
    UnauthorizedError,
)
from dify_kb.emulator import VERSIONS, Emulator
from dify_kb.models import Segment
from dify_kb.resources._create_segments import split_batches

NOBODY = "00000000-0000-4000-8000-000000000000"
MEMBER = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def dataset(client: AsyncClient) -> Dataset:
    return await client.datasets.create("base", indexing_technique="economy")


async def create_document(client: AsyncClient, dataset: Dataset, name: str = "a.txt") -> str:
    created = await client.documents.create_by_text(dataset, name, "The first chunk.")
    await client.documents.wait(dataset, [created], timeout=10)
    return created.document.id


async def list_contents(client: AsyncClient, dataset: Dataset, id_: str) -> list[str]:
    return [row.content async for row in client.segments.iter(dataset, id_)]


def count_requests(emulator: Emulator, endpoint: str) -> int:
    return sum(exchange.endpoint == endpoint for exchange in emulator.history)


def make_texts(count: int) -> list[str]:
    return [f"chunk number {number}" for number in range(count)]


async def test_many_chunks_are_appended_in_their_order(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    """500 chunks in one request take a real server minutes, longer than proxies wait."""
    id_ = await create_document(client, dataset)

    made = await client.segments.create_many(dataset, id_, make_texts(120))

    assert [segment.content for segment in made] == make_texts(120)
    assert await list_contents(client, dataset, id_) == [
        "The first chunk.",
        *make_texts(120),
    ]
    assert count_requests(emulator, "segments.create") == 3


def test_batches_are_bounded_by_number_and_length() -> None:
    new = [NewSegment(content="x" * length) for length in (3, 3, 9, 1, 1, 1)]

    sizes = [[len(one.content) for one in batch] for batch in split_batches(new, 2, 6)]

    assert sizes == [[3, 3], [9], [1, 1], [1]]


async def test_a_batch_whose_answer_was_lost_is_found_and_not_made_twice(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    """The server accepts equal chunks, so a repeated batch would duplicate them."""
    id_ = await create_document(client, dataset)
    emulator.faults.plan("segments.create", ["ok", "commit-then-reset"])

    made = await client.segments.create_many(dataset, id_, make_texts(9), batch_size=3)

    assert emulator.faults.left() == {}
    assert [segment.content for segment in made] == make_texts(9)
    assert await list_contents(client, dataset, id_) == ["The first chunk.", *make_texts(9)]


async def test_a_batch_with_unknown_outcome_is_reported(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    id_ = await create_document(client, dataset)
    emulator.faults.plan("segments.create", ["ok", "500"])

    with pytest.raises(PartialError, match="Created 3 of 9 chunks") as caught:
        await client.segments.create_many(dataset, id_, make_texts(9), batch_size=3)

    assert isinstance(caught.value.__cause__, OutcomeUnknownError)
    assert "may still be created" in caught.value.hint
    assert emulator.faults.left() == {}


async def test_the_rest_can_be_sent_after_a_partial_error(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    id_ = await create_document(client, dataset)
    emulator.faults.plan("segments.create", ["ok", "400"])

    with pytest.raises(PartialError, match="Continue with chunk 4") as caught:
        await client.segments.create_many(dataset, id_, make_texts(9), batch_size=3)
    done = caught.value.done
    await client.segments.create_many(dataset, id_, make_texts(9)[len(done) :])

    assert all(isinstance(segment, Segment) for segment in done)
    assert await list_contents(client, dataset, id_) == ["The first chunk.", *make_texts(9)]


async def test_a_batch_that_is_too_large_is_halved(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    id_ = await create_document(client, dataset)
    emulator.faults.plan("segments.create", ["413", "413"])

    made = await client.segments.create_many(dataset, id_, make_texts(9), batch_size=8)

    assert emulator.faults.left() == {}
    assert [segment.content for segment in made] == make_texts(9)
    assert await list_contents(client, dataset, id_) == ["The first chunk.", *make_texts(9)]


async def test_a_failed_first_batch_raises_its_own_error(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    """No part succeeded that a PartialError could report."""
    id_ = await create_document(client, dataset)
    emulator.faults.plan("segments.create", ["400"])

    with pytest.raises(BadRequestError):
        await client.segments.create_many(dataset, id_, make_texts(3))
    with pytest.raises(NotFoundError):
        await client.segments.create_many(dataset, NOBODY, make_texts(3))


async def test_an_invalid_chunk_is_refused_before_any_is_sent(
    client: AsyncClient, dataset: Dataset, emulator: Emulator
) -> None:
    """The server would reject its batch after creating earlier ones."""
    id_ = await create_document(client, dataset)

    with pytest.raises(ConfigError, match=r"segments\[60\] has no text"):
        await client.segments.create_many(dataset, id_, [*make_texts(60), " "])
    with pytest.raises(ConfigError, match="Invalid batch_size: 0"):
        await client.segments.create_many(dataset, id_, make_texts(2), batch_size=0)

    assert count_requests(emulator, "segments.create") == 0


async def test_metadata_of_many_documents_keeps_what_is_there(
    client: AsyncClient, dataset: Dataset
) -> None:
    ids = [await create_document(client, dataset, f"{number}.txt") for number in range(3)]
    await client.metadata.assign_by_name(dataset, {ids[0]: {"team": "infra"}})

    await client.metadata.assign_by_name(dataset, {id_: {"year": 2024} for id_ in ids})

    told = {row.name: row.doc_metadata async for row in client.documents.iter(dataset)}
    values = {
        name: {entry["name"]: entry["value"] for entry in fields or () if entry["id"] != "built-in"}
        for name, fields in told.items()
    }
    assert values == {
        "0.txt": {"team": "infra", "year": 2024},
        "1.txt": {"year": 2024},
        "2.txt": {"year": 2024},
    }


async def test_refused_documents_are_listed_apart_from_assigned_ones(
    client: AsyncClient, dataset: Dataset
) -> None:
    good, bad = [await create_document(client, dataset, name) for name in ("good.txt", "bad.txt")]

    with pytest.raises(PartialError, match="1 of 2 documents") as caught:
        await client.metadata.assign_by_name(dataset, {good: {"year": 2024}, bad: {"year": None}})

    assert caught.value.done == [good]
    assert list(caught.value.failed) == [bad]


async def test_a_partial_error_lists_metadata_assigned_before_the_failure() -> None:
    """51 documents take two requests; 1.12.1 ignores unknown documents."""
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(51)]
    with Emulator(version="1.12.1") as server:
        server.faults.plan("metadata.assign", ["ok", "401"])
        async with AsyncClient(server.url, server.api_key) as client:
            dataset = await client.datasets.create("base", indexing_technique="economy")

            with pytest.raises(PartialError, match="50 of 51") as caught:
                await client.metadata.assign_by_name(dataset, {id_: {"year": 2024} for id_ in ids})

        assert caught.value.done == ids[:50]
        assert isinstance(caught.value.__cause__, UnauthorizedError)
        assert server.faults.left() == {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_dataset_is_created_with_its_members(version: str) -> None:
    with Emulator(version=version) as server:
        async with AsyncClient(server.url, server.api_key) as client:
            made = await client.datasets.create("shared", partial_member_list=[MEMBER])

            assert made.permission == "partial_members"
            assert list(made.partial_member_list or ()) == [MEMBER]


async def test_a_dataset_whose_members_were_not_set_is_reported(
    client: AsyncClient, emulator: Emulator
) -> None:
    """The dataset exists, but only its creator can see it."""
    emulator.faults.plan("datasets.update", ["500"] * 3)

    with pytest.raises(PartialError, match="was created without its members") as caught:
        await client.datasets.create("shared", partial_member_list=[MEMBER])

    (made,) = caught.value.done
    assert isinstance(made, Dataset)
    assert isinstance(caught.value.__cause__, ServerError)
    assert (await client.datasets.get(made)).permission == "partial_members"


async def test_members_require_partial_members_permission(client: AsyncClient) -> None:
    """With another permission, the server silently removes the members."""
    with pytest.raises(ConfigError, match="permission 'only_me' cannot be combined"):
        await client.datasets.create("a", permission="only_me", partial_member_list=[MEMBER])
    with pytest.raises(ConfigError, match="partial_member_list is a string"):
        await client.datasets.create("a", partial_member_list=MEMBER)
