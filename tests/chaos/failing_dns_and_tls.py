"""What stands between a client and the emulator, and fails for a time: names and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, field


@define(eq=False)
class FailingResolver(AbstractResolver):
    """Resolves every name to this machine, or none while `is_failing`."""

    is_failing: bool = False
    lookups: int = 0

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the address, or fail as the system does."""
        del family
        self.lookups += 1
        if self.is_failing:
            raise OSError(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Have nothing to close."""


@define(eq=False)
class FailingTlsProxy:
    """A proxy that speaks TLS, or answers with plain text while it is `is_broken`.

    `client_context` is the context for clients that are to trust it.
    """

    port: int
    client_context: ssl.SSLContext
    is_broken: bool = False
    handshakes: int = 0
    _open: set[asyncio.StreamWriter] = field(factory=set)

    def fail(self) -> None:
        """Cut all connections, and have no further handshake succeed."""
        self.is_broken = True
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection: on to what ends TLS, or a page of whatever else listens here."""
        self.handshakes += 1
        if self.is_broken:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            return
        await self.forward(reader, writer, self.port)

    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        """Pass bytes on both ways until one side ends."""
        there, back = await asyncio.open_connection("127.0.0.1", port)
        self._open |= {writer, back}
        try:
            await asyncio.gather(_forward(reader, back), _forward(there, writer))
        finally:
            self._open -= {writer, back}
            writer.transport.abort()
            back.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def run_tls_proxy(port: int) -> AsyncIterator[tuple[str, FailingTlsProxy]]:
    """Stand before a server; give the address and the front."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    own = ssl.create_default_context()
    authority.configure_trust(own)
    front = FailingTlsProxy(0, own)
    inner = await asyncio.start_server(
        lambda reader, writer: front.forward(reader, writer, port),
        "127.0.0.1",
        ssl=context,
    )
    front.port = inner.sockets[0].getsockname()[1]
    outer = await asyncio.start_server(front.accept, "127.0.0.1")
    try:
        yield f"https://localhost:{outer.sockets[0].getsockname()[1]}/v1", front
    finally:
        outer.close()
        inner.close()
        front.fail()
        await asyncio.sleep(0)
