"""A request body, opened for one attempt."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import anyio
import anyio.to_thread

from dify_kb.errors import KnowledgeError, SourceError

from .aside import aside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.config import Timeout
    from dify_kb.models import File
    from dify_kb.wire.parts import Multipart

BLOCK = 256 * 1024
"""Bytes read and sent at a time: 32 files of 14 MB in flight keep below 70 MB (measured)."""

JOINED = 64 * 1024
"""A file up to so many bytes is sent in one piece: 1.6 times as fast as streamed (measured)."""

WHOLE = 0.99
"""A server that got less than this part of a multipart body cannot have acted on it."""


class Body:
    """The bytes of one attempt, counted as they go.

    Each block that the socket took moves the deadline of `scope` on: a body may take as long as
    it likes while it moves. An error met while reading is kept in `error`, since aiohttp reports
    it as a broken connection.
    """

    def __init__(self, form: Multipart, scope: anyio.CancelScope, timeout: Timeout) -> None:
        self.error: KnowledgeError | None = None
        self.sent_at: float | None = None
        """When the socket had taken all of it; None before, and of one sent in one piece."""
        self._form = form
        self._scope = scope
        self._timeout = timeout
        self._sent = 0
        self._source: _Source | None = None

    @property
    def delivered(self) -> bool:
        """Whether the server may have had enough of it to act."""
        return self._sent >= WHOLE * self._form.size

    async def open(self) -> bytes | AsyncIterator[bytes]:
        """Give the body as aiohttp takes it: whole when small, else block by block.

        Raises:
            SourceError: a small file could not be read, or changed.
        """
        if self._form.file.size > JOINED:
            self._source = _Source(self._form.file)
            return self._blocks(self._source)
        content = await _whole(self._form.file)
        self._sent = self._form.size
        return b"".join((self._form.head, content, self._form.tail))

    async def close(self) -> None:
        """Close the file, once a read of it that is under way has ended."""
        if self._source is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._source.close)

    async def _blocks(self, source: _Source) -> AsyncIterator[bytes]:
        yield self._counted(self._form.head)
        left = self._form.file.size
        try:
            while block := await anyio.to_thread.run_sync(source.read, min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                yield self._counted(block)
            if left:
                raise _changed(self._form.file)
        except KnowledgeError as error:
            self.error = error
            raise
        yield self._counted(self._form.tail)
        self.sent_at = anyio.current_time()
        self._scope.deadline = self.sent_at + self._timeout.answer

    def _counted(self, block: bytes) -> bytes:
        self._scope.deadline = anyio.current_time() + self._timeout.progress
        self._sent += len(block)
        return block


class _Source:
    """A file that threads read for aiohttp, which drops its body in the middle of a read.

    Such a read goes on in its thread. It must not leave an open file behind, nor move a file on
    that the next attempt reads.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._closed = False

    def read(self, size: int) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            if self._stream is None:
                self._stream = _open(self._file)
            return _read(self._stream, size, self._file)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._stream is not None and self._stream is not self._file.content:
                self._stream.close()


async def _whole(file: File) -> bytes:
    match file.content:
        case bytes():
            return file.content
        case Path():
            return await aside(_read_all, file)
        case _:
            # Not with others, as nobody knows how long a read of it takes.
            return await anyio.to_thread.run_sync(_read_all, file)


def _read_all(file: File) -> bytes:
    source = _open(file)
    try:
        content = _read(source, file.size + 1, file)
    finally:
        if source is not file.content:
            source.close()
    if len(content) != file.size:
        raise _changed(file)
    return content


def _open(file: File) -> BinaryIO:
    """Open a path anew; turn an open file back to where it stood."""
    if isinstance(file.content, bytes):
        return io.BytesIO(file.content)
    try:
        if not isinstance(file.content, Path):
            file.content.seek(file.start)
            return file.content
        # A FIFO put in the file's place must not block the thread that opens it.
        descriptor = os.open(file.content, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _unreadable(file, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{file.name}: it is not a regular file any more.")
    return os.fdopen(descriptor, "rb", buffering=0)


def _read(source: BinaryIO, size: int, file: File) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise _unreadable(file, error) from error


def _changed(file: File) -> SourceError:
    return SourceError(
        f"{file.name}: its length changed while it was sent (it was {file.size} bytes).",
        hint="Load it again once nothing writes to it.",
    )


def _unreadable(file: File, error: OSError) -> SourceError:
    return SourceError(f"{file.name}: it could not be read ({error.strerror or error}).")
