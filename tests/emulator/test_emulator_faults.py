"""Failures by plan, word by word, as a bare client sees them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp
import pytest
from emulator_calls import Calls, serving, until

from dify_kb.emulator import Emulator, Faults
from dify_kb.errors import ConfigError

CREATE = "documents.create_by_file"
BIG = b"0123456789abcdef" * 32_768
"""512 KiB."""


def names(calls: Calls, dataset: str) -> list[str]:
    return [document.name for document in calls.emulator.documents(dataset)]


def control(calls: Calls, what: str = "faults") -> str:
    return calls.emulator.url.removesuffix("/v1") + f"/_emulator/{what}"


async def test_planned_answers_come_once_each_and_change_nothing() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        faults = calls.emulator.faults
        faults.plan(CREATE, ["503", "504-html", "429 retry-after=1", "rate-limit", "500"])
        replies = [await calls.upload(one, "a.txt") for _ in range(5)]
        nothing = await calls.call("GET", f"/datasets/{one}/documents")
        after = await calls.upload(one, "a.txt")

    assert [reply.status for reply in replies] == [503, 504, 429, 403, 500]
    assert b"<h1>504 Gateway" in replies[1].raw
    assert replies[2].headers["Retry-After"] == "1"
    assert "request rate limit" in replies[3].body["message"]
    assert nothing.body["total"] == 0
    assert after.status == 200
    assert faults.left() == {}


async def test_a_commit_before_the_failure_is_kept() -> None:
    """The one that matters: the document is there, and nobody was told."""
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["commit-then-reset", "commit-then-504-html", "reset"])
        with pytest.raises(aiohttp.ClientError):
            await calls.upload(one, "a.txt")
        page = await calls.upload(one, "b.txt")
        with pytest.raises(aiohttp.ClientError):
            await calls.upload(one, "c.txt")
        listed = await calls.call("GET", f"/datasets/{one}/documents")

    assert page.status == 504
    assert {row["name"] for row in listed.body["data"]} == {"a.txt", "b.txt"}
    assert [exchange[:3] for exchange in calls.emulator.history] == [
        ("datasets.create", 200, None),
        (CREATE, 0, "a.txt"),
        (CREATE, 504, "b.txt"),
        (CREATE, 0, None),
        ("documents.list", 200, None),
    ]


async def test_a_cut_answer_is_no_json() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["truncate"])
        reply = await calls.upload(one, "a.txt")

    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        _ = reply.body


async def test_a_stall_delays_the_answer() -> None:
    async with serving() as calls:
        calls.emulator.faults.plan("server.info", ["stall 0.02", "commit-then-stall 0.02s"])
        started = time.monotonic()
        replies = [await calls.call("GET", "/") for _ in range(2)]

    assert [reply.status for reply in replies] == [200, 200]
    assert time.monotonic() - started >= 0.04


@pytest.mark.parametrize("word", ["explode", "299", "reset-then-commit", "599-html", "stall"])
def test_unknown_failures_cannot_be_planned(word: str) -> None:
    with pytest.raises(ConfigError, match="no failure"):
        Emulator().faults.plan(CREATE, [word])


@pytest.mark.parametrize(("word", "done"), [("close", []), ("commit-then-close", ["a.txt"])])
async def test_a_connection_may_end_in_order(word: str, done: Sequence[str]) -> None:
    """As a keep-alive connection does that the server closes when a call is on its way."""
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, [word])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await calls.upload(one, "a.txt")
        left = names(calls, one)

    assert left == done


async def test_a_word_for_many_calls_is_met_so_often() -> None:
    async with serving() as calls:
        faults = calls.emulator.faults
        faults.plan("server.info", ["503 x3", "ok", "502"])
        statuses = [(await calls.call("GET", "/")).status for _ in range(6)]

    assert statuses == [503, 503, 503, 200, 502, 200]
    assert faults.left() == {}
    assert faults.met() == {"server.info": {"503": 3, "ok": 1, "502": 1}}


@pytest.mark.parametrize("word", ["reset-after 1000", "reset-after 50%", "reset-after 100%"])
async def test_a_reset_in_the_body_leaves_nothing_done(word: str) -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, [word])
        with pytest.raises(aiohttp.ClientError):
            await calls.upload(one, "a.txt", BIG)
        left = names(calls, one)

    assert calls.emulator.faults.met() == {CREATE: {word: 1}}
    assert left == []


@pytest.mark.parametrize(
    ("word", "kind", "done"),
    [
        ("empty", "application/json", []),
        ("commit-then-empty", "application/json", ["a.txt"]),
        ("login-page", "text/html", []),
        ("commit-then-login-page", "text/html", ["a.txt"]),
    ],
)
async def test_a_success_may_say_nothing(word: str, kind: str, done: Sequence[str]) -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, [word])
        reply = await calls.upload(one, "a.txt")
        left = names(calls, one)

    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(kind)
    assert reply.raw == b"{}\n" if kind == "application/json" else b"<form" in reply.raw
    assert left == done


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("rate-limit", "request rate limit of your subscription"),
        ("document-limit", "The number of documents has reached the limit of your subscription."),
        ("vector-limit", "The capacity of the vector space has reached the limit"),
    ],
)
async def test_limits_of_a_subscription_are_told_by_the_text_alone(word: str, text: str) -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, [word])
        reply = await calls.upload(one, "a.txt")

    assert (reply.status, reply.body["code"]) == (403, "forbidden")
    assert text in reply.body["message"]


@pytest.mark.parametrize("commit", ["", "commit-then-"])
@pytest.mark.parametrize(("status", "reason"), [(502, "Bad Gateway"), (504, "Gateway Time-out")])
async def test_pages_of_a_proxy_are_as_recorded(commit: str, status: int, reason: str) -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, [f"{commit}{status}-html"])
        reply = await calls.upload(one, "a.txt")
        left = names(calls, one)

    assert reply.status == status
    assert f"<center><h1>{status} {reason}</h1></center>".encode() in reply.raw
    assert left == (["a.txt"] if commit else [])


async def test_too_large_is_said_before_the_body_is_read() -> None:
    """And the connection is closed, as nginx does (recorded)."""
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["413-early"])
        port = int(calls.emulator.url.split(":")[2].removesuffix("/v1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /v1/datasets/{one}/document/create-by-file HTTP/1.1\r\nHost: a\r\n"
            "Content-Type: multipart/form-data; boundary=cut\r\n"
            "Content-Length: 9000000\r\n\r\nhalf".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 413 Request Entity Too Large")
    assert b"Connection: close" in head


async def test_a_body_may_be_read_slowly() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["slow-read 2000000"])
        started = time.monotonic()
        reply = await calls.upload(one, "a.txt", BIG)
        took = time.monotonic() - started

    assert reply.status == 200
    assert reply.body["document"]["data_source_info"]["upload_file_id"]
    assert 0.2 < took < 2


async def test_a_json_body_may_be_read_slowly_too() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan("documents.create_by_text", ["slow-read 4000"])
        started = time.monotonic()
        reply = await calls.write(one, "a", "zebra " * 60)
        took = time.monotonic() - started

    assert reply.status == 200
    assert took > 0.08


async def test_an_answer_may_trickle() -> None:
    """In pieces over the whole time, so that no pause is long."""
    async with serving() as calls:
        calls.emulator.faults.plan("server.info", ["trickle 0.2"])
        started = time.monotonic()
        async with calls.session.get(calls.emulator.url + "/") as response:
            headers_after = time.monotonic() - started
            pieces = [piece async for piece in response.content.iter_any()]
        took = time.monotonic() - started

    assert json.loads(b"".join(pieces))["server_version"]
    assert len(pieces) > 4
    assert headers_after < 0.1
    assert 0.2 <= took < 1


async def test_a_late_call_lands_after_its_client_gave_up() -> None:
    """What a look-up that comes too early does not see."""
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["late 0.2"])
        with pytest.raises(aiohttp.ClientError):
            await calls.upload(one, "a.txt", BIG)
        early = names(calls, one)
        landed = await appeared(calls, one)

    create = next(exchange for exchange in calls.emulator.history if exchange.endpoint == CREATE)
    assert early == []
    assert landed == ["a.txt"]
    assert (create.status, create.committed) == (0, True)
    assert create.ended - create.started >= 0.2


async def test_a_late_call_may_leave_its_client_waiting() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["late 0.1 silent"])
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(calls.upload(one, "a.txt"))
            landed = await appeared(calls, one)
            waiting = not upload.done()
            upload.cancel()

    assert landed == ["a.txt"]
    assert waiting


async def test_a_late_call_lands_also_when_its_client_leaves_before() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["late 0.2 silent"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls.upload(one, "a.txt"), 0.1)
        early = names(calls, one)
        landed = await appeared(calls, one)

    assert early == []
    assert landed == ["a.txt"]


async def appeared(calls: Calls, dataset: str) -> list[str]:
    await until(lambda: bool(names(calls, dataset)))
    return names(calls, dataset)


def test_chance_is_the_same_for_the_same_seed() -> None:
    """Whatever happens at other endpoints in between."""
    rates = {CREATE: {"503": 0.2, "reset": 0.1}, "documents.list": {"500": 0.5}}
    one, other = Faults(), Faults()
    one.random(7, rates)
    other.random(7, rates)
    first = [fault and fault.word for fault in (one.take(CREATE) for _ in range(1000))]
    second = []
    for _ in range(1000):
        other.take("documents.list")
        fault = other.take(CREATE)
        second.append(fault and fault.word)

    assert first == second
    assert 150 < first.count("503") < 250
    assert 60 < first.count("reset") < 140
    assert one.met() == {CREATE: {"503": first.count("503"), "reset": first.count("reset")}}


def test_a_plan_goes_before_chance_and_chance_ends() -> None:
    faults = Faults()
    faults.random(1, {CREATE: {"500": 1.0}})
    faults.plan(CREATE, ["ok"])
    words = [fault and fault.word for fault in (faults.take(CREATE) for _ in range(2))]
    faults.stop_random()

    assert words == ["ok", "500"]
    assert faults.take(CREATE) is None
    assert faults.left() == {}


async def test_faults_are_planned_over_http_too() -> None:
    async with serving() as calls:
        plans = {
            CREATE: ["503 x2", "reset"],
            "indexing": ["hang", {"words": ["error no"], "names": "*.pdf"}],
            "random": {"seed": 1, "rates": {"server.info": {"500": 1}}},
        }
        async with calls.session.post(control(calls), json=plans) as reply:
            planned = await reply.json()
        info = await calls.call("GET", "/")
        async with calls.session.get(control(calls)) as reply:
            told = await reply.json()
        async with calls.session.delete(control(calls)) as reply:
            cleared = await reply.json()

    left = {CREATE: ["503", "503", "reset"], "indexing": ["hang", "error no"]}
    assert planned == {"left": left, "met": {}}
    assert info.status == 500
    assert told == {"left": left, "met": {"server.info": {"500": 1}}}
    assert cleared == {"left": {}, "met": {"server.info": {"500": 1}}}


@pytest.mark.parametrize(
    ("plans", "why"),
    [
        ("no JSON", "Expecting value"),
        ([CREATE], "no plan of failures"),
        ({"no.such": ["503"]}, "no endpoint 'no.such'"),
        ({CREATE: "503"}, "no list"),
        ({CREATE: [503]}, "no list of words"),
        ({CREATE: ["explode"]}, "'explode' is no failure"),
        ({CREATE: [""]}, "empty word"),
        ({"indexing": ["explode"]}, "no ending of a run"),
        ({"indexing": [{"words": ["hang"], "often": 1}]}, "no plan for runs"),
        ({"indexing": [{"words": ["hang"], "every": 0}]}, "Every 0th"),
        ({"random": {"rates": {}}}, "no rule of chances"),
        ({"random": {"seed": 1, "rates": {CREATE: {"503": 2}}}}, "no chance from 0 to 1"),
        ({"random": {"seed": 1, "rates": {CREATE: {"503": "1"}}}}, "no chance from 0 to 1"),
        ({"random": {"seed": 1, "rates": {CREATE: {"503": 0.6, "500": 0.6}}}}, "more than 1"),
    ],
)
async def test_a_bad_plan_is_refused_as_a_whole(plans: object, why: str) -> None:
    """Half a plan would be a test of something else."""
    async with serving() as calls:
        body = {"server.info": ["503"]} | plans if isinstance(plans, dict) else plans
        text = body if isinstance(body, str) else json.dumps(body)
        async with calls.session.post(control(calls), data=text) as reply:
            status, answer = reply.status, await reply.text()

    assert status == 400
    assert why in json.loads(answer)["error"]
    assert calls.emulator.faults.left() == {}


@pytest.mark.parametrize(
    "word",
    ["commit-then-late 1", "commit-then-413-early", "commit-then-reset-after 5", "stall 1 silent",
     "slow-read 0", "late", "503 x0", "commit-then-ok", "trickle -1"],
)  # fmt: skip
def test_words_that_make_no_sense_cannot_be_planned(word: str) -> None:
    with pytest.raises(ConfigError, match="no failure"):
        Faults().plan(CREATE, [word])


async def test_a_hint_may_be_any_header() -> None:
    """Dates and nonsense come from real proxies."""
    async with serving() as calls:
        hint = "Wed, 21 Oct 2015 07:28:00 GMT"
        calls.emulator.faults.plan("server.info", [f"503 retry-after={hint} x2"])
        replies = [await calls.call("GET", "/") for _ in range(2)]

    assert [reply.headers["Retry-After"] for reply in replies] == [hint, hint]
