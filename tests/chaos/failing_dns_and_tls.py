"""A DNS resolver and a TLS proxy that can be made to fail."""

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
    """A resolver that returns 127.0.0.1 for every name, or fails while `is_failing`."""

    is_failing: bool = False
    lookups: int = 0

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address, or fail like the system resolver."""
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
        """There is nothing to close."""


@define(eq=False)
class FailingTlsProxy:
    """A TLS proxy that responds in plain text while `is_broken`.

    `client_context` is the SSL context of clients that trust it.
    """

    port: int
    client_context: ssl.SSLContext
    is_broken: bool = False
    handshakes: int = 0
    _open: set[asyncio.StreamWriter] = field(factory=set)

    def fail(self) -> None:
        """Abort all connections and fail all further handshakes."""
        self.is_broken = True
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a connection to the TLS server, or send a plain-text response if broken."""
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
        """Forward bytes in both directions until one side closes."""
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
    """Run a TLS proxy in front of a server; yield its URL and the proxy."""
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
