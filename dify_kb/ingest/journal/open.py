"""Open a journal for a run, and close it even if the load is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from dify_kb.errors import JournalError

from . import journal_database
from .group_commit import JournalThread
from .journal import Journal
from .lock import JournalLock, acquire_lock

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

CLOSE_TIMEOUT: Final = 10.0
"""Seconds to wait for the last commit. After that it continues in its thread, and the next load
waits for it."""


@asynccontextmanager
async def open_journal(
    path: Path | None,
    identity: Mapping[str, str],
    *,
    copy: bool = False,
    max_waiters: Callable[[], int] = lambda: 1,
) -> AsyncIterator[Journal]:
    """Open a journal for a run; without a path, in memory.

    Waits for a cancelled load of the same process that still holds the journal. The file is closed
    and the lock released even if this task is cancelled repeatedly.

    Args:
        copy: work on a copy in memory; the file is not changed.
        max_waiters: maximum number of tasks that wait for `Journal.record_intent` at the same time;
            once all wait, the batch is committed immediately.

    Raises:
        JournalError: another load holds the journal, or it is damaged, of another version or not
            writable.
        ConfigError: the journal belongs to another server, dataset or source.
    """
    handle = _JournalHandle(path, max_waiters, copy=copy)
    handle.start()
    can_wait = True
    try:
        journal = await handle.wait()
        await journal.begin_run(identity)
        yield journal
    except GeneratorExit:  # a coroutine that is garbage-collected must not await
        can_wait = False
        raise
    finally:
        # Before the first await, which a second cancellation would interrupt.
        handle.close()
        if can_wait:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await handle.wait_closed()


class _JournalHandle:
    """A journal that is opened and closed in its own thread.

    Neither step depends on the task of the load, which can be cancelled at any await.
    """

    def __init__(self, path: Path | None, max_waiters: Callable[[], int], *, copy: bool) -> None:
        self._file = None if copy else path
        self._original = path if copy else None
        self._loop = asyncio.get_running_loop()
        self._load_task = asyncio.current_task()
        self._cancellations = self._count_cancellations()
        self._writer = JournalThread(self._connect, self._release, self._loop, max_waiters)
        self._lock: JournalLock | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the load was cancelled, has ended or is closing the journal."""
        return (
            self.is_closed
            or self._load_task is None
            or self._load_task.done()
            or self._count_cancellations() > self._cancellations
        )

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._writer.closing

    @property
    def is_loop_closed(self) -> bool:
        """Whether the event loop of the load is closed, so that it cannot end by itself."""
        return self._loop.is_closed()

    def start(self) -> None:
        """Start opening the file."""
        self._writer.start()

    async def wait(self) -> Journal:
        """Wait until the file is open, and return its journal."""
        await self._writer.opened.wait()
        if self._writer.error is not None:
            raise self._writer.error
        return Journal(self._writer, self._file)

    def close(self) -> None:
        """Request closing the file and releasing the lock, without waiting. Thread-safe."""
        self._writer.close()

    async def wait_closed(self) -> None:
        """Wait until the file is closed and the lock released."""
        await self._writer.closed.wait()
        self._writer.join()  # the thread has nothing left to do

    def _count_cancellations(self) -> int:
        return 0 if self._load_task is None else self._load_task.cancelling()

    def _connect(self) -> sqlite3.Connection:
        if self._file is not None:
            self._lock = self._acquire(self._file)
        return journal_database.connect_journal(self._file, self._original)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _acquire(self, path: Path) -> JournalLock:
        journal_database.require_journal(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return acquire_lock(path, self)
        except OSError as error:
            raise JournalError(
                f"The journal {path} cannot be used: {(error.strerror or str(error)).lower()}.",
                hint="Pass a writable path with journal= (--journal). Nothing was sent.",
            ) from error
