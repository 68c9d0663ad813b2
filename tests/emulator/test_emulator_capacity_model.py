"""Overload as the default pod shows it: connections that starve, and creates that queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import aiohttp
import attrs
import pytest
from emulator_client import EmulatorClient, run_emulator, wait_until

from dify_kb.emulator import ManualClock, Settings


@asynccontextmanager
async def client(calls: EmulatorClient) -> AsyncIterator[EmulatorClient]:
    """A client of one connection of its own."""
    headers = {"Authorization": f"Bearer {calls.emulator.api_key}"}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield EmulatorClient(calls.emulator, session)


async def timed(call: Awaitable[object]) -> float:
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def test_one_connection_too_many_waits_until_an_idle_one_is_closed() -> None:
    settings = Settings(connections=2, keep_alive=2)
    async with run_emulator(settings=settings) as calls, client(calls) as one, client(calls) as two:
        served = [await timed(each.request("GET", "/")) for each in (one, two, one, two)]
        waited = await timed(calls.request("GET", "/"))

    assert max(served) < 1 < waited


async def test_who_waits_a_moment_only_has_not_starved() -> None:
    settings = Settings(connections=1, keep_alive=0.05)
    async with run_emulator(settings=settings) as calls, client(calls) as one:
        await one.request("GET", "/")
        await calls.request("GET", "/")

    assert calls.emulator.starved_connections == 0


async def test_starved_connections_are_counted_while_they_wait() -> None:
    settings = Settings(connections=1, keep_alive=0.8)
    async with run_emulator(settings=settings) as calls, client(calls) as one:
        await one.request("GET", "/")
        async with asyncio.TaskGroup() as group:
            group.create_task(calls.request("GET", "/"))
            await asyncio.sleep(0.7)
            meanwhile = calls.emulator.starved_connections
        afterwards = calls.emulator.starved_connections

    assert (meanwhile, afterwards) == (1, 1)


async def test_a_connection_that_closes_makes_room_at_once() -> None:
    settings = Settings(connections=1, keep_alive=30)
    async with run_emulator(settings=settings) as calls:
        waits = []
        for _ in range(5):
            async with client(calls) as one:
                waits.append(await timed(one.request("GET", "/")))
        by_header = [
            await timed(calls.request("GET", "/", headers={"Connection": "close"}))
            for _ in range(5)
        ]

    assert max(waits + by_header) < 10


async def test_more_processes_take_more_connections() -> None:
    settings = Settings(processes=2, connections=1, keep_alive=2)
    async with run_emulator(settings=settings) as calls, client(calls) as one, client(calls) as two:
        served = [await timed(each.request("GET", "/")) for each in (one, two)]
        waited = await timed(calls.request("GET", "/"))

    assert max(served) < 1 < waited


async def test_a_create_that_starved_until_its_client_left_is_carried_out() -> None:
    """All of 400 creates that timed out existed afterwards (measured)."""
    settings = Settings(connections=1, keep_alive=2)
    async with run_emulator(settings=settings) as calls, client(calls) as one:
        dataset = await one.create_dataset()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls.create_by_file(dataset, "a.txt", b"x" * 100_000), 0.5)
        early = calls.emulator.documents(dataset)
        await wait_until(lambda: bool(calls.emulator.documents(dataset)))
        late = calls.emulator.documents(dataset)

    assert early == []
    assert [document.name for document in late] == ["a.txt"]


async def test_who_leaves_before_the_body_is_sent_gives_up_its_turn() -> None:
    settings = Settings(connections=1, keep_alive=2)
    async with run_emulator(settings=settings) as calls, client(calls) as one:
        await one.request("GET", "/")
        port = int(calls.emulator.url.split(":")[2].removesuffix("/v1"))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        waited = await timed(calls.request("GET", "/"))
        again = await timed(calls.request("GET", "/"))

    assert waited < 3.5
    assert again < 1.5


async def test_stopping_does_not_wait_for_those_who_starve() -> None:
    settings = Settings(connections=1, keep_alive=30)
    async with run_emulator(settings=settings) as calls, client(calls) as one:
        await one.request("GET", "/")
        starving = asyncio.ensure_future(calls.request("GET", "/"))
        await asyncio.sleep(0.05)
        took = await timed(asyncio.to_thread(calls.emulator.stop))
        await asyncio.wait([starving], timeout=10)

    # Answered at last, or cut off, as the other connection is closed before or after it.
    assert starving.done()
    assert starving.exception() is None or isinstance(starving.exception(), aiohttp.ClientError)
    assert took < 10


@pytest.mark.parametrize(("processes", "least", "most"), [(1, 2.0, 10.0), (4, 0.5, 2.0)])
async def test_a_process_creates_one_document_at_a_time(
    processes: int, least: float, most: float
) -> None:
    settings = Settings(processes=processes, connections=32, create_cpu=0.1)
    async with run_emulator(settings=settings) as calls:
        dataset = await calls.create_dataset()
        creates = [calls.create_by_file(dataset, f"{n}.txt") for n in range(24)]
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for create in creates:
                group.create_task(create)
            reading = await timed(calls.request("GET", "/"))
        took = time.monotonic() - started

    assert least < took < most
    assert reading < 0.5


def test_larger_installations_differ_in_number_alone() -> None:
    pods = Settings.pods(4, 32)

    assert attrs.evolve(pods, processes=1, connections=10) == Settings.default_pod()


async def test_under_load_the_tail_grows_and_the_median_does_not() -> None:
    """A controller that looks at the median sees nothing (measured: 108 and 1,200 ms at 8)."""
    settings = attrs.evolve(Settings.default_pod(), create_cpu=0.009, create_io=0.0015)
    async with run_emulator(settings=settings) as calls:
        dataset = await calls.create_dataset()
        took: list[float] = []

        async def upload(worker: int) -> None:
            for n in range(20):
                took.append(await timed(calls.create_by_file(dataset, f"{worker}-{n}.txt")))  # noqa: PERF401

        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(upload(worker))
        took.sort()

    assert took[152] > 3 * took[80]


async def test_creates_of_one_dataset_wait_for_its_lock() -> None:
    async with run_emulator(settings=Settings(dataset_lock=0.3)) as calls:
        datasets = [await calls.create_dataset(f"{n}") for n in range(4)]
        same = await timed(
            asyncio.gather(*[calls.create_by_file(datasets[0], f"{n}.txt") for n in range(4)])
        )
        others = await timed(
            asyncio.gather(*[calls.create_by_file(dataset, "a.txt") for dataset in datasets])
        )

    assert others < 1 < same


async def test_a_quota_counts_writes_and_searches_and_what_it_refuses() -> None:
    """So hammering extends the block (measured)."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(quota=3, quota_window=10)) as calls:
        dataset = await calls.create_dataset()
        first = [(await calls.create_by_text(dataset, "a")).status for _ in range(3)]
        clock.advance(9)
        second = [(await calls.retrieve(dataset, "a")).status for _ in range(2)]
        clock.advance(1.5)
        third = await calls.create_by_text(dataset, "b")
        clock.advance(10)
        fourth = await calls.create_by_text(dataset, "c")

    assert first == [200, 200, 403]
    assert second == [403, 403]
    assert third.status == 200
    assert fourth.status == 200


async def test_reads_tags_and_the_status_switch_are_free() -> None:
    async with run_emulator(settings=Settings(quota=1)) as calls:
        dataset = await calls.create_dataset()
        free = [
            await calls.request("GET", f"/datasets/{dataset}"),
            await calls.request("POST", "/datasets/tags", json={"name": "a"}),
            await calls.request(
                "PATCH", f"/datasets/{dataset}/documents/status/enable", json={"document_ids": []}
            ),
        ]
        refused = await calls.create_by_text(dataset, "a")

    assert [reply.status for reply in free] == [200, 200, 200]
    assert refused.status == 403
    assert refused.body == {
        "code": "forbidden",
        "message": "Sorry, you have reached the knowledge base request rate limit of your"
        " subscription.",
        "status": 403,
    }


async def test_a_wrong_key_costs_nothing() -> None:
    async with run_emulator(settings=Settings(quota=1)) as calls:
        wrong = {"Authorization": "Bearer wrong"}
        refused = await calls.request("POST", "/datasets", json={"name": "a"}, headers=wrong)
        made = await calls.request("POST", "/datasets", json={"name": "a"})

    assert (refused.status, made.status) == (401, 200)
