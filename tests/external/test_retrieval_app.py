"""Responses of the retrieval server to Dify and to invalid requests."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from collections.abc import Iterable
from typing import Self

import pytest
from attrs import define, field
from retrieval_server import (
    KEY,
    FixedRetriever,
    build_conditions,
    build_question,
    serve_app,
    serve_retriever,
)

from dify_kb.errors import ConfigError
from dify_kb.external import RetrievalRecord, RetrievalRequest, create_app, retrieval_app

ZEBRA = RetrievalRecord("Zebras graze.", score=0.9, title="zebra.md", metadata={"year": 2024})
FOX = RetrievalRecord(
    "Foxes dig.", score=0.4, title="fox.md", metadata={"year": 2020, "team": "red"}
)
GNU = RetrievalRecord("Gnus wander.", score=0.6, title="gnu.md", metadata={"team": "blue"})


async def test_response_has_sorted_records_with_all_fields() -> None:
    """Dify requires the four fields of each record and does not sort."""
    async with serve_retriever(FixedRetriever([FOX, ZEBRA])) as server:
        response = await server.retrieve()

    assert response.content_type == "application/json"
    assert response.body == {
        "records": [
            {
                "content": "Zebras graze.",
                "score": 0.9,
                "title": "zebra.md",
                "metadata": {"year": 2024},
            },
            {
                "content": "Foxes dig.",
                "score": 0.4,
                "title": "fox.md",
                "metadata": {"year": 2020, "team": "red"},
            },
        ]
    }


async def test_retriever_gets_the_parsed_request() -> None:
    retriever = FixedRetriever([ZEBRA])
    metadata_condition = build_conditions(
        ("year", ">=", 2021), ("team", "in", ["red", 7]), logical_operator="or"
    )
    async with serve_retriever(retriever) as server:
        await server.retrieve(
            "größe 斑马", top_k=3, threshold=0.25, metadata_condition=metadata_condition
        )

    (query,) = retriever.requests
    assert (query.query, query.knowledge_id, query.score_threshold) == ("größe 斑马", "docs", 0.25)
    assert query.metadata_condition is not None
    assert query.metadata_condition.logical_operator == "or"
    assert [
        (condition.name, condition.comparison_operator, condition.value)
        for condition in query.metadata_condition.conditions
    ] == [("year", "≥", 2021), ("team", "in", ["red", "7"])]


@pytest.mark.parametrize(
    "path", ["/retrieval", "//retrieval", "/retrieval/retrieval", "/a/retrieval"]
)
async def test_redundant_path_components_are_accepted(path: str) -> None:
    body = json.dumps(build_question()).encode()
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.post(body, path, Content_Type="application/json")

    assert len(response.records) == 1


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(KEY, 400, 400), ("another", 401, 1002), (None, 401, 1001)],
)
async def test_registration_probe_gets_400_or_401(key: str | None, status: int, code: int) -> None:
    """Dify registers an API by sending only the key, and accepts 400 and 401 but not 403 or 404."""
    async with serve_retriever(FixedRetriever()) as server:
        response = await server.post(key=key)

    assert (response.status, response.body["error_code"]) == (status, code)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY, "Bearer\t"])
async def test_invalid_authorization_header_is_rejected(header: str) -> None:
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.post(b"{}", key=None, Authorization=header)

    assert response.status == 401
    assert response.body == {
        "error_code": 1001,
        "error_msg": "The Authorization header must be 'Bearer <api-key>'.",
    }


async def test_only_configured_keys_are_accepted() -> None:
    """Several keys allow key rotation without an interruption."""
    retriever = FixedRetriever([ZEBRA])
    body = json.dumps(build_question()).encode()
    keys = ["old-key", "new-kéy"]
    async with serve_app(create_app({"docs": retriever}, api_keys=keys)) as server:
        statuses = [
            (await server.post(body, key=key, Content_Type="application/json")).status
            for key in [*keys, "old-ke", "old-key2", "OLD-KEY"]
        ]

    assert statuses == [200, 200, 401, 401, 401]


BAD_BODIES = {
    b" \n": "The body is empty; expected a JSON object.",
    b"query=zebra": "The body is not valid JSON.",
    b"[" * 100_000: "The body is not valid JSON.",
    b"\xff\xfe\xff": "The body is not valid JSON.",
    b"[]": "The body is [], not an object.",
    b"null": "The body is null, not an object.",
    b"{}": "retrieval_setting is missing.",
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_invalid_body_is_rejected(body: bytes) -> None:
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.post(body, Content_Type="application/json")

    assert (response.status, response.body["error_msg"]) == (400, BAD_BODIES[body])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retrieval_setting": None}, "retrieval_setting is null, not an object."),
        ({"query": None}, "query is null, not a string."),
        ({"query": ["a"]}, 'query is ["a"], not a string.'),
        ({"knowledge_id": 7}, "knowledge_id is 7, not a string."),
        ({"top_k": 0}, "retrieval_setting.top_k is 0, not a positive integer."),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": True}, "top_k is true"),
        ({"top_k": "4"}, 'top_k is "4"'),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"threshold": 1.1}, "score_threshold is 1.1, not a number from 0 to 1."),
        ({"threshold": -0.1}, "score_threshold is -0.1"),
        ({"threshold": float("nan")}, "score_threshold is NaN"),
        ({"threshold": float("inf")}, "score_threshold is Infinity"),
        ({"threshold": "0.5"}, 'score_threshold is "0.5"'),
        ({"metadata_condition": [1]}, "metadata_condition is [1], not an object."),
        ({"metadata_condition": {"conditions": "a"}}, 'conditions is "a", not a list.'),
        ({"metadata_condition": {"conditions": ["a"]}}, 'A condition is "a", not an object.'),
        ({"metadata_condition": {"conditions": [{}]}}, "name is missing."),
        (
            {"metadata_condition": build_conditions(("a", "like", "b"))},
            'comparison_operator is "like"',
        ),
        ({"metadata_condition": build_conditions(("a", "", "b"))}, 'comparison_operator is ""'),
        (
            {"metadata_condition": build_conditions(("a", "is", {"x": 1}))},
            "The value of a condition is",
        ),
        (
            {"metadata_condition": build_conditions(("a", "is", "b"), logical_operator="xor")},
            "logical_operator is",
        ),
    ],
)
async def test_error_names_the_invalid_field(changes: dict[str, object], message: str) -> None:
    retriever = FixedRetriever([ZEBRA])
    async with serve_retriever(retriever) as server:
        response = await server.retrieve(**changes)

    assert response.status == 400
    assert message in response.body["error_msg"]
    assert len(response.body["error_msg"]) < 300
    assert retriever.requests == []


@pytest.mark.parametrize("name", ["retrieval_setting", "query", "knowledge_id"])
async def test_error_names_the_missing_field(name: str) -> None:
    request_body = build_question()
    del request_body[name]
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.post(
            json.dumps(request_body).encode(), Content_Type="application/json"
        )

    assert (response.status, response.body["error_msg"]) == (400, f"{name} is missing.")


@pytest.mark.parametrize(
    "request_body",
    [
        build_question(top_k=None),
        build_question(metadata_condition={"logical_operator": None, "conditions": None}),
        {name: value for name, value in build_question().items() if name != "metadata_condition"},
        build_question(retrieval_setting={}),
        build_question(
            retrieval_setting={"top_k": 4, "score_threshold": None, "search_type": "HYBRID"}
        ),
    ],
    ids=["top_k", "conditions", "no condition", "no settings", "more settings"],
)
async def test_missing_and_null_fields_get_defaults(request_body: dict[str, object]) -> None:
    retriever = FixedRetriever([ZEBRA])
    async with serve_retriever(retriever) as server:
        response = await server.post(
            json.dumps(request_body).encode(), Content_Type="application/json"
        )

    assert len(response.records) == 1
    assert retriever.requests == [RetrievalRequest(knowledge_id="docs", query="zebra")]


async def test_other_content_type_is_rejected() -> None:
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.post(
            json.dumps(build_question()).encode(), Content_Type="text/plain"
        )

    assert (response.status, response.body["error_msg"]) == (
        415,
        "The Content-Type must be application/json.",
    )


async def test_unknown_knowledge_id_gives_dify_error_code() -> None:
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.retrieve(knowledge_id="x" * 500 + "\ud800")

    assert (response.status, response.body["error_code"]) == (404, 2001)
    assert len(response.body["error_msg"]) < 120


async def test_knowledge_id_selects_the_retriever() -> None:
    async with serve_retriever(
        {"docs": FixedRetriever([ZEBRA]), "wiki": FixedRetriever([FOX])}
    ) as server:
        titles = [
            (await server.retrieve(knowledge_id=id_)).records[0]["title"]
            for id_ in ("docs", "wiki")
        ]

    assert titles == ["zebra.md", "fox.md"]


async def test_body_of_five_megabytes_is_rejected() -> None:
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        response = await server.retrieve("z" * 5_000_000)
        second_response = await server.retrieve()

    assert (response.status, response.body["error_code"]) == (413, 413)
    assert second_response.status == 200


async def test_long_query_is_passed_to_the_retriever() -> None:
    """Apps may produce any query; the 250-character limit of Dify's own search does not apply."""
    retriever = FixedRetriever([ZEBRA])
    async with serve_retriever(retriever) as server:
        response = await server.retrieve("zebra " * 20_000)

    assert len(response.records) == 1
    assert len(retriever.requests[0].query) == 120_000


async def test_slow_request_body_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_app, "_BODY_TIMEOUT", 0.1)
    async with serve_retriever(FixedRetriever([ZEBRA])) as server:
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /retrieval HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Authorization: Bearer {KEY}\r\nContent-Length: 99\r\n\r\n{{".encode())
        answer = await reader.readuntil(b"\r\n")
        second_response = await server.retrieve()
        writer.close()
        await writer.wait_closed()

    assert answer == b"HTTP/1.1 408 Request Timeout\r\n"
    assert second_response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/retrieval", 405), ("POST", "/", 404)]
)
async def test_other_methods_and_paths_are_rejected(method: str, path: str, status: int) -> None:
    async with (
        serve_retriever(FixedRetriever()) as server,
        server.session.request(method, server.url + path) as response,
    ):
        body = await response.json()

    assert response.status == status
    assert "POST" in body["error_msg"]


async def test_empty_query_finds_nothing() -> None:
    retriever = FixedRetriever([ZEBRA])
    async with serve_retriever(retriever) as server:
        response = await server.retrieve("  ")

    assert response.records == []
    assert retriever.requests == []


@pytest.mark.parametrize(("top_k", "found"), [(1, 1), (2, 2), (1_000_000_000, 3), (None, 3)])
async def test_response_has_at_most_top_k_records(top_k: int | None, found: int) -> None:
    async with serve_retriever(FixedRetriever([FOX, ZEBRA, GNU])) as server:
        records = (await server.retrieve(top_k=top_k)).records

    assert [record["score"] for record in records] == [0.9, 0.6, 0.4][:found]


async def test_high_top_k_is_reduced() -> None:
    """The retriever never gets a top_k of a thousand million."""
    retriever = FixedRetriever([RetrievalRecord(str(number), score=0.5) for number in range(200)])
    async with serve_retriever(retriever) as server:
        records = (await server.retrieve(top_k=1_000_000_000)).records

    assert len(records) == 100
    assert retriever.requests[0].top_k == 100


@pytest.mark.parametrize(("threshold", "found"), [(0, 3), (0.4, 3), (0.41, 2), (0.9, 1), (1, 0)])
async def test_records_below_the_threshold_are_omitted(threshold: float, found: int) -> None:
    async with serve_retriever(FixedRetriever([FOX, ZEBRA, GNU])) as server:
        assert len((await server.retrieve(threshold=threshold)).records) == found


async def test_equal_scores_keep_the_order_of_the_retriever() -> None:
    records = [RetrievalRecord(str(number), score=0.5) for number in range(9)]
    async with serve_retriever(FixedRetriever(records)) as server:
        found = (await server.retrieve(top_k=9)).records

    assert [record["content"] for record in found] == [*"012345678"]


OLD, NEW = {"at": "2020-02-01", "n": 1}, {"at": "2024-03-01T10:00:00+02:00", "n": 2, "s": "ab"}
FILTERS = [
    ([("s", "contains", "a")], "and", [2]),
    ([("s", "not contains", "a")], "and", []),
    ([("s", "not contains", "x")], "and", [2]),
    ([("s", "start with", "a")], "and", [2]),
    ([("s", "end with", "b")], "and", [2]),
    ([("s", "is", "ab")], "and", [2]),
    ([("s", "is not", "ab")], "and", []),
    ([("s", "empty", None)], "and", [1]),
    ([("s", "not empty", None)], "and", [2]),
    ([("s", "in", ["ab", "c"])], "and", [2]),
    ([("s", "in", "c, ab")], "and", [2]),
    ([("s", "in", [])], "and", []),
    ([("n", "not in", [])], "and", [1, 2]),
    ([("n", "not in", ["1"])], "and", [2]),
    ([("n", "=", 1)], "and", [1]),
    ([("n", "=", "1")], "and", [1]),
    ([("n", "≠", 1)], "and", [2]),
    ([("n", "!=", 1)], "and", [2]),
    ([("n", ">", 1)], "and", [2]),
    ([("n", "<", "2")], "and", [1]),
    ([("n", "≥", 2)], "and", [2]),
    ([("n", "<=", 1)], "and", [1]),
    ([("at", "before", "2021-01-01")], "and", [1]),
    ([("at", "after", 1_600_000_000)], "and", [2]),
    ([("at", "after", "2024-03-01T08:30:00")], "and", []),
    ([("n", "before", 2)], "and", [1]),
    ([("n", "=", None)], "and", [1, 2]),
    ([("n", ">", 1), ("n", "=", None)], "and", [2]),
    ([("n", ">", 1), ("at", "before", "2021-01-01")], "and", []),
    ([("n", ">", 1), ("at", "before", "2021-01-01")], "or", [1, 2]),
    ([("n", ">", 1), ("at", "before", "2021-01-01")], None, [1, 2]),
]


@pytest.mark.parametrize(("conditions", "logical_operator", "found"), FILTERS)
async def test_records_are_filtered_by_the_rules_of_dify(
    conditions: list[tuple[str, str, object]], logical_operator: str | None, found: list[int]
) -> None:
    records = [
        RetrievalRecord("a", score=0.5, metadata=OLD),
        RetrievalRecord("b", score=0.4, metadata=NEW),
    ]
    async with serve_retriever(FixedRetriever(records)) as server:
        response = await server.retrieve(
            metadata_condition=build_conditions(*conditions, logical_operator=logical_operator)
        )

    assert [record["metadata"]["n"] for record in response.records] == found


async def test_list_of_names_is_one_condition_per_name() -> None:
    """The API documentation specifies a list of names; Dify itself sends a string."""
    metadata_condition = build_conditions(("x", "is", "ab"), logical_operator="or")
    metadata_condition["conditions"][0]["name"] = ["n", "s"]  # type: ignore[index]
    async with serve_retriever(
        FixedRetriever([RetrievalRecord("b", score=0.4, metadata=NEW)])
    ) as server:
        assert len((await server.retrieve(metadata_condition=metadata_condition)).records) == 1


async def test_top_k_is_increased_for_a_retriever_that_cannot_filter() -> None:
    """Otherwise a filter could remove all of the first four records."""
    retriever = FixedRetriever([ZEBRA, *[FOX] * 30])
    metadata_condition = build_conditions(("year", "=", 2020))
    async with serve_retriever(retriever) as server:
        records = (await server.retrieve(metadata_condition=metadata_condition)).records

    assert retriever.requests[0].top_k == 40
    assert [record["title"] for record in records] == ["fox.md"] * 4


class Filtering(FixedRetriever):
    filters_metadata = True


async def test_filter_of_the_retriever_is_not_applied_again() -> None:
    """The metadata of its records need not contain the fields."""
    retriever = Filtering([ZEBRA])
    async with serve_retriever(retriever) as server:
        response = await server.retrieve(metadata_condition=build_conditions(("secret", "is", "x")))

    assert len(response.records) == 1
    assert retriever.requests[0].top_k == 4


async def test_unusual_values_become_valid_json() -> None:
    odd = {
        "day": dt.date(2024, 2, 3),
        "when": dt.datetime(2024, 2, 3, tzinfo=dt.UTC),
        "tags": ("a", "b"),
        "inf": float("inf"),
        7: "seven",
    }
    records = [
        RetrievalRecord("half \ud800 pair", score=7.5, metadata=odd),  # type: ignore[arg-type]
        RetrievalRecord("", score=-1, metadata=None),  # type: ignore[arg-type]
    ]
    async with serve_retriever(FixedRetriever(records)) as server:
        found = (await server.retrieve(threshold=0)).records
        everything = (await server.retrieve(retrieval_setting={"top_k": 4})).records

    assert found == everything
    assert found == [
        {
            "content": "half ? pair",
            "score": 1.0,
            "title": "",
            "metadata": {
                "day": "2024-02-03",
                "when": "2024-02-03T00:00:00+00:00",
                "tags": ["a", "b"],
                "inf": None,
                "7": "seven",
            },
        }
    ]


class FailingRetriever:
    def __init__(self, error: BaseException | None = None, result: object = None) -> None:
        self.error = error
        self.result = result

    async def retrieve(self, _: RetrievalRequest) -> Iterable[RetrievalRecord]:
        if self.error:
            raise self.error
        if self.result == "slow":
            await asyncio.sleep(60)
        return self.result  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("retriever", "why"),
    [
        (FailingRetriever(RuntimeError("the disk is gone")), "RuntimeError: the disk is gone"),
        (FailingRetriever(TimeoutError("upstream")), "TimeoutError: upstream"),
        (FailingRetriever(ValueError(f"bad key {KEY}")), "ValueError: bad key …"),
        (FailingRetriever(result="slow"), "the retriever took longer than 0.1 s"),
        (FailingRetriever(), "the retriever returned NoneType, not records"),
        (
            FailingRetriever(result=["text"]),
            "the retriever returned str among the records",
        ),
        (
            FailingRetriever(result=[RetrievalRecord(None, score=1)]),  # type: ignore[arg-type]
            "content is NoneType, not a string",
        ),
        (
            FailingRetriever(result=[RetrievalRecord("a", score=None)]),  # type: ignore[arg-type]
            "score is None, not a number",
        ),
        (
            FailingRetriever(result=[RetrievalRecord("a", score=float("nan"))]),
            "score is nan, not a number",
        ),
        (
            FailingRetriever(result=[RetrievalRecord("a", score=1, metadata=["b"])]),  # type: ignore[arg-type]
            "metadata is list",
        ),
    ],
)
async def test_retriever_error_is_logged_and_gives_a_500(
    retriever: FailingRetriever, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve_retriever(retriever, timeout=0.1) as server:
        with caplog.at_level(logging.INFO):
            response = await server.retrieve()

    assert response.status == 500
    assert response.body == {
        "error_code": 500,
        "error_msg": "The retriever of this knowledge base failed; see the log of its server.",
    }
    assert why in caplog.text
    assert "Traceback" not in caplog.text
    assert KEY not in caplog.text


async def test_invalid_request_head_does_not_log_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serve_retriever(FixedRetriever()) as server:
        port = int(server.url.rpartition(":")[2])
        heads = (f"Authorization: Bearer {KEY}\0", f"Authorization : Bearer {KEY}")
        for head in heads:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"POST /retrieval HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
            answer = await reader.readuntil(b"\r\n")
            assert answer.startswith(b"HTTP/1.0 400")
            writer.close()
            await writer.wait_closed()

    assert "BadHttpMessage" in caplog.text
    assert KEY not in caplog.text


@define
class RecordingLifecycle(FixedRetriever):
    """A retriever that is a context manager."""

    events: list[str] = field(factory=list)

    async def __aenter__(self) -> Self:
        self.events.append("opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.events.append("closed")


async def test_retriever_is_open_while_the_server_runs() -> None:
    """It is opened once, even if it serves two ids."""
    retriever = RecordingLifecycle([ZEBRA])
    async with serve_retriever({"docs": retriever, "more": retriever}) as server:
        await server.retrieve()
        assert retriever.events == ["opened"]

    assert retriever.events == ["opened", "closed"]


@pytest.mark.parametrize("keys", ["", "  ", [], ["a", ""]])
def test_missing_or_empty_key_is_an_error(keys: str | list[str]) -> None:
    with pytest.raises(ConfigError, match="API key"):
        create_app({"docs": FixedRetriever()}, api_keys=keys)


def test_missing_retriever_is_an_error() -> None:
    with pytest.raises(ConfigError, match="No retrievers"):
        create_app({}, api_keys=KEY)
