"""A file found by a scan, with the size and token that detect later changes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import evolve, field, frozen

from dify_kb.arguments import format_size
from dify_kb.models import MAX_FILE_SIZE

from .document_names import document_name
from .file_source import FileSource, SourceEntry


@frozen(kw_only=True)
class FoundFile:
    """A file to load: at `path`, an `entry` of a `source`, or with its `data` in memory.

    `key` is the path relative to the root, with `/`; `path` is the path on disk. `size` and
    `max_size`, the size limit, are in bytes. `token` changes when the file changes; None for data
    in memory. `metadata` is that of the item. `unsupported_by_default` is True
    if servers accept the extension only with `ETL_TYPE=Unstructured`.
    """

    key: str
    size: int
    path: str | os.PathLike[str] | None = None
    data: bytes | None = field(default=None, repr=False)
    source: FileSource | None = field(default=None, repr=False)
    entry: SourceEntry | None = field(default=None, repr=False)
    mtime_ns: int | None = None
    token: str | None = None
    as_text: bool = False
    unsupported_by_default: bool = False
    metadata: Mapping[str, object] | None = None
    max_size: int = MAX_FILE_SIZE

    @property
    def can_be_read_again(self) -> bool:
        """Whether the content can be read at any time, other than data released from memory."""
        return self.path is not None or self.source is not None

    @property
    def name(self) -> str:
        """The name of the document."""
        return document_name(self.key, as_text=self.as_text)

    def with_status(self, status: os.stat_result) -> FoundFile:
        """Return a copy with the size, modification time and token of `status`."""
        token = make_token(status)
        if (status.st_size, token) == (self.size, self.token):
            return self
        return evolve(self, size=status.st_size, mtime_ns=status.st_mtime_ns, token=token)


def make_token(status: os.stat_result) -> str:
    """Return the change token of a file on disk: its times and its inode.

    A copy that preserves the modification time has a different ctime; a file renamed over another
    has a different inode.
    """
    return f"{status.st_mtime_ns}.{status.st_ctime_ns}.{status.st_ino}"


def settled_token(status: os.stat_result, read_at: float) -> str | None:
    """Return the token of a file that was read; None if the file could change without changing it.

    Args:
        read_at: when the file was read, in seconds since the epoch.
    """
    changed_at = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
    return None if read_at - changed_at < SETTLE_SECONDS else make_token(status)


def describe_excess_size(size: int, limit: int) -> str | None:
    """Return an error message if `size` exceeds `limit` (bytes), else None."""
    if size <= limit:
        return None
    return f"too large: {format_size(size)}, more than {format_size(limit)}"


def describe_os_error(error: OSError | ValueError) -> str:
    """Return the error message of a failed system call without the path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


SETTLE_SECONDS = 2.0
"""Seconds. A file modified less than this before it was read may change again without changing its
times: FAT has a resolution of 2 s, other file systems of milliseconds."""
