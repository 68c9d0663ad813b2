"""Group commit: what is written while a commit is under way goes into the next one."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from attrs import define, field

if TYPE_CHECKING:
    import asyncio

PATIENCE = 0.002
"""Seconds that making the values of a commit may take: a small file in the page cache is read in
0.02 ms, and what is slower keeps others waiting."""

LATEST = 0.05
"""Seconds after which everything is committed. What nobody waits for alone shares a commit, since
each costs the processor as much as four rows (measured)."""

Values = Sequence[Any]
Operation = tuple[str, Values | Callable[[], Values]]
"""A statement with its values, or with what makes them in the writing thread."""


class LateError(Exception):
    """The values were not made, since those of others took too long."""


@define
class Batch:
    """Operations of one commit. `error` fails all of them, `refused` some, by their places: they
    broke a rule of the tables, or their values could not be made.
    """

    operations: list[Operation] = field(factory=list)
    soon: bool = False
    ripe: bool = False
    done: anyio.Event = field(factory=anyio.Event)
    error: Exception | None = None
    refused: dict[int, Exception] = field(factory=dict)


class Writer:
    """The one thread that writes. `lock` keeps readers of the same connection out of a commit."""

    def __init__(
        self, connection: sqlite3.Connection, lock: threading.Lock, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._loop = loop
        self._open: Batch | None = None
        self._wanted = threading.Condition()
        self._closing = False
        self.failed: Exception | None = None
        """What the first commit that failed met."""
        self._thread = threading.Thread(target=self._main, name="dify-kb-journal", daemon=True)
        self._thread.start()

    def add(
        self, sql: str, values: Values | Callable[[], Values], *, soon: bool
    ) -> tuple[Batch, int]:
        """Have a statement executed, at once if `soon`; the batch tells when it is committed.

        To be called in the loop thread.
        """
        with self._wanted:
            if self._closing:
                return _too_late(sql, values), 0
            batch = self._open = self._open or Batch()
            batch.operations.append((sql, values))
            place = len(batch.operations) - 1
        if not place:
            self._loop.call_later(LATEST, self._ripe, batch)
        if soon and not batch.soon:
            batch.soon = True
            # What the same turn of the loop, or the next one, asks for shares the commit.
            self._loop.call_soon(self._loop.call_soon, self._ripe, batch)
        return batch, place

    def close(self) -> None:
        """Commit what is left and end the thread; holds the caller until then."""
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        self._thread.join()

    def _main(self) -> None:
        while (batch := self._next()) is not None:
            try:
                made = _made(batch)
                with self._lock:
                    self._commit(batch, made)
            except Exception as error:  # noqa: BLE001 -- else all who wait would wait for ever
                batch.error = error
                self.failed = self.failed or error
            self._tell(batch.done.set)

    def _ripe(self, batch: Batch) -> None:
        """Have a batch committed as soon as the thread has nothing else to do."""
        with self._wanted:
            batch.ripe = True
            if batch is self._open:
                self._wanted.notify()

    def _next(self) -> Batch | None:
        with self._wanted:
            self._wanted.wait_for(lambda: self._closing or (self._open and self._open.ripe))
            batch, self._open = self._open, None
        return batch

    def _commit(self, batch: Batch, made: Iterable[tuple[int, str, Values]]) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for place, sql, values in made:
                try:
                    run(sql, values)
                except sqlite3.IntegrityError as error:  # that statement alone is undone
                    batch.refused[place] = error
            run("COMMIT")
        except Exception:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def _tell(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(callback)


def _made(batch: Batch) -> Iterable[tuple[int, str, Values]]:
    """Make the values of a batch, and give its operations with their places."""
    made: list[tuple[int, str, Values]] = []
    until = time.monotonic() + PATIENCE
    for place, (sql, values) in enumerate(batch.operations):
        if not callable(values):
            made.append((place, sql, values))
        elif time.monotonic() > until:
            batch.refused[place] = LateError()
        else:
            try:
                made.append((place, sql, values()))
            except Exception as error:  # noqa: BLE001 -- raised where it was asked for
                batch.refused[place] = error
    return made


def _too_late(sql: str, values: Values | Callable[[], Values]) -> Batch:
    batch = Batch([(sql, values)], error=sqlite3.ProgrammingError("it is closed"))
    batch.done.set()
    return batch
