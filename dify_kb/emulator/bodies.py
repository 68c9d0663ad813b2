"""What a request carries, before anybody looks at its fields."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any, Final

import anyio
from aiohttp import web

from dify_kb.wire.endpoint import Where

from .multipart import Form, multipart, urlencoded
from .refused import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.wire.endpoint import Endpoint

    from .profile import Profile
    from .settings import Settings

_NOT_JSON: Final = (
    "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
)
_READS: Final = 20
"""Readings a second of a body that is read slowly."""

_WINDOW: Final = 16_384
"""Bytes that the kernel holds of a body that is read slowly."""

BAD_REQUEST: Final = "The browser (or proxy) sent a request that this server could not understand."


async def read(
    endpoint: Endpoint[Any, Any],
    request: web.Request,
    settings: Settings,
    profile: Profile,
    sent: bytes | None = None,
) -> object:
    """Read the query, the JSON or the form of a request; `sent` is its body, if that was read.

    Raises:
        RefusedError: 415 or 400, not the JSON that was to come.
    """
    match endpoint.where:
        case Where.QUERY:
            return _query(request)
        case Where.JSON:
            needed = profile.needs_json
            return await _json(request, needed is None or endpoint.name in needed, sent)
        case Where.FORM:
            return await _form(request, settings, sent)
        case Where.NOWHERE:
            return None


async def whole(request: web.Request, limit: int) -> bytes:
    """Read a body as it comes, of at most so many bytes."""
    return b"".join([block async for block in _blocks(request, limit)])


async def slowly(request: web.Request, limit: int, rate: int) -> bytes:
    """Read a body at so many bytes a second."""
    _narrow(request)
    body = bytearray()
    block = max(1, rate // _READS)
    while piece := await request.content.read(block):
        body += piece
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
        await anyio.sleep(len(piece) / rate)
    return bytes(body)


async def skip(request: web.Request, size: int) -> None:
    """Read so many bytes of a body, or all that it has."""
    while size > 0 and (piece := await request.content.read(size)):
        size -= len(piece)


def _narrow(request: web.Request) -> None:
    # Else the kernel takes megabytes at once, and the client sees nothing of the slowness.
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)


async def _form(request: web.Request, settings: Settings, sent: bytes | None) -> Form:
    if request.content_type == "application/x-www-form-urlencoded":
        return urlencoded(await request.read() if sent is None else sent)
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("Content-Type", ""))
    if request.content_type != "multipart/form-data" or boundary is None:
        return Form()
    blocks = _blocks(request, settings.max_body) if sent is None else _one(sent)
    return await multipart(blocks, boundary[1], settings.max_file_size)


def _query(request: web.Request) -> dict[str, object]:
    """Take the first of each name; `tag_ids` repeats, and `status` may (measured)."""
    query: dict[str, object] = {name: request.query[name] for name in request.query}
    if "tag_ids" in query:
        query["tag_ids"] = request.query.getall("tag_ids")
    if len(statuses := request.query.getall("status", [])) > 1:
        query["status"] = statuses
    return query


async def _json(
    request: web.Request,
    needed: bool,  # noqa: FBT001 -- of the profile
    sent: bytes | None,
) -> object:
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        if not needed:
            return {}
        raise RefusedError(415, "unsupported_media_type", _NOT_JSON)
    try:
        return json.loads(await request.read() if sent is None else sent)
    except ValueError as error:
        if not needed:
            return {}
        raise RefusedError(400, "bad_request", BAD_REQUEST) from error


async def _blocks(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for block in request.content.iter_any():
        size += len(block)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        yield block


async def _one(block: bytes) -> AsyncIterator[bytes]:
    yield block
