"""Argument validation before anything is sent, and pagination."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from attrs import evolve

from dify_kb import ConfigError, resources
from dify_kb.models import (
    UNSET,
    ChildChunk,
    Dataset,
    DatasourceType,
    DisplayStatus,
    Document,
    DocumentMetadata,
    Event,
    ListChildChunks,
    MetadataValue,
    Page,
    RetrievalModel,
    RetrievalResult,
    SearchMethod,
)
from dify_kb.resources import ChildChunks, Datasets, Documents, Metadata, Segments, Tags
from dify_kb.wire import codec
from dify_kb.wire.endpoint import Call

R = TypeVar("R")

D1 = "11111111-1111-4111-8111-111111111111"
D2 = "22222222-2222-4222-8222-222222222222"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
VECTOR = RetrievalModel(search_method=SearchMethod("vector_search"))
VALUE = MetadataValue(id=D1, name="year", value=2024)

ARGUMENTS: Mapping[str, object] = {
    "batch": "20261121080722123456",
    "content": "a",
    "datasource_info_list": [],
    "datasource_type": DatasourceType.LOCAL_FILE,
    "document_ids": [D1],
    "file": b"hello",
    "name": "a.txt",
    "node_id": "1",
    "query": "a",
    "segments": ["a"],
    "start_node_id": "1",
    "tag_ids": [D1],
    "text": "a",
    "type": "string",
    "values": {D1: {"year": 2024}},
}
IDS = frozenset(
    {"dataset_id", "document_id", "segment_id", "child_chunk_id", "metadata_id", "tag_id"}
)
LISTS = frozenset({"document_ids", "tag_ids"})


class Sent:
    """A call sender that only records the calls."""

    server_version: str | None = None

    def __init__(self, answer: Callable[[Call[Any]], object] = lambda _: None) -> None:
        self.calls: list[Call[Any]] = []
        self._answer = answer

    async def __call__(self, call: Call[R], /) -> R:
        self.calls.append(call)
        return cast("R", self._answer(call))

    async def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        self.calls.append(call)
        yield Event(event="done", data={})


def encode_body(call: Call[Any]) -> Any:
    return call.body


def make_document_metadata(document_id: str, value: MetadataValue) -> DocumentMetadata:
    return DocumentMetadata(document_id=document_id, metadata_list=[value])


def list_methods_with(names: frozenset[str]) -> list[tuple[str, str, str]]:
    return [
        (noun, method, parameter)
        for noun in resources.__all__
        for method, function in inspect.getmembers(getattr(resources, noun), inspect.isfunction)
        if not method.startswith("_")
        for parameter in inspect.signature(function).parameters
        if parameter in names
    ]


async def run_to_end(given: object) -> None:
    if inspect.isawaitable(given):
        await given
    elif isinstance(given, resources.Pager | resources.Events):
        async for _ in given:
            pass


async def expect_config_error(call_method: Callable[[], object], sent: Sent) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        await run_to_end(call_method())
    assert sent.calls == []
    return raised.value


def make_call(
    noun: str, method: str, sent: Sent, wrong: Mapping[str, object]
) -> Callable[[], object]:
    bound = getattr(getattr(resources, noun)(sent), method)
    arguments = {**ARGUMENTS, **dict.fromkeys(IDS, D1), **wrong}
    arguments.setdefault(
        "documents", [make_document_metadata(D1, VALUE)] if noun == "Metadata" else [D1]
    )
    parameters = inspect.signature(bound).parameters
    given = {
        name: arguments[name]
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty or name in wrong or name == "name"
    }
    return lambda: bound(**given)


# --- refused before anything is sent


@pytest.mark.parametrize("wrong", ["handbook", "", f"{D1}/../..", D1.replace("-", "")])
@pytest.mark.parametrize(("noun", "method", "parameter"), list_methods_with(IDS))
async def test_an_invalid_id_is_refused_by_its_name(
    noun: str, method: str, parameter: str, wrong: str
) -> None:
    """The server would return an HTML page with a misleading 404, as for an unknown route."""
    sent = Sent()

    error = await expect_config_error(make_call(noun, method, sent, {parameter: wrong}), sent)

    assert error.summary.startswith(f"Invalid {parameter}: {wrong!r}")


@pytest.mark.parametrize(
    ("noun", "method", "parameter"),
    [row for row in list_methods_with(LISTS) if row[0] != "Datasets"],  # there they only filter
)
async def test_an_invalid_id_within_a_list_is_refused_by_its_name(
    noun: str, method: str, parameter: str
) -> None:
    """The server returns 500 for the whole list (measured)."""
    sent = Sent()

    error = await expect_config_error(
        make_call(noun, method, sent, {parameter: [D1, "handbook"]}), sent
    )

    assert error.summary.startswith(f"Invalid {parameter}: 'handbook'")


@pytest.mark.parametrize(
    ("noun", "method", "parameter"),
    [
        *(row for row in list_methods_with(LISTS) if row[0] != "Datasets"),
        ("Segments", "create", "segments"),
        ("Metadata", "assign", "documents"),
    ],
)
async def test_an_empty_list_is_refused_by_its_name(noun: str, method: str, parameter: str) -> None:
    """The server returns 200, 400 or 500, depending on the operation."""
    sent = Sent()

    error = await expect_config_error(make_call(noun, method, sent, {parameter: []}), sent)

    assert error.summary == f"{parameter} is empty."


@pytest.mark.parametrize(
    ("noun", "method", "parameter"),
    [
        *list_methods_with(LISTS),
        ("Segments", "create", "segments"),
        ("Segments", "list", "status"),
        ("Segments", "iter", "status"),
    ],
)
async def test_a_text_in_place_of_a_list_is_refused(noun: str, method: str, parameter: str) -> None:
    """Python would iterate over its characters, which the server does not find."""
    sent = Sent()

    error = await expect_config_error(make_call(noun, method, sent, {parameter: "completed"}), sent)

    assert error.hint == "Pass ['completed']."


TOO_LONG: Sequence[tuple[Callable[[Sent], object], str]] = [
    (lambda sent: Datasets(sent).create(""), "name has 0"),
    (lambda sent: Datasets(sent).create("x" * 41), "name has 41"),
    (lambda sent: Datasets(sent).create("a", description="x" * 401), "description has 401"),
    (lambda sent: Datasets(sent).update(D1, name=""), "name has 0"),
    (lambda sent: Datasets(sent).update(D1, name="x" * 41), "name has 41"),
    (lambda sent: Datasets(sent).update(D1, description="x" * 401), "description has 401"),
    (lambda sent: Datasets(sent).retrieve(D1, ""), "query has 0"),
    (lambda sent: Datasets(sent).retrieve(D1, "x" * 251), "query has 251"),
    (lambda sent: Metadata(sent).create(D1, "", type="string"), "name has 0"),
    (lambda sent: Metadata(sent).create(D1, "x" * 256, type="string"), "name has 256"),
    (lambda sent: Metadata(sent).update(D1, D2, "x" * 256), "name has 256"),
    (lambda sent: Tags(sent).create(""), "name has 0"),
    (lambda sent: Tags(sent).create("x" * 51), "name has 51"),
    (lambda sent: Tags(sent).update(D1, "x" * 51), "name has 51"),
]


@pytest.mark.parametrize(("call_method", "named"), TOO_LONG)
async def test_a_text_of_a_wrong_length_is_refused_by_its_name(
    call_method: Callable[[Sent], object], named: str
) -> None:
    """The limits are those of the server; no request is sent."""
    sent = Sent()

    error = await expect_config_error(lambda: call_method(sent), sent)

    assert error.summary.startswith(named)
    assert "characters" in error.hint


LONGEST: Sequence[Callable[[Sent], object]] = [
    lambda sent: Datasets(sent).create("x" * 40, description="x" * 400),
    lambda sent: Datasets(sent).update(D1, name="x" * 40, description=""),
    lambda sent: Datasets(sent).retrieve(D1, "x" * 250),
    lambda sent: Metadata(sent).create(D1, "x" * 255, type="time"),
    lambda sent: Tags(sent).create("数" * 50),
]


@pytest.mark.parametrize("call_method", LONGEST)
async def test_the_longest_text_is_sent(call_method: Callable[[Sent], object]) -> None:
    """The limit is in characters, not bytes."""
    sent = Sent(lambda _: RetrievalResult(records=[]))

    await run_to_end(call_method(sent))

    assert len(sent.calls) == 1


SEARCHES: Sequence[Callable[[Sent], object]] = [
    lambda sent: Datasets(sent).create("a", retrieval_model=VECTOR),
    lambda sent: Datasets(sent).update(D1, retrieval_model=VECTOR),
    lambda sent: Datasets(sent).retrieve(D1, "a", retrieval_model=VECTOR),
    lambda sent: Documents(sent).create_by_text(D1, "a", "b", retrieval_model=VECTOR),
    lambda sent: Documents(sent).create_by_file(D1, b"b", name="a.txt", retrieval_model=VECTOR),
]


@pytest.mark.parametrize("call_method", SEARCHES)
async def test_an_invalid_retrieval_model_is_refused_wherever_it_is_passed(
    call_method: Callable[[Sent], object],
) -> None:
    """A dataset that stores such settings finds nothing from then on."""
    sent = Sent()

    error = await expect_config_error(lambda: call_method(sent), sent)

    assert error.hint == "Use semantic_search."


OTHERS: Sequence[tuple[Callable[[Sent], object], str]] = [
    (lambda sent: Documents(sent).download_zip(D1, [D1] * 101), "Too many document_ids: 101"),
    (lambda sent: Documents(sent).create_by_file(D1, b"hello"), "The file has no name"),
    (
        lambda sent: Documents(sent).create_by_file(D1, b"a", name="a/b.txt"),
        "Invalid file name: 'a/b.txt'",
    ),
    (
        lambda sent: Documents(sent).update_by_file(D1, D2, b"a", name="a "),
        "Invalid file name: 'a '",
    ),
    (
        lambda sent: Documents(sent).list(D1, status="enabled"),  # type: ignore[arg-type]  # the point
        "Invalid status 'enabled'",
    ),
    (lambda sent: Documents(sent).wait(D1, ["handbook"]), "Invalid documents: 'handbook'"),
    (
        lambda sent: Metadata(sent).create(D1, "year", type="date"),  # type: ignore[arg-type]  # the point
        "Invalid type 'date'",
    ),
    (
        lambda sent: Metadata(sent).assign(D1, [make_document_metadata("handbook", VALUE)]),
        "Invalid document_id",
    ),
    (
        lambda sent: Metadata(sent).assign(
            D1,
            [make_document_metadata(D2, MetadataValue(id=D1, name="year", value=True))],
        ),
        "Unsupported value for metadata field 'year': True",
    ),
]


@pytest.mark.parametrize(("call_method", "named"), OTHERS)
async def test_arguments_that_the_server_ignores_are_refused(
    call_method: Callable[[Sent], object], named: str
) -> None:
    """For example, assigning a value to a document that does not exist succeeds."""
    sent = Sent()

    error = await expect_config_error(lambda: call_method(sent), sent)

    assert error.summary.startswith(named)
    assert error.hint


# --- lists


def make_child_chunk(number: int) -> ChildChunk:
    return ChildChunk(
        id=f"c{number}",
        segment_id=D1,
        content="a",
        position=number,
        word_count=1,
        type="automatic",
        created_at=NOW,
        updated_at=None,
    )


class Rows:
    """A list on the server, newest first, which may grow between two requests."""

    def __init__(self, size: int, growth: int = 0, until: int = 1_000_000) -> None:
        self.rows = [make_child_chunk(number) for number in reversed(range(size))]
        self.asked: list[ListChildChunks] = []
        self._growth = growth
        self._until = until

    def __call__(self, call: Call[Any]) -> Page[ChildChunk]:
        asked = cast("ListChildChunks", call.body)
        self.asked.append(asked)
        start = (asked.page - 1) * asked.limit
        page = Page(
            data=self.rows[start : start + asked.limit],
            total=len(self.rows),
            page=asked.page,
            limit=asked.limit,
        )
        for _ in range(self._growth if len(self.rows) < self._until else 0):
            self.rows.insert(0, make_child_chunk(len(self.rows)))
        return page


async def read_all(rows: Rows) -> list[str]:
    return [row.id async for row in ChildChunks(Sent(rows)).iter(D1, D1, D1)]


@pytest.mark.parametrize(
    ("size", "requests"), [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (201, 3)]
)
async def test_a_list_is_read_by_hundreds_to_its_total(size: int, requests: int) -> None:
    """`has_more` is true on an exactly full last page, and false after a page that was cut."""
    rows = Rows(size)

    seen = await read_all(rows)

    assert seen == [f"c{number}" for number in reversed(range(size))]
    assert [asked.page for asked in rows.asked] == list(range(1, requests + 1))
    assert {asked.limit for asked in rows.asked} == {100}


@pytest.mark.parametrize("growth", [1, 7, 60, 99])
async def test_every_row_comes_once_while_rows_are_added(growth: int) -> None:
    """Each row that another client adds moves an old one to the next page."""
    rows = Rows(350, growth, until=3000)

    seen = await read_all(rows)

    assert len(seen) == len(set(seen))
    assert set(seen) >= {f"c{number}" for number in range(350)}


async def test_a_list_that_shrinks_ends() -> None:
    """Iteration must end even if `total` is never reached."""
    rows = Rows(250)

    def answer(call: Call[Any]) -> Page[ChildChunk]:
        page = rows(call)
        del rows.rows[100:]
        return page

    seen = [row.id async for row in ChildChunks(Sent(answer)).iter(D1, D1, D1)]

    assert len(seen) == 100
    assert len(rows.asked) == 2


async def test_pages_are_yielded_as_they_arrive() -> None:
    """A caller who stops after the first page causes one request only."""
    rows = Rows(250)

    async for page in ChildChunks(Sent(rows)).iter(D1, D1, D1).pages():
        assert len(page) == 100
        break

    assert len(rows.asked) == 1


@pytest.mark.parametrize(
    "call_method",
    [
        lambda sent: Datasets(sent).list(limit=1000),
        lambda sent: Documents(sent).list(D1, limit=1000),
        lambda sent: Segments(sent).list(D1, D2, limit=1000),
        lambda sent: ChildChunks(sent).list(D1, D2, D1, limit=1000),
    ],
)
async def test_no_page_asks_for_more_than_the_server_gives(call_method: Any) -> None:
    """The server truncates to 100, echoes the limit, and reports no further page (1063)."""
    sent = Sent()

    await call_method(sent)

    assert encode_body(sent.calls[0]).limit == 100


@pytest.mark.parametrize(
    ("options", "sent"),
    [({}, {}), ({"duplicate": True}, {}), ({"duplicate": False}, {"duplicate": False})],
)
async def test_only_a_second_document_of_a_name_is_asked_for(
    options: dict[str, Any], sent: Mapping[str, object]
) -> None:
    """All servers replace the document by default."""
    way = Sent()

    await Documents(way).create_by_file(D1, b"hello", name="a.txt", **options)

    assert codec.encode(encode_body(way.calls[0])) == sent


# --- filters that older servers do not know


RECORDED = Path(__file__).parents[1] / "recorded" / "data" / "1.8.1.jsonl"


def read_recording(case: str, shape: type[R]) -> R:
    lines = RECORDED.read_text("utf-8").splitlines()
    row = next(row for row in map(json.loads, lines) if row["case"] == case)
    return codec.decode(shape, row["body"])


async def test_a_tag_that_only_a_later_page_bears_is_found() -> None:
    """A page without matches is not necessarily the last one."""
    page = read_recording("847-ds-list-tag-filter", Page[Dataset])
    rows = [evolve(page.data[0], id=f"d{number}", tags=[]) for number in range(250)]
    rows[170] = evolve(rows[170], tags=[{"id": D1, "name": "a", "type": "knowledge"}])
    sent = Sent(lambda call: slice_page(rows, call))

    found = [row.id async for row in Datasets(sent).iter(tag_ids=[D1, D2])]

    assert found == ["d170"]
    assert [encode_body(call).page for call in sent.calls] == [1, 2, 3]
    assert {encode_body(call).tag_ids for call in sent.calls} == {UNSET}


async def test_a_status_that_only_a_later_page_has_is_found() -> None:
    """Servers before 1.11 ignore the status."""
    page = read_recording("269-list-docs-limit=100", Page[Document])
    good, bad = DisplayStatus.AVAILABLE, DisplayStatus.ERROR
    rows = [evolve(page.data[0], id=f"d{n}", display_status=good) for n in range(250)]
    rows[170] = evolve(rows[170], display_status=bad)
    sent = Sent(lambda call: slice_page(rows, call))

    found = [row.id async for row in Documents(sent).iter(D1, status="error")]

    assert found == ["d170"]
    assert {encode_body(call).status for call in sent.calls} == {bad}


def slice_page(rows: Sequence[R], call: Call[Any]) -> Page[R]:
    asked = encode_body(call)
    start = (asked.page - 1) * asked.limit
    data = rows[start : start + asked.limit]
    return Page(data=data, total=len(rows), page=asked.page, limit=asked.limit)
