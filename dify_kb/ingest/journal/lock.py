"""Lock a journal for one load at a time, within this process and across processes.

The lock is a file lock of the operating system, released when its process dies.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from dify_kb.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNNING_TIMEOUT: Final = 1.0
"""Seconds to wait for another load of this process. A load left by `break` ends after a few
iterations of the event loop; a load that is still running after this time is an error."""

ENDING_TIMEOUT: Final = 60.0
"""Seconds to wait for a cancelled load of this process, whose requests may take 10 s."""

_POLL_INTERVAL: Final = 0.02
"""Seconds between two checks of whether the load that holds the lock ends; its release interrupts
the wait."""

_LOCKED_BYTE: Final = 1 << 30
"""Offset of the locked byte on Windows: after the content, which must stay readable."""

_HOST: Final = socket.gethostname()


class LockHolder(Protocol):
    """A load of this process that holds a lock, as seen from any thread."""

    @property
    def is_ending(self) -> bool:
        """Whether the load was cancelled or is about to release the lock."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        ...

    @property
    def is_loop_closed(self) -> bool:
        """Whether the event loop of the load is closed, so that it cannot end by itself."""
        ...

    def close(self) -> None:
        """Request the release of the lock."""
        ...


def lock_path(journal: Path) -> Path:
    """Return the path of the lock file of a journal; links to one journal share it."""
    return Path(f"{os.path.realpath(journal)}-lock")


def read_owner(journal: Path) -> tuple[int, str] | None:
    """Return process id and host of the load that locked a journal and did not release it."""
    try:
        owner = json.loads(lock_path(journal).read_text("utf-8"))
        return int(owner["pid"]), str(owner["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def journal_files(journal: Path) -> Sequence[Path]:
    """Return the paths of a journal and of its write-ahead log, which may not exist."""
    return [journal.with_name(f"{journal.name}{suffix}") for suffix in ("", "-wal", "-shm")]


def delete_journal(journal: Path) -> None:
    """Delete a journal that no load holds. Its lock file stays, as after each load. Blocking.

    Raises:
        JournalError: a load holds the journal, or it cannot be deleted.
    """
    try:
        lock = _try_acquire(journal, _Deletion())
        if lock is None:
            raise _in_use_error(journal, _describe_owner(read_owner(journal)))
        try:
            for file in journal_files(journal):
                file.unlink(missing_ok=True)
        finally:
            lock.release()
    except OSError as error:
        raise JournalError(
            f"The journal {journal} cannot be deleted: {(error.strerror or str(error)).lower()}.",
            hint="Check the permissions of its folder.",
        ) from error


def acquire_lock(journal: Path, holder: LockHolder) -> JournalLock:
    """Lock a journal for `holder`; wait for a load of this process that is ending. Blocking.

    Stops waiting when `holder` is closed.

    Raises:
        JournalError: another process, or another running load of this one, holds the journal.
        OSError: the file system does not support locks, or the folder cannot be written.
    """
    began = time.monotonic()
    foreign = False
    while (lock := _try_acquire(journal, holder)) is None:
        other = _find_own_lock(journal)
        if other is None:
            # Try twice: a load of this process may have locked it but not registered yet.
            if foreign:
                raise _in_use_error(journal, _describe_owner(read_owner(journal)))
            foreign = True
            time.sleep(_POLL_INTERVAL)
            continue
        foreign = False
        if other.holder.is_loop_closed:
            other.holder.close()
        limit = ENDING_TIMEOUT if other.holder.is_ending else RUNNING_TIMEOUT
        if holder.is_closed or time.monotonic() - began > limit:
            raise _in_use_error(journal, "another load of this process")
        other.released.wait(_POLL_INTERVAL)
    return lock


class _Deletion:
    """The holder of a lock while its journal is deleted."""

    is_ending = is_closed = is_loop_closed = False

    def close(self) -> None:
        """Ignore the request: a deletion ends by itself."""


class JournalLock:
    """The lock of a journal, held until `release`.

    The lock file is not deleted: that would be a race condition.
    """

    def __init__(self, descriptor: int, holder: LockHolder) -> None:
        self.holder = holder
        self.process = os.getpid()
        self.released = threading.Event()
        self._descriptor = descriptor
        _locks[_file_identity(os.fstat(descriptor))] = self
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps({"pid": self.process, "host": _HOST}).encode())

    def release(self) -> None:
        """Release the lock.

        Closing the file is not enough while a forked child process has it open. A child does not
        release the lock of its parent.
        """
        if os.getpid() == self.process:
            os.ftruncate(self._descriptor, 0)
            _unlock_file(self._descriptor)
        os.close(self._descriptor)
        self.released.set()


_locks: WeakValueDictionary[tuple[int, int], JournalLock] = WeakValueDictionary()
"""The locks of this process by device and inode of the lock file. Weak references: an explicit
removal would race with the load that registers the next lock."""


def _find_own_lock(journal: Path) -> JournalLock | None:
    """Return the lock that this process holds on a journal, ignoring locks inherited by a fork."""
    lock = _locks.get(_file_identity(lock_path(journal).stat()))
    if lock is None or lock.process != os.getpid() or lock.released.is_set():
        return None
    return lock


def _try_acquire(journal: Path, holder: LockHolder) -> JournalLock | None:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(lock_path(journal), flags, 0o666)
    try:
        if _lock_file(descriptor):
            return JournalLock(descriptor, holder)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _describe_owner(owner: tuple[int, str] | None) -> str:
    return "another process" if owner is None else f"process {owner[0]} on {owner[1]}"


def _in_use_error(journal: Path, owner: str) -> JournalError:
    return JournalError(
        f"The journal {journal} is in use by {owner}.",
        hint="Wait for that load to end, or pass another journal= (--journal).",
    )


def _file_identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lock_file(descriptor: int) -> bool:
    """Try to lock a file without waiting; return whether it is locked."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return _lock_byte(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_byte(descriptor: int) -> bool:
    import msvcrt

    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows
    except PermissionError:
        return False
    return True


def _unlock_file(descriptor: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]  # Windows
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
