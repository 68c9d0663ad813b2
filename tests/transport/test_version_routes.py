"""Routes, missing operations and warnings for servers of different versions."""

from __future__ import annotations

import json
import os
import warnings

import pytest
from scripted_server import (
    CREATED_BODY,
    D1,
    EMPTY_PAGE,
    HTML_TEMPLATE,
    KEY,
    Request,
    ScriptedServer,
    Step,
    extract_file_content,
    open_client,
)

import dify_kb
from dify_kb import AttemptEvent

D2 = "22222222-2222-4222-8222-222222222222"
FIELDS = json.dumps({"fields": [{"name": "source", "type": "string"}]}).encode()
NO_ROUTE = HTML_TEMPLATE % b"404 Not Found"
NO_METHOD = json.dumps({"code": "method_not_allowed", "message": "no", "status": 405}).encode()
NO_THING = json.dumps(
    {"code": "not_found", "message": "Document not found.", "status": 404}
).encode()
NEW = f"GET /v1/datasets/{D1}/metadata/built-in HTTP/1.1"
OLD = "GET /v1/datasets/metadata/built-in HTTP/1.1"


def respond(status: int, body: bytes, version: str | None = None) -> Step:
    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(status, body, {} if version is None else {"X-Version": version})

    return step


def respond_with_file(content: bytes, kind: str) -> Step:
    async def step(request: Request) -> None:
        await request.drain()
        await request.answer(200, content, {"Content-Type": kind, "X-Version": "1.16.0"})

    return step


def list_requests(server: ScriptedServer) -> list[str]:
    return [request.first for request in server.requests]


# --- legacy routes


async def test_a_server_that_is_known_to_be_older_is_asked_at_the_older_path() -> None:
    """Every response has the version, so at most one request takes the wrong route."""
    server = ScriptedServer(respond(200, EMPTY_PAGE, "1.8.1"), respond(200, FIELDS, "1.8.1"))

    async with open_client(server) as client:
        await client.datasets.list()
        (found,) = await client.metadata.built_in_fields(D1)

    assert found.name == "source"
    assert list_requests(server)[1:] == [OLD]


async def test_a_first_call_goes_to_the_older_path_once_the_refusal_told_the_version() -> None:
    """A 404 page looks like a wrong address, but its header has Dify's version."""
    server = ScriptedServer(respond(404, NO_ROUTE, "1.8.1"), respond(200, FIELDS, "1.8.1"))

    async with open_client(server) as client:
        (found,) = await client.metadata.built_in_fields(D1)
        await client.metadata.built_in_fields(D1)

    assert found.name == "source"
    assert list_requests(server) == [NEW, OLD, OLD]


@pytest.mark.parametrize("size", [5, 600_001])
async def test_a_file_is_sent_again_by_the_older_verb(size: int) -> None:
    """PATCH returns 405 before 1.16; the second attempt must send the complete file."""
    content = os.urandom(size)
    bodies: list[bytes] = []

    async def take(request: Request) -> None:
        bodies.append(await request.body())
        await request.answer(200, CREATED_BODY, {"X-Version": "1.8.1"})

    server = ScriptedServer(respond(405, NO_METHOD, "1.8.1"), take)

    async with open_client(server) as client:
        await client.documents.update_by_file(D1, D2, content, name="a.txt")

    assert [extract_file_content(body) for body in bodies] == [content]
    assert list_requests(server) == [
        f"PATCH /v1/datasets/{D1}/documents/{D2} HTTP/1.1",
        f"POST /v1/datasets/{D1}/documents/{D2}/update-by-file HTTP/1.1",
    ]


async def test_each_route_is_tried_once() -> None:
    """If both routes fail, the second error is raised."""
    server = ScriptedServer(respond(404, NO_ROUTE, "1.8.1"))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.NotFoundError):
            await client.metadata.built_in_fields(D1)

    assert list_requests(server) == [NEW, OLD]


async def test_servers_of_two_versions_behind_one_address_do_not_send_us_in_circles() -> None:
    """During a rolling upgrade, each error may report the version of the other servers."""
    versions = ["1.8.1", "1.16.0"] * 10
    server = ScriptedServer(*(respond(404, NO_ROUTE, version) for version in versions))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.NotFoundError):
            await client.metadata.built_in_fields(D1)

    assert list_requests(server) == [NEW, OLD]


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
async def test_another_error_is_not_mistaken_for_a_missing_route(status: int) -> None:
    """A wrong key fails on every route; a file of 15 MB should not be sent twice."""
    body = json.dumps({"code": "unknown", "message": "no", "status": status}).encode()
    server = ScriptedServer(respond(status, body, "1.8.1"))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.KnowledgeError):
            await client.documents.update_by_file(D1, D2, b"hello", name="a.txt")

    assert len(server.requests) == 1


@pytest.mark.parametrize("version", [None, "1.16.0", "main"])
async def test_a_new_or_unknown_server_is_not_asked_at_the_older_path(version: str | None) -> None:
    """The 404 of such a server is a genuine error."""
    server = ScriptedServer(respond(404, NO_ROUTE, version))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.NotFoundError):
            await client.metadata.built_in_fields(D1)

    assert list_requests(server) == [NEW]


async def test_a_listener_sees_both_attempts() -> None:
    """Listeners that count requests need both."""
    seen: list[AttemptEvent] = []
    server = ScriptedServer(respond(404, NO_ROUTE, "1.8.1"), respond(200, FIELDS, "1.8.1"))

    async with open_client(server, on_event=seen.append) as client:
        await client.metadata.built_in_fields(D1)

    assert [(event.attempt, event.status, event.retry_in) for event in seen] == [
        (1, 404, 0.0),
        (2, 200, None),
    ]


# --- missing operations


@pytest.mark.parametrize(
    ("status", "body", "version"),
    [(405, NO_METHOD, "1.4.3"), (404, NO_ROUTE, "1.4.3"), (404, NO_ROUTE, "1.7.2")],
)
async def test_an_operation_that_the_server_lacks_says_since_when_it_exists(
    status: int, body: bytes, version: str
) -> None:
    """The id and the address are valid; the user has to upgrade."""
    server = ScriptedServer(respond(status, body, version))

    async with open_client(server) as client:
        with pytest.raises(
            dify_kb.NotFoundError,
            match=f"Dify {version} does not have this operation: it was added in 1.8",
        ):
            await client.documents.get(D1, D2)

    assert len(server.requests) == 1


async def test_an_operation_that_was_removed_says_when() -> None:
    server = ScriptedServer(respond(404, NO_ROUTE, "1.12.1"))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.NotFoundError, match=r"it was removed in 1\.11"):
            await client.documents.upload_file(D1, D2)


async def test_a_missing_resource_is_not_mistaken_for_a_missing_operation() -> None:
    """A 404 in JSON shows that the version has the operation, here added in 1.5, 1.6 or 1.7."""
    server = ScriptedServer(respond(404, NO_THING, "1.7.2"))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.NotFoundError, match="Check the id"):
            await client.documents.get(D1, D2)


# --- harmful operations


async def test_an_update_warns_where_the_worker_would_hang() -> None:
    """The warning points at the caller's line."""
    server = ScriptedServer(
        respond(200, EMPTY_PAGE, "1.12.1"), respond(200, CREATED_BODY, "1.12.1")
    )

    async with open_client(server) as client:
        await client.datasets.list()
        with pytest.warns(UserWarning, match=r"worker of Dify 1\.12\.1 hangs forever") as caught:
            await client.documents.update_by_text(D1, D2, name="a", text="b")

    assert caught[0].filename == __file__
    assert len(server.requests) == 2


async def test_an_update_warns_once_the_refusal_told_the_version() -> None:
    """The warning comes on the first call of a program, before its second request."""
    server = ScriptedServer(respond(405, NO_METHOD, "1.12.1"), respond(200, CREATED_BODY, "1.12.1"))

    async with open_client(server) as client:
        with pytest.warns(UserWarning, match="hangs forever"):
            await client.documents.update_by_file(D1, D2, b"hello", name="a.txt")


async def test_a_first_update_warns_once_its_answer_told_the_version_and_never_again() -> None:
    """A warning for each of a thousand updates would hide everything else."""
    server = ScriptedServer(
        respond(200, CREATED_BODY, "1.12.1-fix1"), respond(200, CREATED_BODY, "1.12.1-fix1")
    )

    async with open_client(server) as client:
        with pytest.warns(UserWarning, match="hangs forever") as caught:
            await client.documents.update_by_text(D1, D2, name="a", text="b")
        await client.documents.update_by_text(D1, D2, name="a", text="b")

    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("version", ["1.8.1", "1.16.0"])
async def test_an_update_on_other_versions_does_not_warn(version: str) -> None:
    server = ScriptedServer(respond(200, EMPTY_PAGE, version), respond(200, CREATED_BODY, version))

    async with open_client(server) as client:
        await client.datasets.list()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await client.documents.update_by_text(D1, D2, name="a", text="b")


# --- bytes


@pytest.mark.parametrize("kind", ["application/zip", "application/octet-stream"])
async def test_a_zip_arrives_byte_for_byte_even_if_it_holds_the_key(kind: str) -> None:
    """The key is removed from error messages, but not from the requested file."""
    content = b"PK\x03\x04" + KEY.encode() + bytes(range(256))
    server = ScriptedServer(respond_with_file(content, kind))

    async with open_client(server) as client:
        received = await client.documents.download_zip(D1, [D2])

    assert received == content


async def test_a_page_in_place_of_a_zip_is_no_success() -> None:
    """Users would notice a broken archive only much later."""
    server = ScriptedServer(respond(200, HTML_TEMPLATE % b"Dify"))

    async with open_client(server) as client:
        with pytest.raises(dify_kb.ProtocolError, match=r"an HTML page \(Dify\)"):
            await client.documents.download_zip(D1, [D2])
