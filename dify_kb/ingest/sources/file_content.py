"""Read the content of files, with its digest and the number of characters that Dify deletes.

Versions 1.4.3 to 1.12.1 of Dify delete `ï`, `¿`, `¾` and the bar of `<|` and `|>` before chunking
(measured): "naïve ¿Qué?" is stored as "nave Qué?".
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import define, evolve, field, frozen

from dify_kb.errors import SourceChangedError, SourceError
from dify_kb.transport.upload_body import BLOCK_SIZE, OPEN_FLAGS

from .document_names import TEXT_EXTENSIONS, file_extension
from .found_file import FoundFile, describe_excess_size, describe_os_error, settled_token

if TYPE_CHECKING:
    from .file_source import ByteStream, OpenedEntry

# The second byte of these letters is rare in most texts: searching for it is a fast test.
_LETTERS = tuple(
    (letter, letter[:1], letter[1:]) for letter in (b"\xc3\xaf", b"\xc2\xbf", b"\xc2\xbe")
)
_SEQUENCES = frozenset({b"<|", b"|>", b"\xc3\xaf", b"\xc2\xbf", b"\xc2\xbe"})


def count_deleted(data: bytes) -> int:
    """Return the number of sequences in a UTF-8 text from which the server deletes a character."""
    count = 0
    if b"|" in data:
        count += data.count(b"<|") if b"<" in data else 0
        count += data.count(b"|>") if b">" in data else 0
    if data.isascii():
        return count
    for letter, first, second in _LETTERS:
        if second in data and first in data:
            count += data.count(letter)
    return count


@define
class DeletedCounter:
    """An incremental `count_deleted` for blocks of text, which may split a sequence."""

    count: int = 0
    _last: bytes = b""

    def add(self, block: bytes) -> None:
        """Count the sequences that end in a block."""
        self.count += count_deleted(block) + (self._last + block[:1] in _SEQUENCES)
        self._last = block[-1:]


MAX_SMALL_FILE = 64 * 1024
"""Bytes. Files up to this size are read once, into memory. Larger files are read twice, because
their digest must be in the journal before they are streamed."""


@frozen(kw_only=True)
class FileContent:
    """The content of a file to be sent.

    `data` is a stream in a temporary file for a large file of a source; `close` deletes it. `file`
    describes the file when it was read, which may differ from the scan. `token` is None if
    the file could change without changing its token. `deleted_characters` counts the characters
    that the server deletes from texts: `ï`, `¿`, `¾`, and the bar of `<|` and `|>`.
    """

    data: bytes | Path | BinaryIO = field(repr=False)
    digest: bytes
    file: FoundFile
    token: str | None = None
    deleted_characters: int = 0

    def read_head(self, size: int) -> bytes:
        """Return the first bytes. Blocking.

        Raises:
            SourceError: the file cannot be read.
        """
        if isinstance(self.data, bytes):
            return self.data[:size]
        if isinstance(self.data, Path):
            return read_head(self.file, size)
        head = read_stream(self.data, size)
        self.data.seek(0)
        return head

    def without_head(self, length: int) -> FileContent:
        """Return the content without its first bytes; its digest is still that of the file.

        Raises:
            SourceError: the file cannot be read.
        """
        if isinstance(self.data, bytes):
            return evolve(self, data=self.data[length:])
        try:
            stream = self.data.open("rb") if isinstance(self.data, Path) else self.data
            stream.seek(length)
        except OSError as error:
            raise SourceError(f"unreadable: {describe_os_error(error)}") from error
        return evolve(self, data=stream)

    def close(self) -> None:
        """Delete the temporary file of a large file of a source, if any."""
        if not isinstance(self.data, bytes | Path):
            self.data.close()


def is_small(found: FoundFile) -> bool:
    """Return whether a file is read into memory."""
    return found.path is not None and found.size <= MAX_SMALL_FILE


def read_content(found: FoundFile) -> FileContent:
    """Return the current content of a found file, even if it changed since the scan. Blocking.

    Raises:
        SourceChangedError: the file changed while it was read.
        SourceError: the file cannot be read, or is now empty or too large.
    """
    if found.source is not None and found.entry is not None:
        return _read_entry(found, found.source.open(found.entry))
    if found.path is None:
        return _in_memory(found, found.data or b"")
    try:
        descriptor = os.open(found.path, OPEN_FLAGS)
        try:
            return _read(found, found.path, descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"unreadable: {describe_os_error(error)}") from error


def read_head(found: FoundFile, size: int) -> bytes:
    """Return the first bytes of a file. Blocking.

    Raises:
        SourceError: the file cannot be read.
    """
    if found.source is not None and found.entry is not None:
        stream = found.source.open(found.entry).stream
        try:
            return read_stream(stream, size)
        finally:
            stream.close()
    if found.path is None:
        return (found.data or b"")[:size]
    try:
        descriptor = os.open(found.path, OPEN_FLAGS)
        try:
            return _read_up_to(descriptor, size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise SourceError(f"unreadable: {describe_os_error(error)}") from error


def require_unchanged(content: FileContent) -> None:
    """Check that a file did not change while it was streamed. Blocking.

    Raises:
        SourceChangedError: the file changed or no longer exists.
    """
    file = content.file
    if file.path is None:
        return
    try:
        status = Path(file.path).stat()
    except (OSError, ValueError) as error:
        raise SourceChangedError(f"unreadable: {describe_os_error(error)}") from error
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise _changed()


def _in_memory(found: FoundFile, data: bytes, token: str | None = None) -> FileContent:
    digest = hashlib.sha256(data).digest()
    deleted = count_deleted(data) if _is_text(found) else 0
    return FileContent(
        data=data, digest=digest, file=found, token=token, deleted_characters=deleted
    )


def _read_entry(found: FoundFile, opened: OpenedEntry) -> FileContent:
    """Read an entry of a source: into memory if small, else into a temporary file.

    The digest must be in the journal before the file is sent, and another attempt must not
    download it again.
    """
    try:
        small = read_stream(opened.stream, MAX_SMALL_FILE + 1)
        if len(small) <= MAX_SMALL_FILE:
            content = _in_memory(evolve(found, size=len(small)), small, opened.token)
        else:
            content = _spool(found, small, opened)
    finally:
        opened.stream.close()
    try:
        _require_complete(found, opened, content)
    except BaseException:
        content.close()
        raise
    return content


def _require_complete(found: FoundFile, opened: OpenedEntry, content: FileContent) -> None:
    """Check that the whole of an entry was read."""
    if not content.file.size:
        raise SourceError("The file is now empty.")
    if why := describe_excess_size(content.file.size, found.max_size):
        raise SourceError(why)
    expected = opened.size
    if expected is None and opened.token == found.token and found.entry is not None:
        expected = found.entry.size
    if expected not in {None, content.file.size}:
        raise _changed()


def _spool(found: FoundFile, head: bytes, opened: OpenedEntry) -> FileContent:
    """Copy a stream, of which `head` was read, into a temporary file."""
    digest, deleted, is_text = hashlib.sha256(), DeletedCounter(), _is_text(found)
    spool = tempfile.TemporaryFile(prefix="dify-kb-")  # noqa: SIM115 -- closed by FileContent.close
    try:
        block, size = head, 0
        while block and size <= found.max_size:
            size += len(block)
            spool.write(block)
            digest.update(block)
            if is_text:
                deleted.add(block)
            block = opened.stream.read(BLOCK_SIZE)
        spool.seek(0)
    except OSError as error:
        spool.close()
        raise SourceError(f"unreadable: {describe_os_error(error)}") from error
    except BaseException:
        spool.close()
        raise
    return FileContent(
        data=spool,
        digest=digest.digest(),
        file=evolve(found, size=size),
        token=opened.token,
        deleted_characters=deleted.count,
    )


def read_stream(stream: ByteStream, size: int) -> bytes:
    """Read up to `size` bytes; a single read may return less."""
    data = stream.read(size)
    while 0 < len(data) < size and (block := stream.read(size - len(data))):
        data += block
    return data


def _read(found: FoundFile, path: str | os.PathLike[str], descriptor: int) -> FileContent:
    read_at = time.time()
    before = os.fstat(descriptor)
    file = _require_loadable(found, before)
    token = settled_token(before, read_at)
    if file.size <= MAX_SMALL_FILE:
        data = _read_up_to(descriptor, file.size + 1)
        length, content = len(data), _in_memory(file, data, token)
    else:
        length, digest, deleted = _digest_up_to(descriptor, file.size + 1, is_text=_is_text(file))
        content = FileContent(
            data=Path(path), digest=digest, file=file, token=token, deleted_characters=deleted
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
    """Return the file with its current status, if the rules of the scan still allow it."""
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("The file is no longer a regular file.")
    if not status.st_size:
        raise SourceError("The file is now empty.")
    if why := describe_excess_size(status.st_size, found.max_size):
        raise SourceError(why)
    return found.with_status(status)


def _read_up_to(descriptor: int, size: int) -> bytes:
    """Read up to `size` bytes of a file.

    Network file systems and signals may end a single read early.
    """
    data = os.read(descriptor, size)
    # `size` is the expected length + 1: after size - 1 bytes the file is complete.
    while 0 < len(data) < size - 1:
        block = os.read(descriptor, size - len(data))
        if not block:
            break
        data += block
    return data


def _digest_up_to(descriptor: int, size: int, *, is_text: bool) -> tuple[int, bytes, int]:
    """Return length, digest and number of deleted characters of the first `size` bytes."""
    digest, deleted, length = hashlib.sha256(), DeletedCounter(), 0
    while length < size and (block := os.read(descriptor, min(BLOCK_SIZE, size - length))):
        length += len(block)
        digest.update(block)
        if is_text:
            deleted.add(block)
    return length, digest.digest(), deleted.count


def _is_text(file: FoundFile) -> bool:
    return file.as_text or file_extension(file.key) in TEXT_EXTENSIONS


def _changed() -> SourceChangedError:
    return SourceChangedError(
        "The file changed while it was read.", hint="Load it again once no program writes to it."
    )
