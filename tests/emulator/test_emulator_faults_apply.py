"""Planned faults, word by word, as a plain aiohttp client sees them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp
import pytest
from emulator_client import run_emulator
from emulator_documents import CREATE_BY_FILE, LARGE_CONTENT, stored_names


async def test_planned_responses_are_sent_once_each_and_change_nothing() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        faults = client.emulator.faults
        faults.plan(CREATE_BY_FILE, ["503", "504-html", "429 retry-after=1", "rate-limit", "500"])
        replies = [await client.create_by_file(dataset, "a.txt") for _ in range(5)]
        nothing = await client.request("GET", f"/datasets/{dataset}/documents")
        after = await client.create_by_file(dataset, "a.txt")

    assert [reply.status for reply in replies] == [503, 504, 429, 403, 500]
    assert b"<h1>504 Gateway" in replies[1].raw
    assert replies[2].headers["Retry-After"] == "1"
    assert "request rate limit" in replies[3].body["message"]
    assert nothing.body["total"] == 0
    assert after.status == 200
    assert faults.left() == {}


async def test_commit_then_faults_create_the_document() -> None:
    """The most important fault: the document exists, but its client does not know."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(
            CREATE_BY_FILE, ["commit-then-reset", "commit-then-504-html", "reset"]
        )
        with pytest.raises(aiohttp.ClientError):
            await client.create_by_file(dataset, "a.txt")
        page = await client.create_by_file(dataset, "b.txt")
        with pytest.raises(aiohttp.ClientError):
            await client.create_by_file(dataset, "c.txt")
        listing = await client.request("GET", f"/datasets/{dataset}/documents")

    assert page.status == 504
    assert {row["name"] for row in listing.body["data"]} == {"a.txt", "b.txt"}
    assert [exchange[:3] for exchange in client.emulator.history] == [
        ("datasets.create", 200, None),
        (CREATE_BY_FILE, 0, "a.txt"),
        (CREATE_BY_FILE, 504, "b.txt"),
        (CREATE_BY_FILE, 0, None),
        ("documents.list", 200, None),
    ]


async def test_truncated_response_is_not_valid_json() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["truncate"])
        reply = await client.create_by_file(dataset, "a.txt")

    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        _ = reply.body


async def test_stall_delays_the_response() -> None:
    async with run_emulator() as client:
        client.emulator.faults.plan("server.info", ["stall 0.02", "commit-then-stall 0.02s"])
        started = time.monotonic()
        replies = [await client.request("GET", "/") for _ in range(2)]

    assert [reply.status for reply in replies] == [404, 404]
    assert time.monotonic() - started >= 0.04


@pytest.mark.parametrize(("word", "done"), [("close", []), ("commit-then-close", ["a.txt"])])
async def test_close_fault_closes_the_connection_orderly(word: str, done: Sequence[str]) -> None:
    """Servers close idle keep-alive connections while a request is on its way."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [word])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.create_by_file(dataset, "a.txt")
        remaining = stored_names(client, dataset)

    assert remaining == done


async def test_repeated_word_applies_to_that_many_calls() -> None:
    async with run_emulator() as client:
        faults = client.emulator.faults
        faults.plan("server.info", ["503 x3", "ok", "502"])
        statuses = [(await client.request("GET", "/")).status for _ in range(6)]

    assert statuses == [503, 503, 503, 404, 502, 404]
    assert faults.left() == {}
    assert faults.met() == {"server.info": {"503": 3, "ok": 1, "502": 1}}


@pytest.mark.parametrize("word", ["reset-after 1000", "reset-after 50%", "reset-after 100%"])
async def test_reset_within_the_body_creates_nothing(word: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [word])
        with pytest.raises(aiohttp.ClientError):
            await client.create_by_file(dataset, "a.txt", LARGE_CONTENT)
        remaining = stored_names(client, dataset)

    assert client.emulator.faults.met() == {CREATE_BY_FILE: {word: 1}}
    assert remaining == []


@pytest.mark.parametrize(
    ("word", "kind", "done"),
    [
        ("empty", "application/json", []),
        ("commit-then-empty", "application/json", ["a.txt"]),
        ("login-page", "text/html", []),
        ("commit-then-login-page", "text/html", ["a.txt"]),
    ],
)
async def test_successful_status_may_lack_the_document(
    word: str, kind: str, done: Sequence[str]
) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [word])
        reply = await client.create_by_file(dataset, "a.txt")
        remaining = stored_names(client, dataset)

    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(kind)
    assert reply.raw == b"{}\n" if kind == "application/json" else b"<form" in reply.raw
    assert remaining == done


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("rate-limit", "request rate limit of your subscription"),
        ("document-limit", "The number of documents has reached the limit of your subscription."),
        ("vector-limit", "The capacity of the vector space has reached the limit"),
    ],
)
async def test_subscription_limits_differ_only_in_their_message(word: str, text: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [word])
        reply = await client.create_by_file(dataset, "a.txt")

    assert (reply.status, reply.body["code"]) == (403, "forbidden")
    assert text in reply.body["message"]


@pytest.mark.parametrize("commit", ["", "commit-then-"])
@pytest.mark.parametrize(("status", "reason"), [(502, "Bad Gateway"), (504, "Gateway Time-out")])
async def test_proxy_pages_match_the_recordings(commit: str, status: int, reason: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [f"{commit}{status}-html"])
        reply = await client.create_by_file(dataset, "a.txt")
        remaining = stored_names(client, dataset)

    assert reply.status == status
    assert f"<center><h1>{status} {reason}</h1></center>".encode() in reply.raw
    assert remaining == (["a.txt"] if commit else [])


async def test_413_is_sent_before_the_body_is_read() -> None:
    """nginx closes the connection, too (recorded)."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["413-early"])
        port = int(client.emulator.url.split(":")[2].removesuffix("/v1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /v1/datasets/{dataset}/document/create-by-file HTTP/1.1\r\nHost: a\r\n"
            "Content-Type: multipart/form-data; boundary=cut\r\n"
            "Content-Length: 9000000\r\n\r\nhalf".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 413 Request Entity Too Large")
    assert b"Connection: close" in head


async def test_retry_after_may_be_any_text() -> None:
    """Real proxies send dates and invalid values."""
    async with run_emulator() as client:
        hint = "Wed, 21 Oct 2015 07:28:00 GMT"
        client.emulator.faults.plan("server.info", [f"503 retry-after={hint} x2"])
        replies = [await client.request("GET", "/") for _ in range(2)]

    assert [reply.headers["Retry-After"] for reply in replies] == [hint, hint]
