"""Detect unchanged files by their times and inode, without reading them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from .found_file import FoundFile

RACY = 2.0
"""Seconds. A file modified less than this before it was read may change again without a change of
its times: FAT has a resolution of 2 s, other file systems one of milliseconds."""


@frozen
class FileStamp:
    """The times and the inode of a file when it was read.

    A copy that preserves the modification time has a different ctime; a file renamed over another
    has a different inode.
    """

    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_of(found: FoundFile) -> FileStamp | None:
    """Return the stamp of a found file; None for data in memory, or if a time is missing."""
    if found.mtime_ns is None or found.ctime_ns is None or found.inode is None:
        return None
    return FileStamp(found.mtime_ns, found.ctime_ns, found.inode)


def settled_stamp(found: FoundFile, read_at: float | None = None) -> FileStamp | None:
    """Return the stamp of a file that was read; None if a later change might not change it.

    Args:
        read_at: when the file was read, in seconds since the epoch; default: now.
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

    False if any of them is missing. The caller compares the size.
    """
    stamp = stamp_of(found)
    return stamp is not None and (stamp.mtime_ns, stamp.ctime_ns, stamp.inode) == (
        mtime_ns,
        ctime_ns,
        inode,
    )
