"""Reading forms as werkzeug does, one block of the body at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

from attrs import define, field, frozen

from .refused import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)')

_MAX_FIELD: Final = 500_000
"""Bytes of a field that is no file (werkzeug's max_form_memory_size)."""


@frozen
class Part:
    """A file of a form. `content` is empty when `size` is beyond what the server takes."""

    field: str
    filename: str
    content_type: str | None
    content: bytes
    size: int


@define
class Form:
    """The texts and the files of a form, the first of each name."""

    fields: dict[str, str] = field(factory=dict)
    files: dict[str, Part] = field(factory=dict)


def urlencoded(body: bytes) -> Form:
    """Read a form without files."""
    form = Form()
    for name, value in parse_qsl(body.decode(errors="replace"), keep_blank_values=True):
        form.fields.setdefault(name, value)
    return form


async def multipart(blocks: AsyncIterator[bytes], boundary: str, max_file: int) -> Form:
    """Read a form with files; one that breaks off or is malformed is empty, as in werkzeug."""
    reader = _Reader(blocks, b"\r\n--" + boundary.encode())
    form = Form()
    try:
        await reader.skip_preamble()
        while await reader.has_part():
            await _read_part(reader, form, max_file)
    except (EOFError, ValueError):
        return Form()
    finally:
        await reader.drain()
    return form


async def _read_part(reader: _Reader, form: Form, max_file: int) -> None:
    headers = _headers((await reader.until(b"\r\n\r\n", _MAX_FIELD))[0])
    options = _options(headers.get("content-disposition", ""))
    name, filename = options.get("name", ""), options.get("filename")
    if filename is None:
        content, size = await reader.until(reader.delimiter, _MAX_FIELD)
        if size > _MAX_FIELD:
            message = "The data value transmitted exceeds the capacity limit."
            raise RefusedError(413, "request_entity_too_large", message)
        form.fields.setdefault(name, content.decode(errors="replace"))
        return
    content, size = await reader.until(reader.delimiter, max_file)
    part = Part(name, filename, headers.get("content-type"), content, size)
    form.files.setdefault(name, part)


class _Reader:
    """A body that is looked at through a window of a block or two."""

    def __init__(self, blocks: AsyncIterator[bytes], delimiter: bytes) -> None:
        self.delimiter = delimiter
        self._blocks = blocks
        # The first delimiter may open the body, without the line end that belongs to it.
        self._window = bytearray(b"\r\n")

    async def skip_preamble(self) -> None:
        await self.until(self.delimiter, 0)

    async def has_part(self) -> bool:
        while len(self._window) < len(b"--"):
            await self._more()
        ends = self._window.startswith(b"--")
        if not ends:
            await self.until(b"\r\n", 0)
        return not ends

    async def until(self, mark: bytes, keep: int) -> tuple[bytes, int]:
        """Take what stands before a mark, and the mark; keep nothing of what is longer."""
        taken, size = bytearray(), 0
        while (end := self._window.find(mark)) < 0:
            safe = max(0, len(self._window) - len(mark) + 1)
            size += safe
            if size <= keep:
                taken += self._window[:safe]
            else:
                taken.clear()
            del self._window[:safe]
            await self._more()
        size += end
        if size <= keep:
            taken += self._window[:end]
        else:
            taken.clear()
        del self._window[: end + len(mark)]
        return bytes(taken), size

    async def drain(self) -> None:
        async for _ in self._blocks:
            pass

    async def _more(self) -> None:
        async for block in self._blocks:
            self._window += block
            return
        raise EOFError


def _headers(block: bytes) -> Mapping[str, str]:
    """Read the headers of a part. Bytes that are not UTF-8 are a ValueError (measured)."""
    lines = [line.partition(":") for line in block.decode().split("\r\n")]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _options(disposition: str) -> Mapping[str, str]:
    """Read the parameters of a header; `filename*` wins over `filename` (measured)."""
    plain, extended = {}, {}
    for name, value in _PARAMETER.findall(disposition):
        if name.endswith("*"):
            charset, _, encoded = value.strip('"').partition("'")
            text = unquote(encoded.partition("'")[2], encoding=charset or "utf-8")
            extended[name[:-1].lower()] = text
        else:
            plain[name.lower()] = _unquoted(value)
    return plain | extended


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    # Browsers write a quote as %22, and so werkzeug reads it (measured).
    return value[1:-1].replace("\\\\", "\\").replace('\\"', '"').replace("%22", '"')
