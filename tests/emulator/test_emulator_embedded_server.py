"""The embedded server's thread, port and database file."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest
from emulator_client import Response, run_emulator, wait_until

from dify_kb.emulator import Emulator, ManualClock, Settings, serve
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path


def list_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "dify-kb-emulator"}


def test_stop_leaves_no_threads() -> None:
    others = list_threads()
    emulator = Emulator()
    emulator.start()
    assert emulator.start() == emulator.url
    started = time.monotonic()
    emulator.stop()
    emulator.stop()

    assert time.monotonic() - started < 30  # aiohttp would wait 60 s
    assert list_threads() == others
    with pytest.raises(ConfigError, match="not running"):
        _ = emulator.url
    gc.collect()


async def test_stopping_does_not_wait_for_a_stalled_request() -> None:
    async with run_emulator() as client:
        client.emulator.faults.plan("server.info", ["stall 60"])
        async with asyncio.TaskGroup() as group:
            request = group.create_task(has_failed(client.request("GET", "/")))
            await wait_until(lambda: not client.emulator.faults.left())
            started = time.monotonic()
            await asyncio.to_thread(client.emulator.stop)

    assert request.result()
    assert time.monotonic() - started < 10


async def has_failed(call: Awaitable[Response]) -> bool:
    try:
        await call
    except aiohttp.ClientError:
        return True
    return False


def test_port_in_use_is_a_config_error_with_a_hint() -> None:
    with Emulator() as emulator:
        port = int(emulator.url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(
            ConfigError, match=f"Port {port} on 127.0.0.1 is already in use"
        ) as caught:
            Emulator(port=port).start()

    assert "Choose another port" in caught.value.hint


def test_unknown_version_error_lists_the_supported_versions() -> None:
    with pytest.raises(ConfigError, match=r"Choose one of: .*1\.16"):
        Emulator(version="9.9")


def test_database_file_is_locked_by_one_emulator(tmp_path: Path) -> None:
    path = tmp_path / "kb.db"
    code = (
        "import sys; from pathlib import Path; from dify_kb.emulator import Emulator;"
        "Emulator(Path(sys.argv[1])).start()"
    )
    with Emulator(path):
        with pytest.raises(ConfigError, match="in use"):
            Emulator(path).start()
        other = subprocess.run(  # noqa: S603 -- our own interpreter
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )

    assert "in use by another emulator" in other.stderr
    with Emulator(path):
        pass


def test_foreign_files_are_refused_and_left_unchanged(tmp_path: Path) -> None:
    text, foreign = tmp_path / "a.txt", tmp_path / "foreign.db"
    text.write_text("not a database" * 100)
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    before = foreign.read_bytes()

    for path, words in ((text, "not an emulator database"), (foreign, "not an emulator database")):
        with pytest.raises(ConfigError, match=words):
            Emulator(path).start()
    with pytest.raises(ConfigError, match="Cannot open"):
        Emulator(tmp_path / "none" / "a.db").start()
    assert foreign.read_bytes() == before


async def test_reopened_file_has_all_data_and_continues_indexing(tmp_path: Path) -> None:
    path, clock = tmp_path / "kb.db", ManualClock()
    async with run_emulator(path, clock=clock, settings=Settings(splitting=1)) as client:
        one = await client.create_dataset("kept")
        done = await client.create_by_file(one, "a.txt", b"zebra")
        await client.wait_for_status(one, done.body["batch"], "splitting")
        clock.advance(1)
        await client.wait_until_indexed(one, done)
        half = await client.create_by_file(one, "b.txt", b"zebra")
        await client.wait_for_status(one, half.body["batch"], "splitting")
        waiting = await client.create_by_file(one, "c.txt", b"zebra")

    async with run_emulator(path) as client:
        for reply in (done, half, waiting):
            assert (await client.wait_until_indexed(one, reply))["total_segments"] == 1
        found = await client.retrieve(one, "zebra")
        dataset = await client.request("GET", f"/datasets/{one}")

    assert len(found.body["records"]) == 3
    assert dataset.body["name"] == "kept"
    assert dataset.body["created_by"] == half.body["document"]["created_by"]
    assert os.listdir(tmp_path) == ["kb.db"]  # noqa: PTH208 -- ASYNC240 takes no path's methods


async def test_requests_are_answered_while_a_long_text_is_indexed() -> None:
    text = b"\n\n".join(f"paragraph {n} about foxes and zebras".encode() for n in range(8000))
    async with run_emulator() as client:
        one = await client.create_dataset()
        created = await client.create_by_file(one, "long.txt", text)
        states = ["waiting"]
        while states[-1] not in {"completed", "error"}:
            entry = await client.get_indexing_status(one, created.body["batch"])
            states.append(entry["indexing_status"])

    assert states[-1] == "completed"
    assert len([state for state in states if state in {"splitting", "indexing"}]) >= 5, states


async def test_stopping_does_not_wait_for_the_indexer(tmp_path: Path) -> None:
    """Unfinished indexing continues when the file is opened again."""
    path = tmp_path / "kb.db"
    text = b"\n\n".join(f"paragraph {n} about foxes and zebras".encode() for n in range(8000))
    async with run_emulator(path) as client:
        one = await client.create_dataset()
        created = await client.create_by_file(one, "long.txt", text)
        await client.wait_for_status(one, created.body["batch"], "parsing", "splitting", "indexing")
        client.emulator.stop()
    with closing(sqlite3.connect(path)) as file:
        left = file.execute("SELECT indexing_status FROM documents").fetchall()

    async with run_emulator(path) as client:
        entry = await client.wait_until_indexed(one, created)
        found = await client.retrieve(one, "7999")
    assert left != [("completed",)]
    assert entry["indexing_status"] == "completed"
    assert entry["completed_segments"] == entry["total_segments"]
    assert len(found.body["records"]) == 1


async def test_serve_ends_when_cancelled() -> None:
    others = list_threads()
    urls: list[str] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:

            def started(url: str) -> None:
                urls.append(url)
                group.cancel_scope.cancel()

            group.start_soon(serve, Emulator(), started)

    assert urls[0].startswith("http://127.0.0.1:")
    assert list_threads() == others


async def test_interrupted_upload_creates_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        port = int(client.emulator.url.split(":")[2].removesuffix("/v1"))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /v1/datasets/{one}/document/create-by-file HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {client.emulator.api_key}\r\nContent-Length: 1000\r\n"
            "Content-Type: multipart/form-data; boundary=cut\r\n\r\n--cut\r\n"
            'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhalf'.encode()
        )
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        listed = await client.request("GET", f"/datasets/{one}/documents")

    assert listed.body["total"] == 0
    assert caplog.records == []
