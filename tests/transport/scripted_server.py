"""A server on a real socket that follows a script, and files to send to it."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from dify_kb import AsyncClient, Policy, Timeout

KEY = "dataset-Secret123"
D1 = "11111111-1111-4111-8111-111111111111"
EMPTY_PAGE = json.dumps(
    {"data": [], "has_more": False, "limit": 20, "total": 0, "page": 1}
).encode()
NULLS = dict.fromkeys(
    [
        "data_source_info",
        "dataset_process_rule_id",
        "tokens",
        "error",
        "disabled_at",
        "disabled_by",
        "display_status",
        "word_count",
        "hit_count",
        "doc_form",
        "doc_metadata",
    ]
)
DOCUMENT = {
    **NULLS,
    "id": D1,
    "name": "a.txt",
    "position": 1,
    "data_source_type": "upload_file",
    "created_from": "api",
    "created_by": D1,
    "created_at": 1795248442,
    "indexing_status": "waiting",
    "enabled": True,
    "archived": False,
}
CREATED_BODY = json.dumps({"document": DOCUMENT, "batch": "20261121080722123456"}).encode()
HTML_TEMPLATE = b"<html><head><title>%b</title></head></html>"
SHORT_TIMEOUT = Timeout(connect=0.2, read=0.1, answer=0.1, progress=0.15)
HUGE_SIZE = 64 * 1024 * 1024
"""Size in bytes that exceeds the socket buffers of both sides."""


class Request:
    """A request whose headers have been read, but not its body."""

    def __init__(
        self, head: bytes, reader: BufferedByteReceiveStream, stream: SocketStream
    ) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.first = first
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        self.reader = reader
        self.stream = stream
        self.length = int(self.headers.get("content-length", "0"))
        self.keep = False

    async def body(self) -> bytes:
        return await self.reader.receive_exactly(self.length)

    async def drain(self, rate: float = math.inf) -> int:
        """Read to the end of the body or connection, at most `rate` bytes per second.

        Return the number of bytes received.
        """
        started, received = anyio.current_time(), 0
        while received < self.length:
            try:
                received += len(await self.reader.receive(min(1 << 20, self.length - received)))
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                break
            await anyio.sleep_until(started + received / rate)
        return received

    async def answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        kind = "text/html" if body.startswith(b"<") else "application/json"
        lines = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.stream.send(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
        self.keep = True

    def reset(self) -> None:
        """Close the connection with a reset."""
        raw = self.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 -- anyio's, not Django's
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Step = Callable[[Request], Awaitable[None]]


class ScriptedServer:
    """A server that handles each request with the next step; the last step is repeated.

    The connection is kept open if the step sent a response, otherwise closed.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.requests: list[Request] = []
        self.open = 0
        self.max_open_connections = 0

    async def serve(self, stream: SocketStream) -> None:
        self.open += 1
        self.max_open_connections = max(self.max_open_connections, self.open)
        reader = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                while await self._serve_request(reader, stream):
                    pass
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            pass
        finally:
            self.open -= 1

    async def _serve_request(self, reader: BufferedByteReceiveStream, stream: SocketStream) -> bool:
        head = await reader.receive_until(b"\r\n\r\n", 65536)
        request = Request(head, reader, stream)
        step = self._steps[min(len(self.requests), len(self._steps) - 1)]
        self.requests.append(request)
        await step(request)
        return request.keep


@asynccontextmanager
async def open_client(server: ScriptedServer, **options: Any) -> AsyncIterator[AsyncClient]:
    """Return a client of the server, which listens on its own socket."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 -- anyio's, not Django's
    given = {"policy": Policy().scaled(0.001), **options}
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        async with AsyncClient(f"http://127.0.0.1:{port}/v1", KEY, **given) as client:
            yield client
        group.cancel_scope.cancel()


def answer_created(bodies: list[bytes]) -> Step:
    async def step(request: Request) -> None:
        bodies.append(await request.body())
        await request.answer(200, CREATED_BODY)

    return step


def answer_busy(bodies: list[bytes], then: Callable[[], object] = lambda: None) -> Step:
    """Read the body, call `then`, and return 503."""

    async def step(request: Request) -> None:
        bodies.append(await request.body())
        then()
        await request.answer(503, HTML_TEMPLATE % b"503 Service Temporarily Unavailable")

    return step


async def never_answer(request: Request) -> None:
    """Send no response until the client disconnects."""
    await request.drain()
    await request.stream.receive()


async def answer_empty_page(request: Request) -> None:
    await request.answer(200, EMPTY_PAGE)


def extract_file_content(body: bytes) -> bytes:
    """Return the file of a multipart body."""
    _, _, rest = body.partition(b"application/octet-stream\r\n\r\n")
    content, _, _ = rest.rpartition(b"\r\n--")
    return content


def create_sparse_file(path: Path, size: int = HUGE_SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_with_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
