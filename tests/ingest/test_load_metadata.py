from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime

import anyio
import pytest
from attrs import frozen

from dify_kb import (
    AsyncClient,
    ConfigError,
    Dataset,
    NotFoundError,
    OutcomeUnknownError,
    Policy,
    ProcessRule,
    RetrievalModel,
    UnauthorizedError,
)
from dify_kb.emulator import VERSIONS, Emulator
from dify_kb.resources.metadata_assignment import DOCUMENTS_PER_REQUEST, MetadataAssignment
from dify_kb.resources.metadata_validation import validate_metadata
from dify_kb.wire.version_bugs import is_older

NOBODY = "00000000-0000-4000-8000-000000000000"
SEEN = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

Values = dict[str, str]
"""A document's values as lists return them: all as strings."""


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """An emulator of each version."""
    with Emulator(version=request.param) as started:
        yield started


@frozen
class Base:
    """A dataset on a server, with its documents and metadata."""

    server: Emulator
    client: AsyncClient
    dataset: Dataset

    def assignment(self, dataset: Dataset | str | None = None) -> MetadataAssignment:
        return MetadataAssignment(self.client.metadata._send, dataset or self.dataset)

    def older(self, version: str) -> bool:
        return is_older(self.client.server_version, version)

    def count_requests(self) -> Counter[str]:
        """Count the requests so far."""
        return Counter(exchange.endpoint for exchange in self.server.history)

    async def documents(self, *names: str) -> list[str]:
        rule = ProcessRule.custom(max_tokens=100, chunk_overlap=0)
        created = [
            await self.client.documents.create_by_text(
                self.dataset, name, f"a wombat of {name}", process_rule=rule
            )
            for name in names
        ]
        return [one.document.id for one in created]

    async def types(self) -> dict[str, str]:
        fields = await self.client.metadata.list(self.dataset)
        return {row.name: str(row.type) for row in fields.doc_metadata}

    async def read(self, document_id: str) -> Values:
        async for row in self.client.documents.iter(self.dataset):
            if row.id == document_id:
                return {
                    str(entry["name"]): str(entry["value"])
                    for entry in row.doc_metadata or ()
                    if entry["id"] != "built-in"
                }
        raise AssertionError(document_id)

    async def stored(self, name: str) -> Mapping[str, object] | None:
        """Return all values of a document with their types, as searches see them."""
        rows = [row.id async for row in self.client.documents.iter(self.dataset)]
        await self.client.documents.wait(self.dataset, rows)
        model = RetrievalModel.keyword(top_k=10)
        answer = await self.client.datasets.retrieve(self.dataset, "wombat", retrieval_model=model)
        found = [record.segment.document for record in answer.records]
        return next(document.doc_metadata for document in found if document.name == name)


async def open_base(server: Emulator, quick: Policy) -> AsyncIterator[Base]:
    async with AsyncClient(server.url, server.api_key, policy=quick) as client:
        created = await client.datasets.create("labels", indexing_technique="economy")
        yield Base(server, client, await client.datasets.get(created))


@pytest.fixture
async def base(server: Emulator, quick: Policy) -> AsyncIterator[Base]:
    """A dataset on a server of each version."""
    async for one in open_base(server, quick):
        yield one


@pytest.fixture
async def newest(emulator: Emulator, quick: Policy) -> AsyncIterator[Base]:
    """A dataset on a server of the latest version."""
    async for one in open_base(emulator, quick):
        yield one


async def test_metadata_fields_are_created_with_the_type_of_the_first_value(base: Base) -> None:
    one, two = await base.documents("a.txt", "b.txt")
    labels = base.assignment()

    errors = await labels.assign(
        {one: {"town": "łódź", "rank": 3, "seen": SEEN}, two: {"rank": 1.5, "town": "oslo"}},
        fresh={one, two},
    )

    assert errors == {one: None, two: None}
    assert await base.types() == {"town": "string", "rank": "number", "seen": "time"}
    assert await base.read(one) == {"town": "łódź", "rank": "3", "seen": "1700000000.0"}
    assert await base.read(two) == {"rank": "1.5", "town": "oslo"}


async def test_other_metadata_values_are_kept(base: Base) -> None:
    """Old servers replace all values of a document, and 1.4.3 returns numbers as strings, which a
    search for a number would not find.
    """
    one, two = await base.documents("a.txt", "b.txt")
    first = {"town": "oslo", "rank": 20, "weight": 1.5, "code": "007", "seen": SEEN}
    await base.assignment().assign({one: first, two: {"rank": 1}}, fresh={one, two})

    errors = await base.assignment().assign({one: {"town": "rome"}, two: {"town": "bonn"}})

    assert errors == {one: None, two: None}
    assert await base.stored("a.txt") == {**first, "town": "rome", "seen": SEEN.timestamp()}
    assert await base.stored("b.txt") == {"rank": 1, "town": "bonn"}
    assert (await base.read(one))["rank"] == "20"


async def test_other_metadata_values_are_kept_with_a_dataset_id_only(base: Base) -> None:
    """An id does not show the server's version, so each document is read first."""
    (one,) = await base.documents("a.txt")
    await base.assignment().assign({one: {"town": "oslo", "rank": 20}}, fresh={one})

    assert await base.assignment(base.dataset.id).assign({one: {"rank": 21}}) == {one: None}

    assert await base.read(one) == {"town": "oslo", "rank": "21"}


async def test_metadata_of_a_document_can_be_set_twice(base: Base) -> None:
    """With 1.4.3, values are read once per run: later changes must not be lost."""
    old, new = await base.documents("a.txt", "b.txt")
    labels = base.assignment()

    for values in ({"one": 1}, {"two": 2}, {"three": 3}):
        assert await labels.assign({old: values}) == {old: None}
    await labels.assign({new: {"one": 1}}, fresh={new})

    assert await base.read(old) == {"one": "1", "two": "2", "three": "3"}
    assert await base.read(new) == {"one": "1"}


async def test_metadata_assignment_takes_the_documented_requests(base: Base) -> None:
    ids = await base.documents(*(f"{number}.txt" for number in range(DOCUMENTS_PER_REQUEST + 10)))
    fresh, there = set(ids[:DOCUMENTS_PER_REQUEST]), ids[DOCUMENTS_PER_REQUEST:]
    requests = base.count_requests()
    labels = base.assignment()

    await labels.assign({key: {"rank": 1, "town": "oslo"} for key in fresh}, fresh=fresh)
    await labels.assign({key: {"rank": 2} for key in there})

    reads = {"documents.get": len(there)}
    if base.older("1.8"):
        reads = {"documents.list": 1}
    elif not base.older("1.11"):
        reads = {}
    cost = base.count_requests() - requests
    assert cost == {"metadata.list": 1, "metadata.create": 2, "metadata.assign": 2, **reads}


async def test_deleted_document_is_reported_by_metadata_assignment(base: Base) -> None:
    """1.8.1 and 1.4.3 are read first, 1.16 rejects it; 1.12.1 reports nothing (recording 702)."""
    (one,) = await base.documents("a.txt")

    errors = await base.assignment().assign({NOBODY: {"rank": 1}, one: {"rank": 1}})

    silent = base.client.server_version == "1.12.1"
    assert (errors.pop(NOBODY) is None) == silent
    assert errors == {one: None}
    assert await base.read(one) == {"rank": "1"}


async def test_built_in_values_are_not_sent_back(base: Base) -> None:
    """Documents return them with other values, even if they are disabled (recording 698)."""
    (one,) = await base.documents("a.txt")
    labels = base.assignment(base.dataset.id)
    await labels.assign({one: {"town": "oslo"}}, fresh={one})

    assert await labels.assign({one: {"rank": 1}}) == {one: None}

    assert await base.stored("a.txt") == {"town": "oslo", "rank": 1}


async def test_failing_document_is_isolated_from_its_batch(newest: Base) -> None:
    """The server stops there, without reporting which one failed or which were set before."""
    ids = await newest.documents(*(f"{number}.txt" for number in range(DOCUMENTS_PER_REQUEST - 1)))
    wanted = [*ids[:17], NOBODY, *ids[17:]]

    errors = await newest.assignment().assign({key: {"rank": 1} for key in wanted})

    assert "Document not found" in str(errors.pop(NOBODY))
    assert errors == dict.fromkeys(ids)
    assert [await newest.read(key) for key in (ids[0], ids[17], ids[-1])] == [{"rank": "1"}] * 3
    assert newest.count_requests()["metadata.assign"] <= 13


async def test_too_large_metadata_body_is_split(newest: Base) -> None:
    ids = await newest.documents("a.txt", "b.txt", "c.txt")
    newest.server.faults.plan("metadata.assign", ["413"])

    assert await newest.assignment().assign({key: {"rank": 1} for key in ids}) == dict.fromkeys(ids)

    assert not newest.server.faults.left()
    assert newest.count_requests()["metadata.assign"] == 3


async def test_invalid_value_fails_its_document_alone(newest: Base) -> None:
    """A function of the user returns the values, and may fail for one of thousands of files."""
    ids = await newest.documents("a.txt", "b.txt", "c.txt", "d.txt")
    wanted: dict[str, Mapping[str, object]] = {
        ids[0]: {"rank": 1},
        ids[1]: {"rank": "high"},
        ids[2]: {"flag": True},
        ids[3]: {"source": "the web"},
        "no id": {"rank": 1},
    }

    errors = await newest.assignment().assign(wanted)

    assert errors.pop(ids[0]) is None
    assert [str(reason).split(".")[0] for reason in errors.values()] == [
        "Invalid value for metadata field 'rank' of type number: 'high'",
        "Unsupported value for metadata field 'flag': True",
        "'source' is the name of a built-in metadata field",
        "Invalid document_id: 'no id'",
    ]
    assert await newest.read(ids[0]) == {"rank": "1"}
    assert await newest.read(ids[1]) == {}


async def test_field_of_another_type_is_reported(newest: Base) -> None:
    (one,) = await newest.documents("a.txt")
    await newest.client.metadata.create(newest.dataset, "year", type="string")

    errors = await newest.assignment().assign({one: {"year": 2024, "town": "oslo"}})

    assert "metadata field 'year' of type string" in str(errors[one])
    assert await newest.read(one) == {}


async def test_concurrent_calls_create_a_field_once(newest: Base) -> None:
    ids = await newest.documents(*(f"{number}.txt" for number in range(8)))
    labels = newest.assignment()
    errors: dict[str, str | None] = {}

    async def one(key: str) -> None:
        errors.update(await labels.assign({key: {"rank": 1, "town": "oslo"}}))

    async with anyio.create_task_group() as group:
        for key in ids:
            group.start_soon(one, key)

    assert errors == dict.fromkeys(ids)
    requests = newest.count_requests()
    assert (requests["metadata.list"], requests["metadata.create"]) == (1, 2)


async def test_concurrently_created_field_is_used(newest: Base) -> None:
    """Two loads into one dataset create the same fields."""
    one, two = await newest.documents("a.txt", "b.txt")
    labels = newest.assignment()
    await labels.assign({one: {"rank": 1}})
    await newest.client.metadata.create(newest.dataset, "town", type="string")

    assert await labels.assign({two: {"town": "oslo"}}) == {two: None}

    assert await newest.read(two) == {"town": "oslo"}


@pytest.mark.parametrize(("fault", "made"), [("commit-then-reset", True), ("reset", False)])
async def test_lost_response_creates_no_second_field(newest: Base, fault: str, made: bool) -> None:  # noqa: FBT001 -- of a table
    (one,) = await newest.documents("a.txt")
    newest.server.faults.plan("metadata.create", [fault])
    labels = newest.assignment()

    if not made:
        with pytest.raises(OutcomeUnknownError):
            await labels.assign({one: {"rank": 1}})
    assert await labels.assign({one: {"rank": 1}}) == {one: None}

    assert not newest.server.faults.left()
    assert await newest.types() == {"rank": "number"}
    assert await newest.read(one) == {"rank": "1"}


async def test_error_of_every_document_is_raised(newest: Base) -> None:
    """Splitting the batch to find the cause would only cost useless requests."""
    ids = await newest.documents("a.txt", "b.txt")
    newest.server.faults.plan("metadata.assign", ["401"])

    with pytest.raises(UnauthorizedError):
        await newest.assignment().assign({key: {"rank": 1} for key in ids})

    assert not newest.server.faults.left()
    with pytest.raises(NotFoundError):
        await newest.assignment(NOBODY).assign({ids[0]: {"rank": 1}})


async def test_nothing_to_set_costs_nothing(newest: Base) -> None:
    requests = newest.count_requests()

    assert await newest.assignment().assign({}) == {}
    assert await newest.assignment().assign({NOBODY: {}}) == {NOBODY: None}

    assert newest.count_requests() == requests


def test_supported_values_are_accepted() -> None:
    good = {"a": "", "é" * 255: "łódź", "n": 0, "f": -1.5, "t": SEEN}

    assert validate_metadata(good) == good
    assert validate_metadata({"d": SEEN.date()}) == {"d": datetime(2023, 11, 14, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("", "x", "of 0 characters"),
        ("x" * 256, "x", "of 256 characters"),
        (7, "x", "Invalid metadata field name: 7"),
        ("upload_date", 1, "built-in"),
        ("a\0b", "x", "NUL"),
        ("a", "b\0c", "NUL"),
        ("a", "\ud800", "surrogate"),
        ("a", True, "'a': True"),
        ("a", None, "omit"),
        ("a", float("nan"), "finite"),
        ("a", float("inf"), "finite"),
        ("a", ["x"], r"\['x'\]"),
        ("a", SEEN.replace(tzinfo=None), "no time zone"),
    ],
)
def test_unsupported_values_are_rejected(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate_metadata({name: value})
