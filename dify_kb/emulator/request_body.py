"""Read request bodies and parse them as query, JSON or form."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

import anyio
from aiohttp import web
from attrs import define, field, frozen

from dify_kb.wire.endpoint import RequestEncoding

from .errors import EmulatedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dify_kb.wire.endpoint import Endpoint

    from .server_profile import ServerProfile
    from .settings import Settings

_NOT_JSON_MESSAGE: Final = (
    "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
)
_READS_PER_SECOND: Final = 20
"""Reads per second of a slowly read body."""

_RECEIVE_BUFFER: Final = 16_384
"""Size of the kernel's receive buffer for a slowly read body, in bytes."""

BAD_REQUEST_MESSAGE: Final = (
    "The browser (or proxy) sent a request that this server could not understand."
)


async def read_body(
    endpoint: Endpoint[Any, Any],
    request: web.Request,
    settings: Settings,
    profile: ServerProfile,
    body: bytes | None = None,
) -> object:
    """Parse the query, the JSON or the form of a request.

    Args:
        body: the body, if it was read already.

    Raises:
        EmulatedError: 415 or 400, the body is not valid JSON.
    """
    match endpoint.encoding:
        case RequestEncoding.QUERY:
            return _read_query(endpoint, request)
        case RequestEncoding.JSON:
            strict = profile.json_only_endpoints
            return await _read_json(request, strict is None or endpoint.name in strict, body)
        case RequestEncoding.FORM:
            return await _read_form(request, settings, body)
        case RequestEncoding.NONE:
            return None


async def read_whole_body(request: web.Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes."""
    return b"".join([block async for block in _iter_blocks(request, limit)])


async def read_slowly(request: web.Request, limit: int, rate: int) -> bytes:
    """Read a body of at most `limit` bytes, at `rate` bytes per second."""
    _shrink_receive_buffer(request)
    body = bytearray()
    block = max(1, rate // _READS_PER_SECOND)
    while piece := await request.content.read(block):
        body += piece
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
        await anyio.sleep(len(piece) / rate)
    return bytes(body)


async def skip_bytes(request: web.Request, size: int) -> None:
    """Read and discard up to `size` bytes of a body."""
    while size > 0 and (piece := await request.content.read(size)):
        size -= len(piece)


def _shrink_receive_buffer(request: web.Request) -> None:
    # With the default size the kernel buffers megabytes, and the client never has to wait.
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


async def _read_form(request: web.Request, settings: Settings, body: bytes | None) -> FormData:
    # aiohttp parses the header as that of an e-mail, which takes longer than the rest of a form.
    header = request.headers.get("Content-Type", "")
    content_type = header.partition(";")[0].strip().lower()
    if content_type == "application/x-www-form-urlencoded":
        return parse_urlencoded(await request.read() if body is None else body)
    boundary = re.search(r'boundary="?([^";]+)', header)
    if content_type != "multipart/form-data" or boundary is None:
        return FormData()
    blocks = _iter_blocks(request, settings.max_body) if body is None else _iter_single_block(body)
    return await parse_multipart(blocks, boundary[1], settings.max_file_size)


def _read_query(endpoint: Endpoint[Any, Any], request: web.Request) -> dict[str, object]:
    """Return the first value of each parameter; `tag_ids` and the `status` of chunks may repeat."""
    query: dict[str, object] = {name: request.query[name] for name in request.query}
    if "tag_ids" in query:
        query["tag_ids"] = request.query.getall("tag_ids")
    statuses = request.query.getall("status", [])
    if len(statuses) > 1 and endpoint.name == "segments.list":
        query["status"] = statuses
    return query


async def _read_json(
    request: web.Request,
    required: bool,  # noqa: FBT001 -- of the profile
    body: bytes | None,
) -> object:
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        if not required:
            return {}
        raise EmulatedError(415, "unsupported_media_type", _NOT_JSON_MESSAGE)
    try:
        return json.loads(await request.read() if body is None else body)
    except ValueError as error:
        if not required:
            return {}
        raise EmulatedError(400, "bad_request", BAD_REQUEST_MESSAGE) from error


async def _iter_blocks(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for block in request.content.iter_any():
        size += len(block)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        yield block


async def _iter_single_block(block: bytes) -> AsyncIterator[bytes]:
    yield block


_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')

_MAX_FIELD_SIZE: Final = 500_000
"""Maximum size of a field that is not a file, in bytes (werkzeug's max_form_memory_size)."""


@frozen
class UploadedFile:
    """A file of a form. `content` is empty if `size` exceeds the server's limit."""

    field: str
    filename: str
    content_type: str | None
    content: bytes
    size: int


@define
class FormData:
    """The text fields and the files of a form, the first of each name."""

    fields: dict[str, str] = field(factory=dict)
    files: dict[str, UploadedFile] = field(factory=dict)


def parse_urlencoded(body: bytes) -> FormData:
    """Parse an `application/x-www-form-urlencoded` body."""
    form = FormData()
    for name, value in parse_qsl(body.decode(errors="replace"), keep_blank_values=True):
        form.fields.setdefault(name, value)
    return form


async def parse_multipart(
    blocks: AsyncIterator[bytes], boundary: str, max_file_size: int
) -> FormData:
    """Parse a `multipart/form-data` body; a malformed or truncated one is empty, as in werkzeug."""
    reader = _MultipartReader(blocks, b"\r\n--" + boundary.encode())
    form = FormData()
    try:
        await reader.skip_preamble()
        while await reader.has_part():
            await _read_part(reader, form, max_file_size)
    except (EOFError, ValueError):
        return FormData()
    finally:
        await reader.drain()
    return form


async def _read_part(reader: _MultipartReader, form: FormData, max_file_size: int) -> None:
    headers = _parse_part_headers((await reader.read_until(b"\r\n\r\n", _MAX_FIELD_SIZE))[0])
    options = _parse_disposition(headers.get("content-disposition", ""))
    name, filename = options.get("name", ""), options.get("filename")
    if filename is None:
        content, size = await reader.read_until(reader.delimiter, _MAX_FIELD_SIZE)
        if size > _MAX_FIELD_SIZE:
            message = "The data value transmitted exceeds the capacity limit."
            raise EmulatedError(413, "request_entity_too_large", message)
        form.fields.setdefault(name, content.decode(errors="replace"))
        return
    content, size = await reader.read_until(reader.delimiter, max_file_size)
    part = UploadedFile(name, filename, headers.get("content-type"), content, size)
    form.files.setdefault(name, part)


class _MultipartReader:
    """A streaming reader of a multipart body that buffers only a block or two."""

    def __init__(self, blocks: AsyncIterator[bytes], delimiter: bytes) -> None:
        self.delimiter = delimiter
        self._blocks = blocks
        # The first delimiter may be at the start of the body, without its leading line end.
        self._buffer = bytearray(b"\r\n")

    async def skip_preamble(self) -> None:
        await self.read_until(self.delimiter, 0)

    async def has_part(self) -> bool:
        while len(self._buffer) < len(b"--"):
            await self._read_more()
        ends = self._buffer.startswith(b"--")
        if not ends:
            await self.read_until(b"\r\n", 0)
        return not ends

    async def read_until(self, mark: bytes, max_size: int) -> tuple[bytes, int]:
        """Return the bytes before a mark and their number; no bytes if more than `max_size`."""
        content, size = bytearray(), 0
        while (end := self._buffer.find(mark)) < 0:
            safe_size = max(0, len(self._buffer) - len(mark) + 1)
            size += safe_size
            if size <= max_size:
                content += self._buffer[:safe_size]
            else:
                content.clear()
            del self._buffer[:safe_size]
            await self._read_more()
        size += end
        if size <= max_size:
            content += self._buffer[:end]
        else:
            content.clear()
        del self._buffer[: end + len(mark)]
        return bytes(content), size

    async def drain(self) -> None:
        async for _ in self._blocks:
            pass

    async def _read_more(self) -> None:
        async for block in self._blocks:
            self._buffer += block
            return
        raise EOFError


def _parse_part_headers(block: bytes) -> Mapping[str, str]:
    """Parse the headers of a part. Raise ValueError if they are not UTF-8 (measured)."""
    lines = [line.partition(":") for line in block.decode().split("\r\n")]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _parse_disposition(disposition: str) -> Mapping[str, str]:
    """Parse the header's parameters; `filename*` overrides `filename` (measured)."""
    plain, extended = {}, {}
    for name, value in _PARAMETER.findall(disposition):
        if name.endswith("*"):
            charset, _, encoded = value.strip('"').partition("'")
            text = unquote(encoded.partition("'")[2], encoding=charset or "utf-8")
            extended[name[:-1].lower()] = text
        else:
            plain[name.lower()] = _unquote(value)
    return plain | extended


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    # Browsers encode a quote as %22, and werkzeug decodes it (measured).
    return value[1:-1].replace("\\\\", "\\").replace('\\"', '"').replace("%22", '"')
