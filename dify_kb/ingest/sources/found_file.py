"""A file found by a scan, with the size, times and inode that detect later changes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from attrs import evolve, field, frozen

from dify_kb.models import MAX_FILE_SIZE

from .document_names import document_name


@frozen(kw_only=True)
class FoundFile:
    """A file to load: at `path`, or with its `data` in memory.

    `key` is the path relative to the root, with `/`; `path` is the path on disk. `size` and
    `max_size`, the size limit, are in bytes. Times and inode are None for data in memory; times
    that exceed 64 bits are None. `metadata` is that of the item. `unsupported_by_default` is True
    if servers accept the extension only with `ETL_TYPE=Unstructured`.
    """

    key: str
    size: int
    path: str | os.PathLike[str] | None = None
    data: bytes | None = field(default=None, repr=False)
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None
    as_text: bool = False
    unsupported_by_default: bool = False
    metadata: Mapping[str, object] | None = None
    max_size: int = MAX_FILE_SIZE

    @property
    def name(self) -> str:
        """The name of the document."""
        return document_name(self.key, as_text=self.as_text)

    def with_status(self, status: os.stat_result) -> FoundFile:
        """Return a copy with the size, times and inode of `status`."""
        mtime, ctime, inode = stamp_fields(status)
        now = (status.st_size, mtime, ctime, inode)
        if now == (self.size, self.mtime_ns, self.ctime_ns, self.inode):
            return self
        return evolve(self, size=status.st_size, mtime_ns=mtime, ctime_ns=ctime, inode=inode)


def stamp_fields(status: os.stat_result) -> tuple[int | None, int | None, int]:
    """Return mtime, ctime and inode as signed 64-bit integers for the journal.

    A time after the year 2262 is None; an inode above 2**63 becomes negative with the same bits.
    """
    mtime, ctime, inode = status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    return (
        mtime if -(2**63) <= mtime < 2**63 else None,
        ctime if -(2**63) <= ctime < 2**63 else None,
        inode if inode < 2**63 else inode - 2**64,
    )


def describe_excess_size(size: int, limit: int) -> str | None:
    """Return an error message if `size` exceeds `limit` (bytes), else None."""
    if size <= limit:
        return None
    return f"too large: {size / 2**20:.1f} of {limit / 2**20:g} MiB"


def describe_os_error(error: OSError | ValueError) -> str:
    """Return the error message of a failed system call without the path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


SETTLE_SECONDS = 2.0
"""Seconds. A file modified less than this before it was read may change again without changing its
times: FAT has a resolution of 2 s, other file systems of milliseconds."""


@frozen
class FileStamp:
    """The times and the inode of a file when it was read.

    A copy that preserves the modification time has a different ctime; a file renamed over another
    has a different inode.
    """

    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_from_file(found: FoundFile) -> FileStamp | None:
    """Return the stamp of a found file; None for data in memory, or if a time is missing."""
    if found.mtime_ns is None or found.ctime_ns is None or found.inode is None:
        return None
    return FileStamp(found.mtime_ns, found.ctime_ns, found.inode)


def settled_stamp(found: FoundFile, read_at: float | None = None) -> FileStamp | None:
    """Return the stamp of a file that was read; None if the file could change without changing it.

    Args:
        read_at: when the file was read, in seconds since the epoch; default: now.
    """
    stamp = stamp_from_file(found)
    if stamp is None:
        return None
    changed_at = max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
    return (
        None
        if (time.time() if read_at is None else read_at) - changed_at < SETTLE_SECONDS
        else stamp
    )


def is_same_stamp(
    found: FoundFile, mtime_ns: int | None, ctime_ns: int | None, inode: int | None
) -> bool:
    """Return whether a found file has exactly these times and this inode.

    False if any of these is None. The caller compares the size.
    """
    stamp = stamp_from_file(found)
    return stamp is not None and (stamp.mtime_ns, stamp.ctime_ns, stamp.inode) == (
        mtime_ns,
        ctime_ns,
        inode,
    )
