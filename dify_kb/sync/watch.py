"""Repeat a sync: as files change, or at intervals."""

from __future__ import annotations

import logging
import os
import threading
import time
import unicodedata
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from dify_kb.errors import ConfigError
from dify_kb.ingest.load import raise_single_error
from dify_kb.ingest.sources.iter_in_thread import iter_in_thread

if TYPE_CHECKING:
    from watchfiles.main import FileChange

_logger = logging.getLogger(__name__)

QUIET_TIME = 1.0
"""Seconds without a change before a sync."""

MAX_WAIT = 10.0
"""Seconds from the first change to a sync, if changes do not end."""

DELETE_DELAY = 10.0
"""Seconds that a file must be gone before its document is deleted: editors save by rename."""

FIRST_RETRY, MAX_RETRY = 5.0, 300.0
"""Seconds before a failed sync is repeated: doubled with each further failure, but after a change
`FIRST_RETRY`."""

CHECK_INTERVAL = 1000
"""Milliseconds between checks whether a watched folder was removed or mounted."""

POLL_INTERVAL = 2000
"""Milliseconds between looks at all files, with `poll`."""

DEBOUNCE = 200
"""Milliseconds for which the system's events are collected."""


@define
class SyncSchedule:
    """The times at which a watched source is synced. Pure; times are those of a monotonic clock.

    A sync is due at the start, `quiet_time` after the last change, `rescan` seconds after the
    previous sync, and when files have been gone for `delete_delay`. As each sync scans the whole
    source, lost events delay a change, but lose none. A sync is followed by a pause that is at
    least as long as the sync.
    """

    rescan: float
    quiet_time: float = QUIET_TIME
    max_wait: float = MAX_WAIT
    delete_delay: float = DELETE_DELAY
    first_retry: float = FIRST_RETRY
    _due: float | None = 0.0
    _first_change: float | None = None
    _last_change: float = 0.0
    _begun: float = 0.0
    _earliest: float = 0.0
    _failures: int = 0
    _gone: dict[str, float] = field(factory=dict)
    """When files were first seen to be gone, by key."""

    _asked: dict[str, float] = field(factory=dict)
    _touched: set[str] = field(factory=set)
    """The names of files that have changed since the last sync began, without their folders."""

    def record_change(self, now: float, paths: Iterable[str] = ()) -> None:
        """Record that files have changed: a file that was gone may have been back meanwhile."""
        self._touched.update(map(_get_name, paths))
        if self._first_change is None:
            self._first_change = now
        self._last_change = now

    def due_at(self) -> float:
        """Return when the next sync is due."""
        times = [self._begun + self.rescan] if self._due is None else [self._due]
        times += [
            since + self.delete_delay
            for since in self._gone.values()
            if since + self.delete_delay > self._begun
        ]
        if self._first_change is not None:
            times.append(
                min(self._last_change + self.quiet_time, self._first_change + self.max_wait)
            )
        return max(min(times), self._earliest)

    def begin(self, now: float) -> None:
        """Record the start of a sync."""
        self._begun, self._due, self._first_change, self._asked = now, None, None, {}
        self._gone = {
            key: since for key, since in self._gone.items() if _get_name(key) not in self._touched
        }
        self._touched = set()

    def may_delete(self, key: str) -> bool:
        """Return whether a file that the current sync misses has been gone for long enough."""
        since = self._asked.setdefault(key, self._gone.get(key, self._begun))
        has_been_long = self._begun >= since + self.delete_delay
        return has_been_long and _get_name(key) not in self._touched

    def finish(self, now: float, *, succeeded: bool) -> None:
        """Record the end of a sync; one that failed is repeated."""
        if succeeded:
            self._gone, self._failures = self._asked, 0
            self._earliest = now + (now - self._begun)
            return
        self._gone = {**self._gone, **self._asked}
        self._due = now + min(self.first_retry * 2**self._failures, MAX_RETRY)
        self._earliest = now + self.first_retry
        self._failures = min(self._failures + 1, 10)


@define(kw_only=True)
class SourceWatcher:
    """Reports changes of files below some paths, also while these are missing or replaced."""

    paths: Sequence[str]
    on_change: Callable[[Iterable[str]], None]
    """Called with the paths of the files that have changed, as far as they are known."""

    poll: bool = False
    """Whether to look for changes instead of waiting for events, as network shares require."""

    ignored: Collection[Path] = ()
    """Files whose changes are not reported, with those whose names begin alike."""

    def check(self) -> None:
        """Check that files can be watched.

        Raises:
            ConfigError: the package watchfiles is not installed.
        """
        try:
            import watchfiles  # noqa: F401 -- installed with the extra
        except ImportError:
            raise ConfigError(
                "--watch requires the package watchfiles.", hint="pip install 'dify-kb[watch]'"
            ) from None

    async def run(self) -> None:
        """Report changes until cancelled."""
        while True:
            stop = threading.Event()
            before = await anyio.to_thread.run_sync(self._identify)
            try:
                await self._report_changes(before, stop)
            except FileNotFoundError:
                pass
            except (OSError, RuntimeError) as error:  # such as the limit of watches
                if not self.poll:
                    _logger.warning("Cannot receive events of files, polling instead: %s", error)
                self.poll = True
            finally:
                stop.set()
            await anyio.sleep(CHECK_INTERVAL / 1000)
            self.on_change(())

    async def _report_changes(self, before: object, stop: threading.Event) -> None:
        """Report changes until a watched path was replaced."""
        has_started = False
        async for batches in iter_in_thread(self._iter_changes(stop), lambda _: 0):
            # The first result shows that events are received from now on.
            if any(batches) or not has_started:
                self.on_change([path for changes in batches for _, path in changes])
            has_started = True
            if await anyio.to_thread.run_sync(self._identify) != before:
                return

    def _iter_changes(self, stop: threading.Event) -> Iterator[set[FileChange]]:
        """Yield sets of changes, and empty ones every `CHECK_INTERVAL`. Blocking."""
        from watchfiles import watch

        return watch(
            *self.paths,
            watch_filter=lambda _, path: not self._is_ignored(path),
            debounce=DEBOUNCE,
            stop_event=stop,
            rust_timeout=CHECK_INTERVAL,
            yield_on_timeout=True,
            force_polling=self.poll,
            poll_delay_ms=POLL_INTERVAL,
            ignore_permission_denied=True,
            raise_interrupt=False,
        )

    def _is_ignored(self, path: str) -> bool:
        return ".git" in Path(path).parts or any(path.startswith(str(own)) for own in self.ignored)

    def _identify(self) -> Sequence[tuple[int, int] | None]:
        """Return what changes when a path is removed, created or mounted. Blocking."""
        return [_identify(path) for path in self.paths]


async def watch_source(
    schedule: SyncSchedule,
    watcher: SourceWatcher,
    run_sync: Callable[[], Awaitable[bool]],
) -> None:
    """Sync whenever the schedule says so, until cancelled.

    Args:
        run_sync: syncs, and returns whether that succeeded.
    """
    wake = anyio.Event()

    def record_change(paths: Iterable[str]) -> None:
        schedule.record_change(time.monotonic(), paths)
        wake.set()

    watcher.on_change = record_change
    with raise_single_error():
        async with anyio.create_task_group() as group:
            group.start_soon(watcher.run)
            while True:
                while (delay := schedule.due_at() - time.monotonic()) > 0:
                    wake = anyio.Event()
                    with anyio.move_on_after(delay):
                        await wake.wait()
                schedule.begin(time.monotonic())
                succeeded = await run_sync()
                schedule.finish(time.monotonic(), succeeded=succeeded)


async def repeat_sync(
    run_sync: Callable[[], Awaitable[bool]],
    interval: float,
    *,
    random: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Sync at an interval that varies by 10 %, so that machines do not stay in step."""
    while True:
        await run_sync()
        await sleep(interval * (0.9 + 0.2 * random()))


def _get_name(path: str) -> str:
    """Return the name of a file in the Unicode form of keys."""
    return unicodedata.normalize("NFC", os.path.basename(path))  # noqa: PTH119 -- or a key


def _identify(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 -- any kind of path
    except OSError:
        return None
    return status.st_dev, status.st_ino
