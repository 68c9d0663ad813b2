"""Group commit: what is written while a commit is under way goes into the next one.

A commit costs the processor as much as six rows, and its thread and the loop take the interpreter's
lock from each other (measured: with four files a commit, a load costs 1.3 times what it does with
eight). So those who come soon after one another wait for each other: on a server that answers at
once, all that are in flight share a commit. On one that takes 50 ms, nobody waits.
"""

from __future__ import annotations

import contextlib
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from attrs import define, field

if TYPE_CHECKING:
    import asyncio

PATIENCE = 0.002
"""Seconds that making the values of a commit may take: a small file in the page cache is read in
0.02 ms, and what is slower keeps others waiting."""

LATEST = 0.05
"""Seconds after which everything is committed, also what nobody waits for."""

GATHER = 0.001
"""Seconds. Who comes so soon after another, or after a commit, waits for more to come."""

TURNS = 5
"""Of the loop, in which what sockets have got reaches those who wait for it."""

Values = Sequence[Any]
Statement = str | Callable[[int], str]
"""SQL, or what writes it for so many rows, each of them with its key as the first value."""

Operation = tuple[Statement, Values | Callable[[], Values]]
"""A statement with its values, or with what makes them in the writing thread."""

Made = tuple[int, Statement, Values]
"""An operation whose values are there, with its place in the batch."""

MOST_ROWS = 16
"""Rows of one statement: `sqlite3` lets go of the interpreter's lock several times in each, and a
busy loop takes it (measured: of 32 in flight, 15 us less a file than row by row)."""


class LateError(Exception):
    """The values were not made, since those of others took too long."""


@define
class Batch:
    """Operations of one commit. `error` fails all of them, `refused` some, by their places: they
    broke a rule of the tables, or their values could not be made.
    """

    operations: list[Operation] = field(factory=list)
    waiting: int = 0
    ripe: bool = False
    done: anyio.Event = field(factory=anyio.Event)
    error: Exception | None = None
    refused: dict[int, Exception] = field(factory=dict)


class Writer:
    """The one thread that writes, a batch at a time; what comes meanwhile gathers in the next.

    Args:
        lock: keeps readers of the same connection out of a commit.
        company: how many may wait for a commit at a time; once all do, nobody else can come.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: threading.Lock,
        loop: asyncio.AbstractEventLoop,
        company: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._loop = loop
        self._company = company
        self._work: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._open: Batch | None = None
        self._closed = False
        self._busy = False
        self._latest = -math.inf
        self.failed: Exception | None = None
        """What the first commit that failed met."""
        self._thread = threading.Thread(target=self._main, name="dify-kb-journal", daemon=True)
        self._thread.start()

    def add(
        self, statement: Statement, values: Values | Callable[[], Values], *, soon: bool
    ) -> tuple[Batch, int]:
        """Have a statement executed, `soon` if somebody waits; the batch tells when it was.

        To be called in the loop thread.
        """
        with self._mutex:
            if self._closed:
                return _too_late(statement, values), 0
            batch = self._open = self._open or Batch()
            batch.operations.append((statement, values))
        place = len(batch.operations) - 1
        if not place:
            self._loop.call_later(LATEST, self._ripe, batch)
        if soon:
            self._gather(batch)
        return batch, place

    def close(self) -> None:
        """Commit what is left and end the thread; holds the caller until then. For any thread."""
        with self._mutex:
            self._closed = True
            batch, self._open = self._open, None
        if batch is not None:
            self._work.put(batch)
        self._work.put(None)
        self._thread.join()

    def _gather(self, batch: Batch) -> None:
        """Let one more wait for a batch, which is ripe once there is nobody to wait for."""
        batch.waiting += 1
        now = time.monotonic()
        alone, self._latest = now - self._latest > GATHER, now
        if batch.waiting >= self._company():
            self._ripe(batch)
        elif batch.waiting == 1:
            self._loop.call_soon(self._look, batch, TURNS, 1 if alone else 0)

    def _look(self, batch: Batch, turns: int, before: int) -> None:
        """Commit a batch for which nobody came while the loop took in what there was."""
        if batch.ripe:
            return
        if turns:
            self._loop.call_soon(self._look, batch, turns - 1, before)
        elif batch.waiting == before and not self._busy:
            self._ripe(batch)
        else:
            self._loop.call_later(GATHER, self._look, batch, TURNS, batch.waiting)

    def _ripe(self, batch: Batch) -> None:
        batch.ripe = True
        self._hand_over()

    def _hand_over(self) -> None:
        """Give the thread the open batch, if both are ready."""
        with self._mutex:
            batch = self._open
            if self._busy or batch is None or not batch.ripe:
                return
            self._open, self._busy = None, True
        self._work.put(batch)

    def _committed(self, batch: Batch) -> None:
        batch.done.set()
        self._busy, self._latest = False, time.monotonic()
        self._hand_over()

    def _main(self) -> None:
        while (batch := self._work.get()) is not None:
            try:
                made = _made(batch)
                with self._lock:
                    self._commit(batch, made)
            except Exception as error:  # noqa: BLE001 -- else all who wait would wait for ever
                batch.error = error
                self.failed = self.failed or error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._committed, batch)

    def _commit(self, batch: Batch, made: Iterable[Made]) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for statement, rows in joined(made):
                try:
                    run(_sql(statement, len(rows)), [value for row in rows for value in row[1]])
                except sqlite3.IntegrityError:  # all of them are undone
                    self._one_by_one(batch, statement, rows)
            run("COMMIT")
        except Exception:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def _one_by_one(
        self, batch: Batch, statement: Statement, rows: Sequence[tuple[int, Values]]
    ) -> None:
        for place, values in rows:
            try:
                self._connection.execute(_sql(statement, 1), values)
            except sqlite3.IntegrityError as error:
                batch.refused[place] = error


def _sql(statement: Statement, rows: int) -> str:
    return statement if isinstance(statement, str) else statement(rows)


def joined(made: Iterable[Made]) -> Iterator[tuple[Statement, list[tuple[int, Values]]]]:
    """Join rows of one statement; operations with the same key keep their order. Pure."""
    groups: dict[Statement, list[tuple[int, Values]]] = {}
    keys = set[Any]()
    for place, statement, values in made:
        alone = isinstance(statement, str)
        if alone or values[0] in keys:
            yield from groups.items()
            groups, keys = {}, set()
        if alone:
            yield statement, [(place, values)]
            continue
        rows = groups.setdefault(statement, [])
        rows.append((place, values))
        keys.add(values[0])
        if len(rows) == MOST_ROWS:
            yield statement, groups.pop(statement)
    yield from groups.items()


def _made(batch: Batch) -> Iterable[Made]:
    """Make the values of a batch, and give its operations with their places."""
    made: list[Made] = []
    until = time.monotonic() + PATIENCE
    for place, (statement, values) in enumerate(batch.operations):
        if not callable(values):
            made.append((place, statement, values))
        elif time.monotonic() > until:
            batch.refused[place] = LateError()
        else:
            try:
                made.append((place, statement, values()))
            except Exception as error:  # noqa: BLE001 -- raised where it was asked for
                batch.refused[place] = error
    return made


def _too_late(statement: Statement, values: Values | Callable[[], Values]) -> Batch:
    batch = Batch([(statement, values)], error=sqlite3.ProgrammingError("it is closed"))
    batch.done.set()
    return batch
