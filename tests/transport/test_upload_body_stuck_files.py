"""Uploads of files whose reads block, as on a network file system that hangs."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dify_kb import AsyncClient, Policy, Timeout
from dify_kb.emulator import Emulator
from dify_kb.errors import RequestTimeoutError, SourceError
from dify_kb.models import ProcessRule
from dify_kb.transport.upload_body import SINGLE_PIECE_LIMIT

AUTOMATIC = ProcessRule.automatic()

WAIT = 60.0
"""Maximum time of a blocked read, in seconds."""


class Stuck(io.BytesIO):
    """A stream whose reads block until `release` is set."""

    name = "stuck.txt"

    def __init__(self, content: bytes, release: threading.Event) -> None:
        super().__init__(content)
        self.release = release

    def read(self, size: int | None = -1) -> bytes:
        self.release.wait(WAIT)
        return super().read(size)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Return an event that ends blocked reads; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


async def create_dataset(client: AsyncClient) -> str:
    return (await client.datasets.create("docs", indexing_technique="economy")).id


async def list_document_sizes(client: AsyncClient, dataset: str) -> list[int | None]:
    """Return the sizes of the files that the server has."""
    files = [document.upload_file async for document in client.documents.iter(dataset)]
    return [file.size if file else None for file in files]


@pytest.mark.parametrize("size", [100, 4 * SINGLE_PIECE_LIMIT], ids=["small", "large"])
@pytest.mark.parametrize("way", ["anyio", "asyncio"])
async def test_a_cancelled_upload_does_not_wait_for_a_read(
    client: AsyncClient, release: threading.Event, size: int, way: str
) -> None:
    dataset = await create_dataset(client)
    began = time.monotonic()

    if way == "anyio":
        with anyio.move_on_after(0.2) as scope:
            await client.documents.create_by_file(dataset, Stuck(b"x" * size, release))
        assert scope.cancelled_caught
    else:
        task = asyncio.create_task(
            client.documents.create_by_file(dataset, Stuck(b"x" * size, release))
        )
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])

    assert time.monotonic() - began < WAIT / 2


@pytest.mark.parametrize("way", ["anyio", "asyncio"])
async def test_a_cancelled_upload_does_not_wait_for_a_pipe(client: AsyncClient, way: str) -> None:
    """A pipe is read whole before it is sent, as its size is unknown."""
    dataset = await create_dataset(client)
    reader, writer = os.pipe()
    began = time.monotonic()

    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb") as rest:
        if way == "anyio":
            with anyio.move_on_after(0.2) as scope:
                await client.documents.create_by_file(dataset, pipe, name="a.txt")
            assert scope.cancelled_caught
        else:
            task = asyncio.create_task(client.documents.create_by_file(dataset, pipe, name="a.txt"))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.wait([task])
        rest.write(b"late")

    assert time.monotonic() - began < WAIT


async def test_a_pipe_without_data_ends_the_upload_and_is_not_read_again(
    emulator: Emulator,
) -> None:
    """A second attempt would send only the rest of it."""
    short = Policy(timeout=Timeout(connect=0.2, read=0.2, answer=0.2, progress=0.2))
    reader, writer = os.pipe()
    async with AsyncClient(emulator.url, emulator.api_key, policy=short) as client:
        dataset = await create_dataset(client)

        with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb") as rest:
            rest.write(b"begin")
            rest.flush()
            with pytest.raises(SourceError, match=r"a read of a\.txt did not end in time"):
                await client.documents.create_by_file(dataset, pipe, name="a.txt")

        assert await list_document_sizes(client, dataset) == []


async def test_a_slow_pipe_is_sent_whole(client: AsyncClient, emulator: Emulator) -> None:
    dataset = await create_dataset(client)
    reader, writer = os.pipe()
    emulator.faults.plan("documents.create_by_file", ["503"])

    def write() -> None:
        with os.fdopen(writer, "wb") as pipe:
            for _ in range(20):
                pipe.write(b"some words. " * 1000)
                pipe.flush()

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, write)
        with os.fdopen(reader, "rb") as pipe:
            await client.documents.create_by_file(
                dataset, pipe, name="a.txt", process_rule=AUTOMATIC
            )

    assert await list_document_sizes(client, dataset) == [240_000]
    assert not emulator.faults.left()


class FailingStream(io.BytesIO):
    """A stream whose reads raise an error of the caller's own."""

    def read(self, size: int | None = -1) -> bytes:
        raise KeyError(size)


def open_as_text() -> io.BytesIO:
    class TextStream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size).decode()  # type: ignore[return-value]  # the caller's error

    return TextStream(b"x" * 100)


def open_closed() -> io.BytesIO:
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


@pytest.mark.parametrize("size", [100, 4 * SINGLE_PIECE_LIMIT], ids=["small", "large"])
async def test_an_error_of_a_stream_is_a_source_error(client: AsyncClient, size: int) -> None:
    """A failed read must not look like a lost connection, which would be retried."""
    dataset = await create_dataset(client)

    for stream in (FailingStream(b"x" * size), open_as_text(), open_closed()):
        with pytest.raises(SourceError, match=r"Cannot read a\.txt"):
            await client.documents.create_by_file(dataset, stream, name="a.txt")


@pytest.mark.parametrize("path", ["a\x00b/c.txt", "a" * 5000 + ".txt"])
async def test_a_path_that_cannot_exist_is_a_source_error(client: AsyncClient, path: str) -> None:
    dataset = await create_dataset(client)

    with pytest.raises(SourceError, match="Cannot read a"):
        await client.documents.create_by_file(dataset, path)


@pytest.mark.parametrize("file", [None, 5, io.StringIO("x"), ["a.txt"]])
async def test_a_file_of_another_type_names_the_argument(client: AsyncClient, file: Any) -> None:
    dataset = await create_dataset(client)

    with pytest.raises(TypeError, match=r"^file must be a path, .*bytes or a file open in binary"):
        await client.documents.create_by_file(dataset, file, name="a.txt")


async def test_the_time_limit_of_an_upload_holds_while_a_read_is_stuck(
    emulator: Emulator, release: threading.Event
) -> None:
    short = Policy(timeout=Timeout(connect=0.2, read=0.2, answer=0.2, progress=0.2))
    async with AsyncClient(emulator.url, emulator.api_key, policy=short) as client:
        dataset = await create_dataset(client)
        began = time.monotonic()

        with pytest.raises(RequestTimeoutError, match=r"a read of stuck\.txt did not end"):
            await client.documents.create_by_file(
                dataset, Stuck(b"x" * 4 * SINGLE_PIECE_LIMIT, release)
            )

        assert time.monotonic() - began < WAIT


async def test_a_stream_is_sent_whole_though_an_earlier_read_of_it_returns_late(
    client: AsyncClient, release: threading.Event
) -> None:
    """The read of the abandoned upload still moves the position of the stream."""
    dataset = await create_dataset(client)
    stream = Stuck(b"some words, and more. " * SINGLE_PIECE_LIMIT, release)
    with anyio.move_on_after(0.2):
        await client.documents.create_by_file(dataset, stream)

    again = asyncio.create_task(
        client.documents.create_by_file(dataset, stream, process_rule=AUTOMATIC)
    )
    await asyncio.sleep(0.2)
    release.set()
    await again

    assert await list_document_sizes(client, dataset) == [len(stream.getvalue())]


async def test_the_thread_closes_the_file_when_its_read_returns(
    client: AsyncClient,
    release: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = await create_dataset(client)
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * 4 * SINGLE_PIECE_LIMIT)
    files: list[io.FileIO] = []

    class StuckFile(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            release.wait(WAIT)
            return super().read(-1 if size is None else size)

    def fdopen(descriptor: int, *_: Any, **__: Any) -> io.FileIO:
        files.append(StuckFile(descriptor))
        return files[-1]

    monkeypatch.setattr("dify_kb.transport.upload_body.os.fdopen", fdopen)
    with anyio.move_on_after(0.2):
        await client.documents.create_by_file(dataset, path)
    assert [file.closed for file in files] == [False]
    release.set()

    with anyio.fail_after(WAIT):
        while not files[0].closed:  # noqa: ASYNC110 -- a thread closes it
            await anyio.sleep(0.01)


async def test_a_file_is_closed_at_its_end_and_when_its_upload_breaks_off(
    client: AsyncClient,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = await create_dataset(client)
    path = tmp_path / "large.txt"
    path.write_bytes(b"some words. " * SINGLE_PIECE_LIMIT)
    files: list[io.FileIO] = []

    def fdopen(descriptor: int, *_: Any, **__: Any) -> io.FileIO:
        files.append(io.FileIO(descriptor))
        return files[-1]

    monkeypatch.setattr("dify_kb.transport.upload_body.os.fdopen", fdopen)
    emulator.faults.plan("documents.create_by_file", ["503", "ok"])

    await client.documents.create_by_file(dataset, path, process_rule=AUTOMATIC)

    assert not emulator.faults.left()
    assert [file.closed for file in files] == [True] * len(files)


async def test_a_small_file_is_read_on_when_a_read_returns_a_part(
    client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems and pipes may return fewer bytes than requested."""
    dataset = await create_dataset(client)
    path = tmp_path / "small.txt"
    path.write_bytes(b"some words. " * 100)
    read = os.read
    monkeypatch.setattr(
        "dify_kb.transport.upload_body.os.read", lambda file, size: read(file, min(size, 7))
    )

    await client.documents.create_by_file(dataset, path, process_rule=AUTOMATIC)

    assert await list_document_sizes(client, dataset) == [1200]
