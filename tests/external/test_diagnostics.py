"""Findings for good and bad servers; requests identical to those of Dify."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field
from retrieval_server import KEY, FixedRetriever, serve_retriever

from dify_kb.errors import ConfigError
from dify_kb.external import (
    Finding,
    FolderRetriever,
    RetrievalRecord,
    RetryPolicy,
    check,
    create_app,
    serve,
)

FAST_RETRIES = RetryPolicy(timeout=2.0, delays=(0.01, 0.01, 0.01))
GOOD = {"content": "a", "score": 0.5, "title": "a.md", "metadata": {}}
BETTER = GOOD | {"score": 0.9}

Responder = Callable[[Any], object]


@define
class FakeEndpoint:
    """An endpoint with a fixed probe status and a function for responses; stores requests."""

    answer: Responder = lambda question: {
        "records": [BETTER, GOOD][: question["retrieval_setting"]["top_k"]]
    }
    probe: int = 400
    status: int = 200
    requests: list[web.Request] = field(factory=list)
    bodies: list[bytes] = field(factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(request)
        self.bodies.append(body)
        if not body:
            return web.Response(status=self.probe, text="probe")
        answer = self.answer(json.loads(body))
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(status=self.status, text=text)


@asynccontextmanager
async def serve_endpoint(endpoint: FakeEndpoint) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", endpoint.handle)
    async with serve(app, "127.0.0.1", 0) as url:
        yield url


async def run_check(url: str, **options: Any) -> dict[str, Finding]:
    settings: dict[str, Any] = {
        "api_key": KEY,
        "knowledge_id": "docs",
        "retry_policy": FAST_RETRIES,
    }
    return {finding.check: finding async for finding in check(url, **(settings | options))}


async def check_endpoint(endpoint: FakeEndpoint) -> dict[str, Finding]:
    async with serve_endpoint(endpoint) as url:
        return await run_check(url)


async def test_served_folder_passes_all_checks(docs: Path, tmp_path: Path) -> None:
    async with serve_retriever(FolderRetriever(docs, index=tmp_path / "index.db")) as server:
        findings = await run_check(server.url, query="device wombats", retry_policy=RetryPolicy())

    assert {finding.status for finding in findings.values()} == {"ok"}
    assert len(findings) == 17


async def test_probe_is_identical_to_that_of_dify() -> None:
    """It has the key, no body and no Content-Type."""
    endpoint = FakeEndpoint(probe=404)
    findings = await check_endpoint(endpoint)

    (request,) = endpoint.requests
    assert (request.method, request.path) == ("POST", "/retrieval")
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert "Content-Type" not in request.headers
    assert endpoint.bodies == [b""]
    assert findings["registration"].status == "failed"


async def test_requests_are_identical_to_those_of_dify() -> None:
    endpoint = FakeEndpoint()
    await check_endpoint(endpoint)

    request, body = endpoint.requests[1], endpoint.bodies[1]
    assert request.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", request.headers["traceparent"])
    assert json.loads(body) == {
        "retrieval_setting": {"top_k": 4, "score_threshold": 0.0},
        "query": "What is this, and what is it for?",
        "knowledge_id": "docs",
        "metadata_condition": None,
    }
    assert any(b"\\u6591\\u9a6c" in body for body in endpoint.bodies)


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (500, 4), (502, 4), (429, 4)])
async def test_endpoint_that_dify_does_not_register_fails(status: int, attempts: int) -> None:
    endpoint = FakeEndpoint(probe=status)
    findings = await check_endpoint(endpoint)

    assert findings["registration"].status == "failed"
    assert findings["registration"].remedy
    assert KEY not in findings["registration"].detail
    assert len(endpoint.requests) == attempts
    assert [*findings] == ["address", "registration"]


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 405, 415, 422, 501])
async def test_endpoint_that_dify_registers_passes_registration(status: int) -> None:
    assert (await check_endpoint(FakeEndpoint(probe=status)))["registration"].status == "ok"


async def test_unreachable_server_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    findings = await run_check(f"http://127.0.0.1:{port}")

    assert findings["registration"].status == "failed"
    assert "no connection" in findings["registration"].detail


INVALID_RESPONSES: Mapping[str, tuple[Responder, str]] = {
    "text": (lambda _: "OK", "not JSON"),
    "empty": (lambda _: "", "not JSON"),
    "list": (lambda _: [GOOD], "the body is a list"),
    "null records": (lambda _: {"records": None}, "records is missing or null"),
    "records in an object": (lambda _: {"records": {}}, "records is an object"),
    "text as record": (lambda _: {"records": ["a"]}, "record 1: it is a string"),
    "no metadata": (
        lambda _: {"records": [GOOD, {"content": "a", "score": 1, "title": ""}]},
        "record 2: metadata is missing or null",
    ),
    "null metadata": (lambda _: {"records": [GOOD | {"metadata": None}]}, "metadata is missing"),
    "list of metadata": (lambda _: {"records": [GOOD | {"metadata": []}]}, "metadata is a list"),
    "no content": (lambda _: {"records": [{"metadata": {}}]}, "content is missing or null"),
    "number as content": (lambda _: {"records": [GOOD | {"content": 1}]}, "content is a number"),
}


@pytest.mark.parametrize("case", INVALID_RESPONSES)
async def test_invalid_response_fails_with_a_remedy(case: str) -> None:
    answer, message = INVALID_RESPONSES[case]
    findings = await check_endpoint(FakeEndpoint(answer))

    assert findings["retrieval"].status == "failed"
    assert message in findings["retrieval"].detail
    assert findings["retrieval"].remedy
    assert [*findings] == ["address", "registration", "retrieval"]


@pytest.mark.parametrize(("status", "attempts"), [(201, 1), (204, 1), (400, 1), (404, 1), (503, 4)])
async def test_status_other_than_200_fails(status: int, attempts: int) -> None:
    endpoint = FakeEndpoint(status=status)
    findings = await check_endpoint(endpoint)

    assert findings["retrieval"].status == "failed"
    assert str(status) in findings["retrieval"].detail
    assert len(endpoint.requests) == 1 + attempts


async def test_response_without_records_is_a_warning() -> None:
    findings = await check_endpoint(FakeEndpoint(lambda _: {"records_": 1}))

    assert findings["retrieval"].status == "warning"
    assert "--query" in findings["retrieval"].remedy


def answer_records(*records: Mapping[str, object]) -> Responder:
    return lambda _: {"records": [*records]}


def reject_if(check: Callable[[Any], bool]) -> Responder:
    """Return status 422 for requests that meet the check."""

    def answer(question: Any) -> object:
        if check(question):
            return web.Response(status=422, text="unprocessable")
        return {"records": []}

    return answer


FLAWS: Mapping[str, tuple[Responder, str, str]] = {
    "ignores top_k": (answer_records(BETTER, GOOD), "top_k", "failed"),
    "ignores the threshold": (answer_records(GOOD), "threshold", "failed"),
    "unsorted": (answer_records(GOOD, BETTER), "order", "failed"),
    "no score": (answer_records({"content": "a", "metadata": {}}), "scores", "failed"),
    "percents": (answer_records(GOOD | {"score": 87}), "scores", "failed"),
    "no title": (answer_records(GOOD | {"title": None}), "titles", "warning"),
    "ignores filters": (answer_records(GOOD), "metadata condition", "warning"),
    "any key": (answer_records(), "wrong key", "warning"),
    "any id": (answer_records(), "unknown id", "warning"),
    "null top_k": (
        reject_if(lambda body: body["retrieval_setting"]["top_k"] is None), "top_k null", "failed",
    ),
    "quotes": (reject_if(lambda body: '"' in body["query"]), "quotes", "failed"),
    "ascii": (reject_if(lambda body: not body["query"].isascii()), "unicode", "failed"),
    "short": (reject_if(lambda body: len(body["query"]) > 250), "long query", "failed"),
    "null conditions": (
        reject_if(lambda body: body["metadata_condition"] == {
            "logical_operator": "and", "conditions": None,
        }),
        "no conditions",
        "failed",
    ),
    "operators": (
        reject_if(lambda body: "≠" in json.dumps(body, ensure_ascii=False)), "operators", "failed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("flaw", FLAWS)
async def test_flaw_is_reported_with_a_remedy(flaw: str) -> None:
    answer, name, status = FLAWS[flaw]
    findings = await check_endpoint(FakeEndpoint(answer))

    assert findings[name].status == status
    assert findings[name].remedy


async def test_server_slower_than_the_timeout_fails() -> None:
    """Dify gives up after four attempts."""

    async def answer_too_slowly(_: object) -> object:
        await asyncio.sleep(0.5)
        return {"records": []}

    endpoint = FakeEndpoint(answer_too_slowly)
    async with serve_endpoint(endpoint) as url:
        findings = await run_check(url, retry_policy=RetryPolicy(timeout=0.2, delays=(0.01,) * 3))

    assert "gave up after 4 attempts: no response within 0.2 s" in findings["retrieval"].detail
    assert len(endpoint.requests) == 5


async def test_slow_response_is_a_warning() -> None:
    waits = iter([1.1])

    async def answer_slowly(_: object) -> object:
        await asyncio.sleep(next(waits, 0))
        return {"records": []}

    findings = await check_endpoint(FakeEndpoint(answer_slowly))

    assert findings["time"].status == "warning"


async def test_response_after_retries_is_a_warning() -> None:
    answers = iter([503, 503])

    def answer(_: object) -> object:
        status = next(answers, None)
        return {"records": []} if status is None else web.Response(status=status)

    findings = await check_endpoint(FakeEndpoint(answer))

    assert findings["retrieval"].status == "warning"
    assert findings["time"].detail == "response only after 3 attempts"


@pytest.mark.parametrize(
    ("status", "works"), [(301, False), (302, False), (303, False), (307, True), (308, True)]
)
async def test_redirects_are_followed_as_by_dify(status: int, works: bool) -> None:  # noqa: FBT001 -- a parameter
    """The probe follows no redirects; 301 to 303 become a GET, which drops the body."""
    app = create_app(
        {"docs": FixedRetriever([RetrievalRecord("a", score=0.9, title="a")])}, api_keys=KEY
    )
    async with (
        serve(app, "127.0.0.1", 0) as url,
        serve_endpoint(
            FakeEndpoint(
                lambda _: web.Response(status=status, headers={"Location": f"{url}/retrieval"})
            )
        ) as front,
    ):
        findings = await run_check(front)

    # The key is not sent to another origin, so even a POST is rejected there.
    assert findings["retrieval"].status == "failed"
    assert ("401" in findings["retrieval"].detail) == works


@pytest.mark.parametrize(
    "endpoint", ["", "docs", "ftp://a", "http://", "http://[", "http://a:99999"]
)
async def test_invalid_endpoint_is_an_error(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="Invalid endpoint"):
        await run_check(endpoint)


@pytest.mark.parametrize(
    ("suffix", "path"), [("/", "//retrieval"), ("/retrieval", "/retrieval/retrieval")]
)
async def test_endpoint_with_a_redundant_suffix_is_a_warning(suffix: str, path: str) -> None:
    endpoint = FakeEndpoint()
    async with serve_endpoint(endpoint) as url:
        findings = await run_check(url + suffix)

    assert findings["address"].status == "warning"
    assert findings["address"].detail.endswith(path)
    assert {request.raw_path for request in endpoint.requests} == {path}
