"""The body of a file upload, read anew for each attempt."""

from __future__ import annotations

import io
import os
import stat
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from attrs import evolve

from dify_kb.errors import (
    KnowledgeError,
    RequestTimeoutError,
    SourceChangedError,
    SourceError,
)
from dify_kb.wire.endpoint import RequestEncoding
from dify_kb.wire.multipart import build_multipart

from .clock import loop_time
from .thread_batch import run_in_batch, run_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import anyio

    from dify_kb.config import Timeout
    from dify_kb.models import File
    from dify_kb.wire.endpoint import Call
    from dify_kb.wire.multipart import FileRequest, MultipartForm

T = TypeVar("T")

BLOCK_SIZE = 256 * 1024
"""Bytes read and sent at a time: 32 files of 14 MB in flight use less than 70 MB (measured)."""

SINGLE_PIECE_LIMIT = 64 * 1024
"""Maximum bytes of a file that is sent in one piece: 1.6 times as fast as streaming (measured)."""

OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags for opening files. Non-blocking, as a FIFO in place of a file would block the thread."""

DELIVERED_FRACTION = 0.99
"""A server that received less than this fraction of a multipart body cannot have processed it."""


class UploadBody:
    """The body of one upload attempt, counted while it is sent.

    Each block sent extends the deadline of the attempt: a body may take any time as long as it
    makes progress. `error` is an error met while reading, as aiohttp reports it as a broken
    connection.

    Args:
        size: expected size of the file in bytes; None uses the size of the path when opened.
    """

    def __init__(self, form: MultipartForm, size: int | None, timeout: Timeout) -> None:
        self.error: KnowledgeError | None = None
        self.sent_at: float | None = None
        """Time when the whole body was sent; None before, and for a body sent in one piece."""
        self._form = form
        self._timeout = timeout
        self._size = size
        self._sent = 0
        self._source: _SourceFile | None = None
        self.is_reading = False
        """Whether a thread is reading the file, perhaps one on a file system that hangs."""

    @classmethod
    def from_call(
        cls, call: Call[Any], timeout: Timeout, previous: UploadBody | None
    ) -> UploadBody | None:
        """Return the body of a multipart call; None for other calls.

        The file must have the same size as in the `previous` attempt.
        """
        if call.endpoint.encoding is not RequestEncoding.FORM:
            return None
        if previous is not None:
            return cls(previous._form, previous._size, timeout)  # noqa: SLF001 -- our own class
        form = build_multipart(cast("FileRequest", call.body))
        return cls(form, form.file.size, timeout)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the body. Its length is known once the body is open."""
        return {"Content-Type": self._form.content_type, "Content-Length": str(self._length)}

    @property
    def may_be_delivered(self) -> bool:
        """Whether the server may have received enough of the body to process it."""
        return self._sent >= DELIVERED_FRACTION * self._length

    async def open(self, scope: anyio.CancelScope) -> bytes | AsyncIterator[bytes]:
        """Return the body for aiohttp: as bytes if small, else as an iterator over blocks.

        Raises:
            SourceError: the file could not be read, or changed.
        """
        if self._size is None and not isinstance(self._form.file.content, Path):
            await self._measure_stream(scope)
        self._source = _SourceFile(self._form.file)
        content = await self._read_small(self._source)
        if content is None:
            return self._iter_blocks(self._source, scope)
        self._source = None
        self._sent = self._length
        return b"".join((self._form.head, content, self._form.tail))

    def close(self) -> None:
        """Close the file without blocking; a read in progress closes it when it returns."""
        if self._source is not None:
            self._source.close()

    def stuck_error(self, endpoint: str) -> KnowledgeError:
        """Return the error of an attempt that ended during a read of the file."""
        summary = f"{endpoint}: a read of {self._form.file.name} did not end in time."
        hint = "Check the file, and the network file system or pipe that it is on."
        if self._size is None and not isinstance(self._form.file.content, Path):
            return SourceError(summary, hint=hint)  # no retry: a part of the pipe has been read
        return RequestTimeoutError(summary, endpoint=endpoint, delivered=False, hint=hint)

    @property
    def _length(self) -> int:
        return self._form.content_length(self._size or 0)

    async def _measure_stream(self, scope: anyio.CancelScope) -> None:
        """Determine where a stream starts and its size; read one that cannot seek into memory."""
        source = _SourceFile(self._form.file)
        where = await self._read(source.measure)
        file = self._form.file
        if where is None:
            blocks: list[bytes] = []
            while block := await self._read(source.read, BLOCK_SIZE):
                blocks.append(block)
                scope.deadline = loop_time() + self._timeout.progress
            content = b"".join(blocks)
            file = evolve(file, content=content, size=len(content))
        else:
            start, size = where
            file = evolve(file, start=start, size=size)
        self._form, self._size = evolve(self._form, file=file), file.size

    async def _read(self, function: Callable[..., T], *args: object) -> T:
        """Call a function that reads the file in a thread; it may never return."""
        self.is_reading = True
        result = await run_in_thread(function, *args)
        self.is_reading = False
        return result

    async def _read_small(self, source: _SourceFile) -> bytes | None:
        """Return the content of a file that is sent in one piece; None for a larger file."""
        file = self._form.file
        if isinstance(file.content, Path):
            self.is_reading = True
            size, content = await run_in_batch(source.open_path, file.content)
            self.is_reading = False
            if self._size not in {None, size}:
                raise _source_changed_error(file, self._size)
            self._size = size
            return content
        if self._size is None or self._size > SINGLE_PIECE_LIMIT:
            return None
        if isinstance(file.content, bytes):
            return file.content
        # Not batched, as a read from the caller's stream may take any time.
        content = await self._read(source.read_all, self._size + 1)
        if len(content) != self._size:
            raise _source_changed_error(file, self._size)
        return content

    async def _iter_blocks(
        self, source: _SourceFile, scope: anyio.CancelScope
    ) -> AsyncIterator[bytes]:
        yield self._count_block(self._form.head, scope)
        remaining = self._size or 0
        try:
            while block := await self._read(source.read, min(BLOCK_SIZE, remaining + 1)):
                remaining -= len(block)
                if remaining < 0:
                    break
                yield self._count_block(block, scope)
            if remaining:
                raise _source_changed_error(self._form.file, self._size)
        except KnowledgeError as error:
            self.error = error
            raise
        yield self._count_block(self._form.tail, scope)
        self.sent_at = loop_time()
        scope.deadline = self.sent_at + self._timeout.answer

    def _count_block(self, block: bytes, scope: anyio.CancelScope) -> bytes:
        scope.deadline = loop_time() + self._timeout.progress
        self._sent += len(block)
        return block


class _SourceFile:
    """A file read in threads for aiohttp, which may abandon the body in the middle of a read.

    An abandoned read continues in its thread, perhaps for hours on a network file system that
    hangs. It must neither leak an open file nor move a stream that the next attempt reads.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._reading = False
        self._closed = False

    def measure(self) -> tuple[int, int] | None:
        """Return the position of a stream and the bytes after it; None if it cannot seek."""
        stream = self._file.content
        if isinstance(stream, bytes | Path):
            raise TypeError("only streams are measured")
        # Without waiting for a read of an abandoned attempt, which will move the position.
        with _convert_read_errors(self._file):
            if not stream.seekable():
                return None
            start = stream.tell()
            size = stream.seek(0, io.SEEK_END) - start
            stream.seek(start)
        return start, size

    def open_path(self, path: Path) -> tuple[int, bytes | None]:
        """Return the size of a path, and its content if small; a larger file stays open."""
        if not self._begin_read():
            return 0, b""
        try:
            with _convert_read_errors(self._file):
                descriptor, size = _open_regular_file(path)
                if size > SINGLE_PIECE_LIMIT:
                    self._stream = os.fdopen(descriptor, "rb", buffering=0)
                    return size, None
                content = _read_descriptor(descriptor, size + 1)
        finally:
            self._end_read()
        if len(content) != size:
            raise _source_changed_error(self._file, size)
        return size, content

    def read(self, size: int) -> bytes:
        """Return the next block; empty at the end, which closes the file."""
        if not self._begin_read():
            return b""
        try:
            with _convert_read_errors(self._file), _exclusive_access(self._file.content):
                if self._closed:  # while an earlier attempt used the stream
                    return b""
                if self._stream is None:
                    self._stream = self._open_stream()
                read = self._stream.read
                if self._file.size is None:  # a pipe: waiting for a whole block may take any time
                    read = getattr(self._stream, "read1", read)
                block = read(size) or b""
                if not isinstance(block, bytes | bytearray):
                    raise TypeError(f"read() returned {type(block).__name__}, not bytes")
            if not block:
                self._close_stream()
            return bytes(block)
        finally:
            self._end_read()

    def read_all(self, size: int) -> bytes:
        """Return up to `size` bytes; a single read of a stream may return fewer."""
        return _read_blocks(self.read, size)

    def close(self) -> None:
        """Close the file; a read in progress closes it when it returns."""
        with self._lock:
            self._closed = True
            if not self._reading:
                self._close_stream()

    def _begin_read(self) -> bool:
        with self._lock:
            self._reading = not self._closed
            return self._reading

    def _end_read(self) -> None:
        with self._lock:
            self._reading = False
            if self._closed:
                self._close_stream()

    def _close_stream(self) -> None:
        if self._stream is not None and self._stream is not self._file.content:
            self._stream.close()

    def _open_stream(self) -> BinaryIO:
        content = self._file.content
        if isinstance(content, bytes):
            return io.BytesIO(content)
        if isinstance(content, Path):
            raise TypeError("a path is opened by open_path()")
        if self._file.size is not None:  # else it may not be able to seek
            content.seek(self._file.start)
        return content


_in_use: set[int] = set()
"""The `id` of each stream that a thread is reading, and thus keeps alive."""

_in_use_changed = threading.Condition()


@contextmanager
def _exclusive_access(content: object) -> Iterator[None]:
    """Lock a caller's stream against other reads, such as one of an abandoned attempt."""
    if isinstance(content, bytes | Path):
        yield
        return
    with _in_use_changed:
        _in_use_changed.wait_for(lambda: id(content) not in _in_use)
        _in_use.add(id(content))
    try:
        yield
    finally:
        with _in_use_changed:
            _in_use.discard(id(content))
            _in_use_changed.notify_all()


def _open_regular_file(path: Path) -> tuple[int, int]:
    """Open a regular file and return its descriptor and size."""
    descriptor = os.open(path, OPEN_FLAGS)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    raise SourceError(f"Not a regular file: {path}.", hint="Pass a file; use `load` for a folder.")


def _read_descriptor(descriptor: int, size: int) -> bytes:
    """Return up to `size` bytes and close the file."""
    try:
        return _read_blocks(partial(os.read, descriptor), size)
    finally:
        os.close(descriptor)


def _read_blocks(read: Callable[[int], bytes], size: int) -> bytes:
    """Read `size` bytes or to the end; a read on a network file system may return fewer."""
    content = block = read(size)
    while block and len(content) < size:
        block = read(size - len(content))
        content += block
    return content


def _source_changed_error(file: File, size: int | None) -> SourceChangedError:
    return SourceChangedError(
        f"{file.name}: the size changed during the upload (was {size} bytes).",
        hint="Upload the file again when no program writes to it.",
    )


@contextmanager
def _convert_read_errors(file: File) -> Iterator[None]:
    """Convert the errors of reading a file; an object of the caller may raise any."""
    label = file.content if isinstance(file.content, Path) else file.name
    try:
        yield
    except KnowledgeError:
        raise
    except OSError as error:
        raise SourceError(
            f"Cannot read {label} ({error.strerror or error}).",
            hint="Check the path and its permissions.",
        ) from error
    except Exception as error:
        raise SourceError(
            f"Cannot read {label!s:.200} ({type(error).__name__}: {error}).",
            hint="Pass a path, or a file that is open for reading in binary mode.",
        ) from error
