"""Recognize a file as unchanged by its times and inode, without reading it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from .found_file import FoundFile

RACY = 2.0
"""Seconds. A file that changed so shortly before it was read may change again and keep its times:
FAT counts them in steps of 2 s, others in some milliseconds."""


@frozen
class FileStamp:
    """The times and the inode that a file had when it was read.

    A copy that preserves the modification time has another ctime; a file renamed over another has
    another inode.
    """

    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_of(found: FoundFile) -> FileStamp | None:
    """Return the stamp of a found file; None of data in memory, and where a time is missing."""
    if found.mtime_ns is None or found.ctime_ns is None or found.inode is None:
        return None
    return FileStamp(found.mtime_ns, found.ctime_ns, found.inode)


def settled_stamp(found: FoundFile, read_at: float | None = None) -> FileStamp | None:
    """Return the stamp of a file that was read; None if a change since might not show in it.

    Args:
        read_at: when it was read, in seconds since the epoch; by default now.
    """
    stamp = stamp_of(found)
    if stamp is None:
        return None
    changed_at = max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
    return None if (time.time() if read_at is None else read_at) - changed_at < RACY else stamp


def is_same_stamp(
    found: FoundFile, mtime_ns: int | None, ctime_ns: int | None, inode: int | None
) -> bool:
    """Return whether a found file has exactly these times and this inode.

    False where one of them is missing on either side. The caller compares the size.
    """
    stamp = stamp_of(found)
    return stamp is not None and (stamp.mtime_ns, stamp.ctime_ns, stamp.inode) == (
        mtime_ns,
        ctime_ns,
        inode,
    )
