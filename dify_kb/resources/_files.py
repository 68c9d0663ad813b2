"""A file as callers give it, ready to be sent."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from dify_kb.errors import ConfigError
from dify_kb.models import File

_REFUSED = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|%22|\s$')
"""What the server does not take in a file name (recordings 210 to 226; measured), and what UTF-8
does not (the lone surrogates that stand for the bytes of a name that is not UTF-8)."""


async def opened(file: Path | str | bytes | BinaryIO, name: str | None) -> File:
    """Take a file and check its name. A path is not looked at yet: that is left to its attempt.

    Raises:
        ConfigError: a name that the server would refuse, or none.
    """
    match file:
        case bytes():
            return _named(File(name=name or "", content=file, size=len(file)))
        case Path():
            return _named(File(name=name or file.name, content=file))
        case str():
            return await opened(Path(file), name)
        case _:
            return _named(await anyio.to_thread.run_sync(_of_stream, file, name))


def _of_stream(file: BinaryIO, name: str | None) -> File:
    own = getattr(file, "name", None)
    name = name or (Path(own).name if isinstance(own, str) else "")
    if not file.seekable():
        content = file.read()
        return File(name=name, content=content, size=len(content))
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    return File(name=name, content=file, size=size, start=start)


def _named(file: File) -> File:
    if not file.name:
        raise ConfigError("The file has no name.", hint='Pass name="….txt": it names the document.')
    if _REFUSED.search(file.name):
        raise ConfigError(
            f"name is {file.name!r}, which the server does not take.",
            hint='Leave out / \\ : * ? " < > |, %22, control characters and spaces at the end.',
        )
    return file
