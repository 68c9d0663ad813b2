"""Faults of servers, and of proxies in front of them, as observed on real ones."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from emulator_client import EmulatorClient, Response, run_emulator, wait_until
from emulator_documents import CREATE_BY_FILE, stored_names

from dify_kb.emulator import VERSIONS, Faults, ManualClock, Settings
from dify_kb.errors import ConfigError

LIST = "documents.list"
STATUS = "documents.set_status"


# --- responses


@pytest.mark.parametrize("version", VERSIONS)
async def test_plugin_daemon_outage_is_a_temporary_400(version: str) -> None:
    """Neither key nor request is wrong (measured on all versions)."""
    async with run_emulator(version=version) as client:
        client.emulator.faults.plan("datasets.list", ["plugin-daemon"])
        down = await client.request("GET", "/datasets")
        up = await client.request("GET", "/datasets")

    assert (down.status, down.body["code"]) == (400, "invalid_param")
    assert down.body["message"].startswith("Failed to request plugin daemon, url: ")
    assert up.status == 200


async def test_document_is_locked_after_its_status_changed() -> None:
    """The lock lasts up to 600 s although the change is done (recordings 343, 362)."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        created = await client.create_by_file(dataset, "a.txt")
        await client.wait_until_indexed(dataset, created)
        client.emulator.faults.plan(STATUS, ["being-indexed"])
        path = f"/datasets/{dataset}/documents/status/disable"
        reply = await client.request(
            "PATCH", path, json={"document_ids": [created.body["document"]["id"]]}
        )
        (document,) = client.emulator.documents(dataset)

    assert (reply.status, reply.body["code"]) == (400, "invalid_action")
    assert reply.body["message"].startswith("Document:")
    assert reply.body["message"].endswith(" is being indexed, please try again later")
    assert document.enabled


@pytest.mark.parametrize("status", [403, 404, 405, 406, 413, 415])
async def test_proxy_error_page_has_no_dify_headers(status: int) -> None:
    """Only the missing `X-Version` distinguishes it from an error of the server."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, [f"{status}-html"])
        page = await client.create_by_file(dataset, "a.txt")
        created = stored_names(client, dataset)

    assert page.status == status
    assert page.headers["Content-Type"].startswith("text/html")
    assert "X-Version" not in page.headers
    assert created == []


@pytest.mark.parametrize(
    ("word", "created"), [("redirect", []), ("commit-then-redirect", ["a.txt"])]
)
async def test_redirect_fault_points_to_the_sign_in_page(word: str, created: list[str]) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan("documents.create_by_text", [word])
        path = f"/datasets/{dataset}/document/create-by-text"
        body = {"name": "a.txt", "text": "a", "indexing_technique": "economy"}
        reply = await client.request("POST", path, json=body, allow_redirects=False)

        assert stored_names(client, dataset) == created

    assert (reply.status, reply.headers["Location"]) == (302, "/signin")
    assert "X-Version" not in reply.headers


# --- bodies that a proxy rejects


async def test_bodies_are_rejected_by_their_content() -> None:
    """A firewall rejects one file of thousands, at every attempt."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.refuse_bodies(containing=b"<script", word="403-html")
        contents = {"a.txt": b"fine", "b.txt": b"not <script> fine"}
        replies = [
            (await client.create_by_file(dataset, name, content)).status
            for name, content in [*contents.items(), ("b.txt", contents["b.txt"])]
        ]
        by_text = await client.create_by_text(dataset, "c.txt", "a <script> in JSON")
        created = stored_names(client, dataset)

    assert replies == [200, 403, 403]
    assert by_text.status == 403
    assert created == ["a.txt"]
    assert client.emulator.faults.met() == {
        CREATE_BY_FILE: {"403-html": 2},
        "documents.create_by_text": {"403-html": 1},
    }


async def test_clearing_the_plans_removes_body_rules() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.load({"refuse_bodies": [{"containing": "hello", "word": "reset"}]})
        with pytest.raises(aiohttp.ClientError):
            await client.create_by_file(dataset, "a.txt")
        client.emulator.faults.clear()
        assert (await client.create_by_file(dataset, "a.txt")).status == 200


# --- the lock of a dataset


async def test_locked_dataset_blocks_creates_but_not_reads() -> None:
    """The lock of a killed API process remains in Redis (measured)."""
    async with run_emulator() as client:
        one, other = await client.create_dataset(), await client.create_dataset("b")
        client.emulator.faults.lock_dataset(one, 600)
        blocked = [
            asyncio.create_task(client.create_by_text(one, f"{number}.txt")) for number in range(3)
        ]
        await wait_until(lambda: count_blocked_creates(client) == 3)
        read = await client.request("GET", f"/datasets/{one}/documents")
        free = await client.create_by_file(other, "a.txt")
        before, finished = stored_names(client, one), sum(task.done() for task in blocked)
        client.emulator.faults.lock_dataset(one, 0)
        replies: list[Response] = await asyncio.gather(*blocked)

    assert (read.status, free.status) == (200, 200)
    assert (before, finished) == ([], 0)
    assert [reply.status for reply in replies] == [200] * 3


def count_blocked_creates(client: EmulatorClient) -> int:
    met = client.emulator.faults.met()
    return sum(words.get("dataset-lock", 0) for words in met.values())


async def test_blocked_creates_are_processed_in_order_after_their_clients_gave_up() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.lock_dataset(dataset, 0.4)
        for number in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.create_by_file(dataset, f"{number}.txt", str(number).encode())
        before = stored_names(client, dataset)
        await wait_until(lambda: len(stored_names(client, dataset)) == 3)
        after = stored_names(client, dataset)

    assert before == []
    assert after == ["0.txt", "1.txt", "2.txt"]


async def test_clearing_the_plans_releases_dataset_locks() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.lock_dataset(dataset, 600)
        blocked = asyncio.create_task(client.create_by_file(dataset, "a.txt"))
        await wait_until(lambda: count_blocked_creates(client) == 1)
        client.emulator.faults.clear()

        assert (await blocked).status == 200


# --- killed workers


def get_states_by_name(client: EmulatorClient, dataset: str) -> dict[str, str]:
    return {row.name: row.status for row in client.emulator.documents(dataset)}


@pytest.mark.parametrize("status", ["parsing", "splitting", "indexing"])
async def test_killed_worker_loses_its_prefetched_tasks(status: str) -> None:
    """Their documents keep their status forever (measured on 1.4.3 and 1.14.2)."""
    clock = ManualClock()
    settings = Settings(workers=1, parsing=1, splitting=1, indexing=1)
    async with run_emulator(clock=clock, settings=settings) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "0.txt")
        await client.wait_for_status(dataset, first.body["batch"], "parsing")
        for number in range(1, 4):
            await client.create_by_file(dataset, f"{number}.txt")
        clock.advance(["parsing", "splitting", "indexing"].index(status) + 0.5)
        await client.wait_for_status(dataset, first.body["batch"], status)

        client.emulator.faults.kill_workers(lose=2)
        await wait_until(lambda: get_states_by_name(client, dataset)["3.txt"] == "parsing")
        clock.advance(60)
        await wait_until(lambda: get_states_by_name(client, dataset)["3.txt"] == "completed")
        remaining = get_states_by_name(client, dataset)
        again = await client.create_by_file(dataset, "0.txt")
        await client.wait_for_status(dataset, again.body["batch"], "parsing")
        clock.advance(60)
        repaired = await client.wait_until_indexed(dataset, again)

    assert remaining == {
        "0.txt": status, "1.txt": "waiting", "2.txt": "waiting", "3.txt": "completed",
    }  # fmt: skip
    assert (repaired["indexing_status"], repaired["total_segments"]) == ("completed", 1)
    assert client.emulator.faults.met() == {"indexing": {"kill": 1}}


async def test_killed_workers_can_stay_dead_until_a_restart() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(workers=2, parsing=1)) as client:
        dataset = await client.create_dataset()
        for number in range(4):
            await client.create_by_file(dataset, f"{number}.txt")
        await wait_until(
            lambda: [*get_states_by_name(client, dataset).values()].count("parsing") == 2
        )
        client.emulator.faults.kill_workers(restart=False)
        clock.advance(60)
        await asyncio.sleep(0.05)
        dead = get_states_by_name(client, dataset)
        client.emulator.faults.restart()
        await wait_until(
            lambda: [*get_states_by_name(client, dataset).values()].count("parsing") == 4
        )

        def is_completed_in_time() -> bool:
            clock.advance(1)  # a document is shown as parsing before its worker sleeps
            return [*get_states_by_name(client, dataset).values()].count("completed") == 2

        await wait_until(is_completed_in_time)
        alive = get_states_by_name(client, dataset)

    assert [*dead.values()] == ["parsing", "parsing", "waiting", "waiting"]
    assert [*alive.values()] == ["parsing", "parsing", "completed", "completed"]


async def test_kill_fault_of_a_run_kills_its_worker() -> None:
    async with run_emulator(settings=Settings(workers=1)) as client:
        dataset = await client.create_dataset()
        client.emulator.faults.indexing(["die"])
        await client.create_by_file(dataset, "0.txt")
        await wait_until(lambda: client.emulator.faults.are_workers_dead)
        client.emulator.faults.load({"indexing": [{"words": ["kill 1"], "names": "1.txt"}]})
        for number in range(1, 4):
            await client.create_by_file(dataset, f"{number}.txt")
        client.emulator.faults.restart()
        await wait_until(lambda: get_states_by_name(client, dataset)["3.txt"] == "completed")
        remaining = get_states_by_name(client, dataset)

    assert [*remaining.values()] == ["completed", "indexing", "waiting", "completed"]
    assert client.emulator.faults.met() == {"indexing": {"die": 1, "kill 1": 1}}


# --- a cache in front of the document list


async def list_names_and_statuses(
    client: EmulatorClient, dataset: str, **headers: str
) -> dict[str, str]:
    reply = await client.request("GET", f"/datasets/{dataset}/documents", headers=headers)
    rows = {row["name"]: row["indexing_status"] for row in reply.body["data"]}
    assert len(rows) == reply.body["total"]
    return rows


async def test_stale_list_returns_an_old_list() -> None:
    """Most caches honour `Cache-Control: no-cache`, so those requests get the current list."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(parsing=1)) as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(LIST, ["stale-list 10 x6"])
        for name in ("gone.txt", "a.txt"):
            await client.create_by_file(dataset, name)
        clock.advance(20)
        await wait_until(
            lambda: [*get_states_by_name(client, dataset).values()] == ["completed"] * 2
        )
        clock.advance(20)
        (gone, _) = client.emulator.documents(dataset)
        await client.request("DELETE", f"/datasets/{dataset}/documents/{gone.id}")
        await client.create_by_file(dataset, "b.txt")
        await wait_until(lambda: get_states_by_name(client, dataset)["b.txt"] == "parsing")
        early = await list_names_and_statuses(client, dataset)
        fresh = await list_names_and_statuses(client, dataset, **{"Cache-Control": "no-cache"})
        clock.advance(11)
        await wait_until(lambda: get_states_by_name(client, dataset)["b.txt"] == "completed")
        later = await list_names_and_statuses(client, dataset)
        clock.advance(11)
        last = await list_names_and_statuses(client, dataset)

    assert early == {"gone.txt": "completed", "a.txt": "completed"}
    assert fresh == {"a.txt": "completed", "b.txt": "parsing"}
    assert later == {"a.txt": "completed", "b.txt": "parsing"}
    assert last == {"a.txt": "completed", "b.txt": "completed"}


async def test_always_stale_list_ignores_cache_control() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock) as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(LIST, ["stale-list 10 always x2"])
        await client.wait_until_indexed(dataset, await client.create_by_file(dataset, "a.txt"))
        stale = await list_names_and_statuses(client, dataset, **{"Cache-Control": "no-cache"})
        clock.advance(10)
        late = await list_names_and_statuses(client, dataset, **{"Cache-Control": "no-cache"})

    assert stale == {}
    assert late == {"a.txt": "completed"}


async def test_stale_list_can_be_planned_before_the_server_starts() -> None:
    async with run_emulator(clock=ManualClock()) as client:
        client.emulator.stop()
        client.emulator.faults.random(1, {LIST: {"stale-list 10": 1.0}})
        client.emulator.start()
        dataset = await client.create_dataset()
        await client.wait_until_indexed(dataset, await client.create_by_file(dataset, "a.txt"))

        assert await list_names_and_statuses(client, dataset) == {}


# --- plans


@pytest.mark.parametrize(
    "plans",
    [
        {"kill_workers": {"lose": 1, "restart": True}},
        {"lock_dataset": [{"dataset_id": "00000000-0000-4000-8000-000000000000", "seconds": 0.1}]},
        {"refuse_bodies": [{"containing": "a", "word": "403-html"}]},
        {LIST: ["stale-list 5", "stale-list 5 always", "plugin-daemon", "redirect"]},
        {STATUS: ["being-indexed"]},
        {"indexing": ["kill", "kill 3"]},
    ],
)
async def test_plans_can_be_posted_as_json(plans: object) -> None:
    async with run_emulator() as client:
        url = client.emulator.url.removesuffix("/v1") + "/_emulator/faults"
        async with client.session.post(url, data=json.dumps(plans)) as reply:
            status, text = reply.status, await reply.text()

    assert status == 200, text


@pytest.mark.parametrize(
    "plans",
    [
        {"kill_workers": {"lose": -1}},
        {"kill_workers": {"loose": 1}},
        {"lock_dataset": [{"dataset_id": "a"}]},
        {"lock_dataset": [{"dataset_id": "a", "seconds": -1}]},
        {"refuse_bodies": [{"containing": "", "word": "403-html"}]},
        {"refuse_bodies": [{"containing": "a", "word": "explode"}]},
        {LIST: ["stale-list"]},
        {LIST: ["stale-list 5 forever"]},
        {CREATE_BY_FILE: ["stale-list 5"]},
        {LIST: ["commit-then-stale-list 5"]},
        {"indexing": ["kill all"]},
    ],
)
def test_invalid_plans_are_rejected(plans: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Faults().load(plans)
