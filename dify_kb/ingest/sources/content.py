"""Read the content of found files, and digest it with SHA-256."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

from attrs import field, frozen

from dify_kb.errors import SourceChangedError, SourceError
from dify_kb.transport.body import BLOCK, READING

from .deleted_characters import DeletedCounter, count_deleted
from .document_names import extension_of
from .file_stamp import FileStamp, settled_stamp
from .file_types import TEXT_EXTENSIONS
from .found_file import FoundFile, describe, stamp_fields, too_large

SMALL = 64 * 1024
"""Bytes. A file up to this size is read once, into memory; a larger one is read twice: its digest
must be in the journal before it is streamed."""


@frozen(kw_only=True)
class Content:
    """What to send of a file.

    `file` describes the file as it was read, which may differ from what the scan found. `stamp`
    is None where a later change might not show in it. `deleted_characters` counts what the server
    deletes from a text: `ï`, `¿`, `¾`, and the bar of `<|` and `|>`.
    """

    data: bytes | Path = field(repr=False)
    digest: bytes
    file: FoundFile
    stamp: FileStamp | None = None
    deleted_characters: int = 0


def is_small(found: FoundFile) -> bool:
    """Return whether a file is read once, into memory."""
    return found.path is not None and found.size <= SMALL


def read_content(found: FoundFile) -> Content:
    """Return the content that a found file has now, whatever it was at the scan. Blocking.

    Raises:
        SourceChangedError: it changed while it was read.
        SourceError: it cannot be read, or is empty or too large now.
    """
    if found.path is None:
        return _in_memory(found, found.data or b"")
    try:
        descriptor = os.open(found.path, READING)
        try:
            return _read(found, found.path, descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"unreadable: {describe(error)}") from error


def require_unchanged(content: Content) -> None:
    """Check that a file still is what was read, after it was streamed. Blocking.

    Raises:
        SourceChangedError: it changed, or is gone.
    """
    file = content.file
    if file.path is None:
        return
    try:
        status = Path(file.path).stat()
    except (OSError, ValueError) as error:
        raise SourceChangedError(f"unreadable: {describe(error)}") from error
    if (status.st_size, stamp_fields(status)[0]) != (file.size, file.mtime_ns):
        raise _changed()


def _in_memory(found: FoundFile, data: bytes, stamp: FileStamp | None = None) -> Content:
    digest = hashlib.sha256(data).digest()
    deleted = count_deleted(data) if _is_text(found) else 0
    return Content(data=data, digest=digest, file=found, stamp=stamp, deleted_characters=deleted)


def _read(found: FoundFile, path: str | os.PathLike[str], descriptor: int) -> Content:
    read_at = time.time()
    before = os.fstat(descriptor)
    file = _require_loadable(found, before)
    stamp = settled_stamp(file, read_at)
    if file.size <= SMALL:
        data = _read_up_to(descriptor, file.size + 1)
        length, content = len(data), _in_memory(file, data, stamp)
    else:
        length, digest, deleted = _digest_up_to(descriptor, file.size + 1, is_text=_is_text(file))
        content = Content(
            data=Path(path), digest=digest, file=file, stamp=stamp, deleted_characters=deleted
        )
    after = os.fstat(descriptor)
    if (length, after.st_size, after.st_mtime_ns) != (
        before.st_size,
        before.st_size,
        before.st_mtime_ns,
    ):
        raise _changed()
    return content


def _require_loadable(found: FoundFile, status: os.stat_result) -> FoundFile:
    """Return the file as it is now, if the rules of the scan still allow it."""
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("The file is not a regular file now.")
    if not status.st_size:
        raise SourceError("The file is empty now.")
    if why := too_large(status.st_size, found.max_size):
        raise SourceError(why)
    return found.with_status(status)


def _read_up_to(descriptor: int, size: int) -> bytes:
    """Read until the end of a file, or `size` bytes of it.

    One read may return less than asked: network file systems and signals cut it short.
    """
    data = os.read(descriptor, size)
    # `size` is one byte more than expected, so that size - 1 is the whole file: saves a read.
    while 0 < len(data) < size - 1:
        block = os.read(descriptor, size - len(data))
        if not block:
            break
        data += block
    return data


def _digest_up_to(descriptor: int, size: int, *, is_text: bool) -> tuple[int, bytes, int]:
    """Return length, digest and deleted characters of a file, of no more than `size` bytes."""
    digest, deleted, length = hashlib.sha256(), DeletedCounter(), 0
    while length < size and (block := os.read(descriptor, min(BLOCK, size - length))):
        length += len(block)
        digest.update(block)
        if is_text:
            deleted.add(block)
    return length, digest.digest(), deleted.count


def _is_text(file: FoundFile) -> bool:
    return file.as_text or extension_of(file.key) in TEXT_EXTENSIONS


def _changed() -> SourceChangedError:
    return SourceChangedError(
        "The file changed while it was read.", hint="Load it again once nothing writes to it."
    )
