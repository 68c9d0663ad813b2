"""Loads whose connection is refused for good: by a certificate, or by a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from attrs import define, field
from load_examples import count_creates, count_outcomes, create_dataset, write_files

from dify_kb import AsyncClient, ConnectError, ItemResult, LoadEvent, Outcome, Policy, StopReason
from dify_kb.emulator import Emulator

AUTHORITY = trustme.CA()
NOW = datetime.now(UTC)
FILES = 30

LATER_CERTIFICATES = {
    "expired": AUTHORITY.issue_cert(
        "127.0.0.1", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)
    ),
    "another host": AUTHORITY.issue_cert("dify.example"),
    "unknown authority": trustme.CA().issue_cert("127.0.0.1"),
}


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def trusting_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@define
class Front:
    """A server in front of another: with TLS, or as a proxy that answers CONNECT."""

    target: tuple[str, int]
    refusal: str | None = None
    is_proxy: bool = False
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(factory=set)

    def abort_connections(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_proxy:
            await reader.readuntil(b"\r\n\r\n")
            if self.refusal is not None:
                writer.write(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        back, forth = await asyncio.open_connection(*self.target)
        self._open |= {writer, forth}
        await asyncio.gather(copy_stream(reader, forth), copy_stream(back, writer))


async def copy_stream(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


@asynccontextmanager
async def serve(front: Front, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(front.handle, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    front.abort_connections()


def after_uploads(number: int, change: Callable[[], None]) -> Callable[[LoadEvent], None]:
    """Return a callback that calls `change` once, when so many files are loaded."""
    added: list[ItemResult] = []

    def call(event: LoadEvent) -> None:
        if isinstance(event, ItemResult) and event.outcome is Outcome.ADDED:
            added.append(event)
            if len(added) == number:
                change()

    return call


def address(emulator: Emulator) -> tuple[str, int]:
    parts = urlsplit(emulator.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@pytest.mark.parametrize("kind", LATER_CERTIFICATES)
async def test_a_certificate_that_becomes_invalid_stops_the_load_at_once(
    kind: str, emulator: Emulator, quick: Policy, folder: Path
) -> None:
    """As an outage it would be probed for ten minutes, without a chance."""
    write_files(folder, FILES)
    context, front = server_context(AUTHORITY.issue_cert("127.0.0.1")), Front(address(emulator))

    def replace_certificate() -> None:
        LATER_CERTIFICATES[kind].configure_cert(context)
        front.connections = 0
        front.abort_connections()

    async with (
        serve(front, context) as port,
        AsyncClient(
            f"https://127.0.0.1:{port}",
            emulator.api_key,
            policy=quick,
            ssl=trusting_context(),
            concurrency=1,  # no handshake is under way when the certificate is replaced
        ) as client,
    ):
        dataset = await create_dataset(client)
        watch = after_uploads(3, replace_certificate)
        report = await client.load(dataset, folder, concurrency=2, wait="accepted", on_event=watch)

    assert report.stopped is StopReason.MISCONFIGURED
    assert report.exit_code == 6
    assert "certificate" in str(report.stop_message)
    counts = count_outcomes(report)
    assert set(counts) <= {"added", "pending", "unknown"}
    assert counts["pending"] > 0
    assert count_creates(emulator) < FILES
    assert front.connections == 0, "no handshake succeeded"


@pytest.mark.parametrize("refusal", ["403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_proxy_that_refuses_to_connect_stops_the_load_at_once(
    refusal: str, emulator: Emulator, quick: Policy, folder: Path
) -> None:
    write_files(folder, FILES)
    secure = Front(address(emulator))
    async with (
        serve(secure, server_context(AUTHORITY.issue_cert("127.0.0.1"))) as port,
        serve(proxy := Front(("127.0.0.1", port), is_proxy=True)) as proxy_port,
        AsyncClient(
            f"https://127.0.0.1:{port}",
            emulator.api_key,
            policy=quick,
            ssl=trusting_context(),
            proxy=f"http://127.0.0.1:{proxy_port}",
        ) as client,
    ):

        def refuse() -> None:
            proxy.refusal, proxy.connections = refusal, 0
            proxy.abort_connections()

        dataset = await create_dataset(client)
        watch = after_uploads(3, refuse)
        report = await client.load(dataset, folder, concurrency=2, wait="accepted", on_event=watch)

    assert report.stopped is StopReason.MISCONFIGURED
    assert "proxy" in str(report.stop_message)
    assert count_outcomes(report)["pending"] > 0
    assert 0 < proxy.connections <= 10


async def test_a_load_of_a_server_with_an_invalid_certificate_fails_after_one_attempt(
    emulator: Emulator, quick: Policy, folder: Path
) -> None:
    write_files(folder, 1)
    context = server_context(LATER_CERTIFICATES["expired"])
    attempts: list[object] = []
    async with (
        serve(Front(address(emulator)), context) as port,
        AsyncClient(
            f"https://127.0.0.1:{port}",
            emulator.api_key,
            policy=quick,
            ssl=trusting_context(),
            on_event=attempts.append,
        ) as client,
    ):
        with pytest.raises(ConnectError, match="has expired"):
            await client.load("11111111-1111-4111-8111-111111111111", folder)

    assert len(attempts) == 1
