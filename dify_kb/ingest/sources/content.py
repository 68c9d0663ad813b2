"""What is sent of a file, and what tells it from another: the SHA-256 of it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from dify_kb.errors import SourceError
from dify_kb.transport.body import READING

if TYPE_CHECKING:
    from .scan import FoundFile

SMALL = 64 * 1024
"""A file up to so many bytes is read once, into memory; a larger one is read twice, since it is
streamed and its digest stands in the journal before it is sent."""


RACY = 2.0
"""Seconds: a file changed so shortly before it was read may change again and keep its time, since
file systems tell times in steps."""


@frozen
class Content:
    """What to send, and its digest."""

    data: bytes | Path = field(repr=False)
    digest: bytes


def small(found: FoundFile) -> bool:
    """Tell whether it is a file that is read once, into memory."""
    return found.path is not None and found.size <= SMALL


def content_of(found: FoundFile) -> Content:
    """Read what was found. Blocking.

    Raises:
        SourceError: it cannot be read, or has another length than when it was found.
    """
    if found.path is None:
        data = found.data or b""
        return Content(data, _digest(data))
    try:
        if found.size > SMALL:
            with _opened(found.path) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                _require_size(found, file.tell())
                return Content(Path(found.path), digest)
        data = _read(found.path, found.size + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SourceError(f"{found.key}: it could not be read ({reason}).") from error
    _require_size(found, len(data))
    return Content(data, _digest(data))


def _require_size(found: FoundFile, size: int) -> None:
    if size != found.size:
        raise SourceError(
            f"{found.key}: its length changed since it was found (it was {found.size} bytes).",
            hint="Load it again once nothing writes to it.",
        )


def settled_mtime(found: FoundFile) -> int | None:
    """Tell the time of the last change if a later change would show; None if it need not."""
    if found.mtime_ns is None or time.time() - found.mtime_ns / 1e9 < RACY:
        return None
    return found.mtime_ns


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _read(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a small file. One that is none any more gives nothing, or too much."""
    descriptor = os.open(path, READING)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _opened(path: str | os.PathLike[str]) -> FileIO:
    descriptor = os.open(path, READING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{Path(path).name}: it is not a regular file any more.")
    return FileIO(descriptor)
