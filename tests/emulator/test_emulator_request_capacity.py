"""The simulated capacity: starving connections, queued creates, dataset locks and quotas."""

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
async def open_client(server: EmulatorClient) -> AsyncIterator[EmulatorClient]:
    """Yield a client with a single connection."""
    headers = {"Authorization": f"Bearer {server.emulator.api_key}"}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield EmulatorClient(server.emulator, session)


async def measure_seconds(call: Awaitable[object]) -> float:
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def test_extra_connection_waits_until_an_idle_one_closes() -> None:
    settings = Settings(connections=2, keep_alive=2)
    async with (
        run_emulator(settings=settings) as server,
        open_client(server) as first_client,
        open_client(server) as second_client,
    ):
        served = [
            await measure_seconds(each.request("GET", "/"))
            for each in (first_client, second_client, first_client, second_client)
        ]
        waited = await measure_seconds(server.request("GET", "/"))

    assert max(served) < 1 < waited


async def test_short_wait_is_not_starvation() -> None:
    settings = Settings(connections=1, keep_alive=0.05)
    async with run_emulator(settings=settings) as server, open_client(server) as first_client:
        await first_client.request("GET", "/")
        await server.request("GET", "/")

    assert server.emulator.starved_connections == 0


async def test_starved_connections_are_counted_while_they_wait() -> None:
    settings = Settings(connections=1, keep_alive=0.8)
    async with run_emulator(settings=settings) as server, open_client(server) as first_client:
        await first_client.request("GET", "/")
        async with asyncio.TaskGroup() as group:
            group.create_task(server.request("GET", "/"))
            await asyncio.sleep(0.7)
            while_waiting = server.emulator.starved_connections
        afterwards = server.emulator.starved_connections

    assert (while_waiting, afterwards) == (1, 1)


async def test_closed_connection_frees_its_slot_immediately() -> None:
    settings = Settings(connections=1, keep_alive=30)
    async with run_emulator(settings=settings) as server:
        waits = []
        for _ in range(5):
            async with open_client(server) as first_client:
                waits.append(await measure_seconds(first_client.request("GET", "/")))
        by_header = [
            await measure_seconds(server.request("GET", "/", headers={"Connection": "close"}))
            for _ in range(5)
        ]

    assert max(waits + by_header) < 10


async def test_more_processes_accept_more_connections() -> None:
    settings = Settings(processes=2, connections=1, keep_alive=2)
    async with (
        run_emulator(settings=settings) as server,
        open_client(server) as first_client,
        open_client(server) as second_client,
    ):
        served = [
            await measure_seconds(each.request("GET", "/"))
            for each in (first_client, second_client)
        ]
        waited = await measure_seconds(server.request("GET", "/"))

    assert max(served) < 1 < waited


async def test_starved_create_is_processed_after_its_client_disconnected() -> None:
    """All documents of 400 timed-out creates existed afterwards (measured)."""
    settings = Settings(connections=1, keep_alive=2)
    async with run_emulator(settings=settings) as server, open_client(server) as first_client:
        dataset = await first_client.create_dataset()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.create_by_file(dataset, "a.txt", b"x" * 100_000), 0.5)
        early = server.emulator.documents(dataset)
        await wait_until(lambda: bool(server.emulator.documents(dataset)))
        late = server.emulator.documents(dataset)

    assert early == []
    assert [document.name for document in late] == ["a.txt"]


async def test_disconnected_client_leaves_the_queue() -> None:
    settings = Settings(connections=1, keep_alive=2)
    async with run_emulator(settings=settings) as server, open_client(server) as first_client:
        await first_client.request("GET", "/")
        port = int(server.emulator.url.split(":")[2].removesuffix("/v1"))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        waited = await measure_seconds(server.request("GET", "/"))
        again = await measure_seconds(server.request("GET", "/"))

    assert waited < 3.5
    assert again < 1.5


async def test_stop_does_not_wait_for_starved_connections() -> None:
    settings = Settings(connections=1, keep_alive=30)
    async with run_emulator(settings=settings) as server, open_client(server) as first_client:
        await first_client.request("GET", "/")
        starving = asyncio.ensure_future(server.request("GET", "/"))
        await asyncio.sleep(0.05)
        seconds = await measure_seconds(asyncio.to_thread(server.emulator.stop))
        await asyncio.wait([starving], timeout=10)

    # Answered or dropped, depending on whether the other connection is closed before it.
    assert starving.done()
    assert starving.exception() is None or isinstance(starving.exception(), aiohttp.ClientError)
    assert seconds < 10


@pytest.mark.parametrize(("processes", "least", "most"), [(1, 2.0, 10.0), (4, 0.5, 2.0)])
async def test_a_process_creates_one_document_at_a_time(
    processes: int, least: float, most: float
) -> None:
    settings = Settings(processes=processes, connections=32, create_cpu=0.1)
    async with run_emulator(settings=settings) as server:
        dataset = await server.create_dataset()
        creates = [server.create_by_file(dataset, f"{n}.txt") for n in range(24)]
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for create in creates:
                group.create_task(create)
            reading = await measure_seconds(server.request("GET", "/"))
        seconds = time.monotonic() - started

    assert least < seconds < most
    assert reading < 0.5


def test_pods_differ_only_in_processes_and_connections() -> None:
    pods = Settings.pods(4, 32)

    assert attrs.evolve(pods, processes=1, connections=10) == Settings.default_pod()


async def test_under_load_the_tail_latency_grows_and_the_median_does_not() -> None:
    """A controller that uses the median detects nothing (measured: 108 and 1,200 ms at 8)."""
    settings = attrs.evolve(Settings.default_pod(), create_cpu=0.009, create_io=0.0015)
    async with run_emulator(settings=settings) as server:
        dataset = await server.create_dataset()
        seconds: list[float] = []

        async def upload(worker: int) -> None:
            for n in range(20):
                upload_request = server.create_by_file(dataset, f"{worker}-{n}.txt")
                seconds.append(await measure_seconds(upload_request))

        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(upload(worker))
        seconds.sort()

    assert seconds[152] > 3 * seconds[80]


async def test_creates_of_one_dataset_wait_for_its_lock() -> None:
    async with run_emulator(settings=Settings(dataset_lock=0.3)) as server:
        datasets = [await server.create_dataset(f"{n}") for n in range(4)]
        same = await measure_seconds(
            asyncio.gather(*[server.create_by_file(datasets[0], f"{n}.txt") for n in range(4)])
        )
        others = await measure_seconds(
            asyncio.gather(*[server.create_by_file(dataset, "a.txt") for dataset in datasets])
        )

    assert others < 1 < same


async def test_quota_counts_writes_searches_and_rejected_requests() -> None:
    """Retrying while blocked therefore extends the block (measured)."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(quota=3, quota_window=10)) as server:
        dataset = await server.create_dataset()
        first = [(await server.create_by_text(dataset, "a")).status for _ in range(3)]
        clock.advance(9)
        second = [(await server.retrieve(dataset, "a")).status for _ in range(2)]
        clock.advance(1.5)
        third = await server.create_by_text(dataset, "b")
        clock.advance(10)
        fourth = await server.create_by_text(dataset, "c")

    assert first == [200, 200, 403]
    assert second == [403, 403]
    assert third.status == 200
    assert fourth.status == 200


async def test_reads_tags_and_status_changes_do_not_count_against_the_quota() -> None:
    async with run_emulator(settings=Settings(quota=1)) as server:
        dataset = await server.create_dataset()
        free = [
            await server.request("GET", f"/datasets/{dataset}"),
            await server.request("POST", "/datasets/tags", json={"name": "a"}),
            await server.request(
                "PATCH", f"/datasets/{dataset}/documents/status/enable", json={"document_ids": []}
            ),
        ]
        refused = await server.create_by_text(dataset, "a")

    assert [reply.status for reply in free] == [200, 200, 200]
    assert refused.status == 403
    assert refused.body == {
        "code": "forbidden",
        "message": "Sorry, you have reached the knowledge base request rate limit of your"
        " subscription.",
        "status": 403,
    }


async def test_unauthorized_requests_do_not_count_against_the_quota() -> None:
    async with run_emulator(settings=Settings(quota=1)) as server:
        wrong = {"Authorization": "Bearer wrong"}
        refused = await server.request("POST", "/datasets", json={"name": "a"}, headers=wrong)
        made = await server.request("POST", "/datasets", json={"name": "a"})

    assert (refused.status, made.status) == (401, 200)
