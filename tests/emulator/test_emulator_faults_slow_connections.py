"""Slow faults: slowly read bodies, trickling responses, and calls processed late."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import pytest
from emulator_client import EmulatorClient, run_emulator, wait_until
from emulator_documents import CREATE_BY_FILE, LARGE_CONTENT, stored_names


async def test_slow_read_slows_a_file_upload() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["slow-read 2000000"])
        started = time.monotonic()
        reply = await client.create_by_file(dataset, "a.txt", LARGE_CONTENT)
        took = time.monotonic() - started

    assert reply.status == 200
    assert reply.body["document"]["data_source_info"]["upload_file_id"]
    assert took > 0.2


async def test_slow_read_slows_a_json_body() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan("documents.create_by_text", ["slow-read 4000"])
        started = time.monotonic()
        reply = await client.create_by_text(dataset, "a", "zebra " * 60)
        took = time.monotonic() - started

    assert reply.status == 200
    assert took > 0.08


async def test_trickle_sends_the_response_in_pieces() -> None:
    """The pieces are spread over the whole time, so that no read times out."""
    async with run_emulator() as client:
        client.emulator.faults.plan("datasets.list", ["trickle 1"])
        started = time.monotonic()
        async with client.session.get(client.emulator.url + "/datasets") as response:
            headers_after = time.monotonic() - started
            pieces = [piece async for piece in response.content.iter_any()]
        took = time.monotonic() - started

    assert json.loads(b"".join(pieces))["total"] == 0
    assert len(pieces) > 4
    assert took >= 1
    assert headers_after < took / 2


async def test_late_call_is_processed_after_the_connection_was_reset() -> None:
    """A lookup that runs too early does not find the document."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["late 0.2"])
        with pytest.raises(aiohttp.ClientError):
            await client.create_by_file(dataset, "a.txt", LARGE_CONTENT)
        early = stored_names(client, dataset)
        landed = await wait_for_documents(client, dataset)

    create = next(
        exchange for exchange in client.emulator.history if exchange.endpoint == CREATE_BY_FILE
    )
    assert early == []
    assert landed == ["a.txt"]
    assert (create.status, create.committed) == (0, True)
    assert create.ended - create.started >= 0.2


async def test_silent_late_call_keeps_its_client_waiting() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["late 0.1 silent"])
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(client.create_by_file(dataset, "a.txt"))
            landed = await wait_for_documents(client, dataset)
            waiting = not upload.done()
            upload.cancel()

    assert landed == ["a.txt"]
    assert waiting


async def test_late_call_is_processed_after_its_client_disconnected() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan(CREATE_BY_FILE, ["late 0.2 silent"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.create_by_file(dataset, "a.txt"), 0.1)
        early = stored_names(client, dataset)
        landed = await wait_for_documents(client, dataset)

    assert early == []
    assert landed == ["a.txt"]


async def wait_for_documents(client: EmulatorClient, dataset: str) -> list[str]:
    await wait_until(lambda: bool(stored_names(client, dataset)))
    return stored_names(client, dataset)
