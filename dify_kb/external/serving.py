"""An application on a port."""

from __future__ import annotations

import errno
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_GRACE: Final = 5.0
"""Seconds that open requests get when the server stops; Dify waits no longer."""


def _without_heads(record: logging.LogRecord) -> bool:
    """Tell what broke, and not the lines that it broke on: they may hold the key."""
    if record.exc_info and (error := record.exc_info[1]) is not None:
        record.msg = f"{record.getMessage()}: {type(error).__name__}"
        record.args, record.exc_info = (), None
    return True


_http = logging.getLogger(f"{__name__}.http")
_http.addFilter(_without_heads)


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve while the block runs, and give the address; port 0 takes a free one.

    Unlike aiohttp's own runners this one puts no line of a request into the log.

    Raises:
        ConfigError: nobody can listen there.
    """
    runner = web.AppRunner(app, access_log=None, logger=_http, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise _unbound(host, port, error) from error
        bound, number = runner.addresses[0][:2]
        yield f"http://{f'[{bound}]' if ':' in bound else bound}:{number}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _unbound(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} on {host} is taken.", hint="Choose another port, or 0 for a free one."
        )
    return ConfigError(
        f"The server cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Use 127.0.0.1, or 0.0.0.0 for all addresses, and a port above 1023.",
    )
