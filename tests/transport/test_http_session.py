"""Requests over real sockets: uploads, lost connections and timeouts."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from scripted_server import (
    CREATED_BODY,
    D1,
    EMPTY_PAGE,
    HTML_TEMPLATE,
    HUGE_SIZE,
    KEY,
    SHORT_TIMEOUT,
    Request,
    ScriptedServer,
    answer_busy,
    answer_created,
    answer_empty_page,
    create_sparse_file,
    extract_file_content,
    never_answer,
    open_client,
    replace_with_folder,
    replace_with_pipe,
)

import dify_kb
from dify_kb import AsyncClient, Policy, Retry, Timeout
from dify_kb.config import DEFAULT_CONCURRENCY

# --- uploads


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 256 * 1024, 600_001])
async def test_a_file_arrives_byte_for_byte(tmp_path: Path, size: int) -> None:
    """In one piece or in blocks, with sizes around the limits, and with Content-Length."""
    path = tmp_path / "a.txt"
    path.write_bytes(os.urandom(size))
    bodies: list[bytes] = []
    server = ScriptedServer(answer_created(bodies))

    async with open_client(server) as client:
        answer = await client.documents.create_by_file(D1, path)

    (request,) = server.requests
    assert answer.batch == "20261121080722123456"
    assert extract_file_content(bodies[0]) == path.read_bytes()
    assert "transfer-encoding" not in request.headers
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize("size", [5, 600_001])
async def test_a_file_arrives_whole_at_the_second_attempt(tmp_path: Path, size: int) -> None:
    """aiohttp closes the file of the first attempt, so that its body would be empty now."""
    path = tmp_path / "a.txt"
    path.write_bytes(os.urandom(size))
    bodies: list[bytes] = []

    async with open_client(ScriptedServer(answer_busy(bodies), answer_created(bodies))) as client:
        await client.documents.create_by_file(D1, path)

    assert [extract_file_content(body) for body in bodies] == [path.read_bytes()] * 2


@pytest.mark.parametrize("size", [5, 600_001])
async def test_bytes_arrive_whole_at_the_second_attempt(size: int) -> None:
    content = os.urandom(size)
    bodies: list[bytes] = []

    async with open_client(ScriptedServer(answer_busy(bodies), answer_created(bodies))) as client:
        await client.documents.create_by_file(D1, content, name="a.txt")

    assert [extract_file_content(body) for body in bodies] == [content] * 2


@pytest.mark.parametrize("size", [5, 600_001])
async def test_an_open_file_is_sent_from_where_it_stands_each_time(size: int) -> None:
    """The first attempt leaves the file at its end. The client does not close it."""
    content = os.urandom(size)
    file = io.BytesIO(b"skipped" + content)
    file.seek(len(b"skipped"))
    bodies: list[bytes] = []

    async with open_client(ScriptedServer(answer_busy(bodies), answer_created(bodies))) as client:
        await client.documents.create_by_file(D1, file, name="a.txt")

    assert [extract_file_content(body) for body in bodies] == [content] * 2
    assert not file.closed


async def test_a_read_that_was_given_up_ends_before_the_next_attempt() -> None:
    """aiohttp abandons the first body during a read, which then still moves the file position."""

    class Slow(io.BytesIO):
        inside = most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.03)
            self.inside -= 1
            return super().read(size)

    content = os.urandom(600_001)
    file = Slow(content)
    bodies: list[bytes] = []

    async def reset(request: Request) -> None:
        while not file.inside:  # noqa: ASYNC110 -- a thread enters it
            await anyio.sleep(0.001)
        request.reset()

    async with open_client(ScriptedServer(reset, answer_created(bodies))) as client:
        await client.documents.create_by_file(D1, file, name="a.txt")

    assert file.most == 1
    assert [extract_file_content(body) for body in bodies] == [content]


async def test_a_slow_upload_continues_while_it_progresses(tmp_path: Path) -> None:
    """A limit on the total time would abort large files on slow networks."""
    path = create_sparse_file(tmp_path / "a.txt", 32 * 1024 * 1024)
    allowed = Timeout(connect=0.1, answer=0.3, progress=0.3)

    async def slowly(request: Request) -> None:
        assert await request.drain(rate=50e6) == request.length
        await request.answer(200, CREATED_BODY)

    server = ScriptedServer(slowly)
    started = anyio.current_time()

    async with open_client(server, policy=Policy(timeout=allowed)) as client:
        await client.documents.create_by_file(D1, path)

    assert anyio.current_time() - started > allowed.connect + allowed.answer


# --- files that change


async def test_a_file_cut_while_it_is_sent_fails_at_once(tmp_path: Path) -> None:
    """The server would wait for missing bytes, and both sides would hang."""
    path = create_sparse_file(tmp_path / "a.txt")

    async def cut(request: Request) -> None:
        os.truncate(path, 1024)
        await request.drain()

    server = ScriptedServer(cut)

    async with open_client(server) as client:
        with anyio.fail_after(10), pytest.raises(dify_kb.SourceError, match="size changed"):
            await client.documents.create_by_file(D1, path)

    assert len(server.requests) == 1


async def test_a_file_that_grew_while_it_was_sent_fails(tmp_path: Path) -> None:
    """A log file that is being written must not become a truncated document."""
    path = create_sparse_file(tmp_path / "a.txt", 8 * 1024 * 1024)

    async def grow(request: Request) -> None:
        with path.open("ab") as file:
            file.write(b"more")
        await request.drain()

    server = ScriptedServer(grow)

    async with open_client(server) as client:
        with anyio.fail_after(10), pytest.raises(dify_kb.SourceError, match="size changed"):
            await client.documents.create_by_file(D1, path)

    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [5, 600_001])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: os.truncate(path, 1), id="cut"),
        pytest.param(lambda path: os.truncate(path, 700_000), id="grown"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(replace_with_folder, id="a folder"),
        pytest.param(replace_with_pipe, id="a pipe"),
    ],
)
async def test_a_file_that_changed_between_attempts_fails(
    tmp_path: Path, size: int, change: Callable[[Path], object]
) -> None:
    """A pipe in place of the file would block the thread that opens it forever."""
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(size))
    bodies: list[bytes] = []
    server = ScriptedServer(answer_busy(bodies, lambda: change(path)), answer_created(bodies))

    async with open_client(server) as client:
        with anyio.fail_after(10), pytest.raises(dify_kb.SourceError, match=r"a\.txt"):
            await client.documents.create_by_file(D1, path)

    assert len(bodies) == 1


async def test_a_missing_file_fails_before_anything_is_sent(tmp_path: Path) -> None:
    server = ScriptedServer(never_answer)

    async with open_client(server) as client:
        with pytest.raises(dify_kb.SourceError, match="Cannot read"):
            await client.documents.create_by_file(D1, tmp_path / "gone.txt")

    assert server.requests == []


# --- servers that do not read or respond


async def test_a_server_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    """The upload makes no progress. The server cannot process an incomplete body."""
    path = create_sparse_file(tmp_path / "a.txt")

    async def stop(request: Request) -> None:
        await anyio.sleep_forever()
        assert request.keep

    server = ScriptedServer(stop)
    policy = Policy(timeout=SHORT_TIMEOUT, retry=Retry(write_attempts=1))
    started = anyio.current_time()

    async with open_client(server, policy=policy) as client:
        with pytest.raises(dify_kb.RequestTimeoutError) as raised:
            await client.documents.create_by_file(D1, path)

    assert not raised.value.delivered
    assert 0.15 <= anyio.current_time() - started < 1.0
    assert len(server.requests) == 1


async def test_a_read_that_is_not_answered_is_given_up() -> None:
    """The error is also a Python `TimeoutError`."""
    server = ScriptedServer(never_answer)
    policy = Policy(timeout=SHORT_TIMEOUT, retry=Retry(read_attempts=1))

    async with open_client(server, policy=policy) as client:
        with pytest.raises(TimeoutError) as raised:
            await client.datasets.list()

    assert isinstance(raised.value, dify_kb.RequestTimeoutError)
    assert len(server.requests) == 1


async def test_a_read_that_is_not_answered_is_sent_again() -> None:
    """One worker of the server may hang while others respond."""
    server = ScriptedServer(never_answer, answer_empty_page)
    policy = Policy(timeout=SHORT_TIMEOUT).scaled(0.001)

    async with open_client(server, policy=policy) as client:
        await client.datasets.list()

    assert len(server.requests) == 2


async def test_an_answer_that_stops_half_way_is_given_up() -> None:
    """The timeout applies until the end of the response, not only until its headers."""

    async def half(request: Request) -> None:
        await request.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await request.stream.receive()

    policy = Policy(timeout=SHORT_TIMEOUT, retry=Retry(read_attempts=1))

    async with open_client(ScriptedServer(half), policy=policy) as client:
        with pytest.raises(dify_kb.RequestTimeoutError):
            await client.datasets.list()


@pytest.mark.parametrize("size", [5, 600_001])
async def test_an_upload_that_is_not_answered_may_have_been_carried_out(size: int) -> None:
    """400 of 400 creates that timed out had succeeded (measured)."""
    server = ScriptedServer(never_answer)

    async with open_client(server, policy=Policy(timeout=SHORT_TIMEOUT)) as client:
        with pytest.raises(dify_kb.OutcomeUnknownError) as raised:
            await client.documents.create_by_file(D1, bytes(size), name="a.txt")

    assert isinstance(raised.value.__cause__, dify_kb.RequestTimeoutError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [5, 600_001])
async def test_a_connection_closed_after_the_body_is_an_unknown_outcome(size: int) -> None:
    """The server received the complete body and may have processed it."""

    async def hang_up(request: Request) -> None:
        assert await request.drain() == request.length

    server = ScriptedServer(hang_up)

    async with open_client(server) as client:
        with pytest.raises(dify_kb.OutcomeUnknownError) as raised:
            await client.documents.create_by_file(D1, bytes(size), name="a.txt")

    assert raised.value.delivered
    assert len(server.requests) == 1


async def test_a_connection_reset_within_the_body_is_sent_again(tmp_path: Path) -> None:
    """The server cannot create a document from an incomplete form."""
    path = create_sparse_file(tmp_path / "a.txt", HUGE_SIZE)

    async def reset(request: Request) -> None:
        await request.reader.receive(64 * 1024)
        request.reset()

    async def take(request: Request) -> None:
        assert await request.drain() == request.length
        await request.answer(200, CREATED_BODY)

    server = ScriptedServer(reset, take)

    async with open_client(server) as client:
        await client.documents.create_by_file(D1, path)

    assert len(server.requests) == 2


async def test_a_read_whose_answer_breaks_off_is_sent_again() -> None:
    """According to `Content-Length`, the response is incomplete."""

    async def broken(request: Request) -> None:
        await request.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    server = ScriptedServer(broken, answer_empty_page)

    async with open_client(server) as client:
        await client.datasets.list()

    assert len(server.requests) == 2


async def test_a_closed_port_is_a_connect_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}/v1"

        async with AsyncClient(address, KEY, retry=Retry(read_attempts=1)) as client:
            with pytest.raises(dify_kb.ConnectError, match="connection refused") as raised:
                await client.datasets.list()

    assert address in str(raised.value)


# --- responses of other servers


async def test_a_page_in_place_of_json_is_no_success() -> None:
    """The console's address returns its page for all requests."""

    async def page(request: Request) -> None:
        await request.answer(200, HTML_TEMPLATE % b"Dify")

    server = ScriptedServer(page)

    async with open_client(server) as client:
        with pytest.raises(dify_kb.ProtocolError, match="base URL"):
            await client.datasets.list()

    assert len(server.requests) == 1


async def test_a_refusal_before_the_body_is_read_is_seen(tmp_path: Path) -> None:
    """nginx returns 413 immediately; a connection reset instead would be retried with 64 MB."""
    path = create_sparse_file(tmp_path / "a.txt")

    async def refuse(request: Request) -> None:
        await request.answer(
            413, HTML_TEMPLATE % b"413 Request Entity Too Large", {"Connection": "close"}
        )
        request.keep = False
        await request.drain()

    server = ScriptedServer(refuse)

    async with open_client(server) as client:
        with pytest.raises(dify_kb.TooLargeError, match="413 Request Entity Too Large"):
            await client.documents.create_by_file(D1, path)

    assert len(server.requests) == 1


async def test_a_refusal_without_end_is_read_to_a_limit() -> None:
    """Error pages of more than 64 KiB are not useful, and may be endless."""

    async def endless(request: Request) -> None:
        await request.stream.send(b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\n\r\n<html>")
        while True:
            await request.stream.send(bytes(65536))

    server = ScriptedServer(endless)

    async with open_client(server) as client:
        with anyio.fail_after(10), pytest.raises(dify_kb.NotFoundError):
            await client.datasets.list()

    assert len(server.requests) == 1


async def test_a_reply_that_is_not_http_is_an_error_without_the_key() -> None:
    """aiohttp's error contains the request with all its headers."""

    async def garble(request: Request) -> None:
        await request.stream.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    policy = Policy(retry=Retry(read_attempts=1))

    async with open_client(ScriptedServer(garble), policy=policy) as client:
        with pytest.raises(dify_kb.TransportError, match="lost the connection") as raised:
            await client.datasets.list()

    error: BaseException | None = raised.value
    while error is not None:
        assert KEY not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# --- connections


@pytest.mark.parametrize("concurrency", [1, 3, None])
async def test_no_more_connections_than_allowed_are_opened(concurrency: int | None) -> None:
    """An 11th connection to a default server waits for seconds (measured)."""

    async def slowly(request: Request) -> None:
        await anyio.sleep(0.005)
        await request.answer(200, EMPTY_PAGE)

    server = ScriptedServer(slowly)
    limit = concurrency or DEFAULT_CONCURRENCY

    async with (
        open_client(server, concurrency=concurrency) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3 * limit):
            tasks.start_soon(client.datasets.list)

    assert server.max_open_connections == limit
    assert len(server.requests) == 3 * limit


async def test_connections_are_reused() -> None:
    """A new connection per request would cost a handshake and a port."""
    server = ScriptedServer(answer_empty_page)

    async with open_client(server) as client:
        for _ in range(5):
            await client.datasets.list()

    assert server.max_open_connections == 1
    assert len(server.requests) == 5


async def test_a_cancelled_upload_leaves_the_client_usable(tmp_path: Path) -> None:
    """The slot and the connection are released, and the file is closed."""
    path = create_sparse_file(tmp_path / "a.txt")

    async def stop(request: Request) -> None:
        await anyio.sleep(0.1)
        await request.stream.aclose()

    server = ScriptedServer(stop, answer_empty_page)

    async with open_client(server, concurrency=1) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.documents.create_by_file(D1, path)
        await client.datasets.list()

    assert scope.cancelled_caught
    assert len(server.requests) == 2
