"""Group commit: writes that arrive during a commit share the next one.

A commit takes as much CPU time as six rows, and its thread competes with the event loop for the GIL
(measured: a load with four files per commit takes 1.3 times the CPU time of one with eight). Writes
that arrive close together therefore share one commit; with a fast server, those of all files in
flight. If the server takes 50 ms to respond, no write waits for another.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
from attrs import define, field

if TYPE_CHECKING:
    import asyncio

MAX_EVALUATION_SECONDS = 0.002
"""Maximum time to compute the values of a commit. A small file in the page cache is read in
0.02 ms; slower files would delay all other writes."""

Values = Sequence[Any]
Statement = str | Callable[[int], str]
"""SQL, or a function from the number of rows to SQL; the first value of each row is its key."""

Operation = tuple[Statement, Values | Callable[[], Values]]
"""A statement with its values, or with a function that computes them in the journal's thread."""

EvaluatedOperation = tuple[int, Statement, Values]
"""An operation with computed values, and its position in the batch."""

MAX_ROWS = 16
"""Maximum rows per statement. `sqlite3` releases the GIL several times per statement, and a busy
event loop acquires it (measured with 32 in flight: 15 us less per file than row by row)."""


class JournalBusyError(Exception):
    """Raised if values were not computed, because those of other writes took too long."""


@define
class CommitBatch:
    """The operations of one commit.

    `error` is the error of the commit. `refused` has the errors of single operations by position: a
    violated constraint, or a failure to compute the values.
    """

    operations: list[Operation] = field(factory=list)
    waiting: int = 0
    ready: bool = False
    done: anyio.Event = field(factory=anyio.Event)
    error: Exception | None = None
    refused: dict[int, Exception] = field(factory=dict)


def create_closed_batch(statement: Statement, values: Values | Callable[[], Values]) -> CommitBatch:
    """Return a batch that failed because the journal is closed."""
    batch = CommitBatch([(statement, values)], error=sqlite3.ProgrammingError("already closed"))
    batch.done.set()
    return batch


def evaluate_batch(batch: CommitBatch) -> Sequence[EvaluatedOperation]:
    """Compute the values of all operations; return those that succeeded, with their positions."""
    evaluated: list[EvaluatedOperation] = []
    until = time.monotonic() + MAX_EVALUATION_SECONDS
    for position, (statement, values) in enumerate(batch.operations):
        if not callable(values):
            evaluated.append((position, statement, values))
        elif time.monotonic() > until:
            batch.refused[position] = JournalBusyError()
        else:
            try:
                evaluated.append((position, statement, values()))
            except Exception as error:  # noqa: BLE001 -- raised by `JournalDatabase.commit`
                batch.refused[position] = error
    return evaluated


def commit_batch(
    connection: sqlite3.Connection, batch: CommitBatch, evaluated: Iterable[EvaluatedOperation]
) -> None:
    """Commit the evaluated operations of a batch; store constraint violations in `batch.refused`.

    Raises:
        sqlite3.Error: nothing was written.
    """
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    try:
        for statement, rows in group_rows(evaluated):
            try:
                execute(_sql(statement, len(rows)), [value for row in rows for value in row[1]])
            except sqlite3.IntegrityError:  # the whole statement is rolled back
                _execute_each(connection, batch, statement, rows)
        execute("COMMIT")
    except Exception:
        if connection.in_transaction:
            execute("ROLLBACK")
        raise


def _execute_each(
    connection: sqlite3.Connection,
    batch: CommitBatch,
    statement: Statement,
    rows: Sequence[tuple[int, Values]],
) -> None:
    for position, values in rows:
        try:
            connection.execute(_sql(statement, 1), values)
        except sqlite3.IntegrityError as error:
            batch.refused[position] = error


def group_rows(
    evaluated: Iterable[EvaluatedOperation],
) -> Iterator[tuple[Statement, list[tuple[int, Values]]]]:
    """Group the rows of equal statements; operations with the same key keep their order. Pure."""
    groups: dict[Statement, list[tuple[int, Values]]] = {}
    keys = set[Any]()
    for position, statement, values in evaluated:
        alone = isinstance(statement, str)
        if alone or values[0] in keys:
            yield from groups.items()
            groups, keys = {}, set()
        if alone:
            yield statement, [(position, values)]
            continue
        rows = groups.setdefault(statement, [])
        rows.append((position, values))
        keys.add(values[0])
        if len(rows) == MAX_ROWS:
            yield statement, groups.pop(statement)
    yield from groups.items()


def _sql(statement: Statement, rows: int) -> str:
    return statement if isinstance(statement, str) else statement(rows)


MAX_DELAY = 0.05
"""Seconds after which a batch is committed even if no task waits for it."""

GATHER_DELAY = 0.001
"""Seconds. A write that follows a write or a commit sooner than this waits for more writes."""

QUIET_ITERATIONS = 5
"""Iterations of the event loop until data received by sockets reaches the tasks."""

EXIT_TIMEOUT = 5.0
"""Seconds for which the process waits at exit for a journal that is being closed."""


class JournalThread:
    """The thread of a journal: opens the file, commits batches, closes the file.

    `close` returns immediately, so that it works in a cancelled task. `closed` is set once the file
    is closed, even if it was not open yet or could not be opened.

    Args:
        connect: opens the database; its exception is stored in `error`. Runs in the thread.
        release: runs last in the thread, in all cases.
        max_waiters: maximum number of tasks that can wait for a commit at the same time.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        release: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        max_waiters: Callable[[], int],
    ) -> None:
        self.connection_lock = threading.Lock()
        """Excludes reads during a commit and while the connection is closed."""
        self.connection: sqlite3.Connection
        """The connection, once `opened` is set without an error."""
        self.opened = anyio.Event()
        self.closed = anyio.Event()
        self.error: Exception | None = None
        """The error raised by opening the database, or by the first failed commit."""
        self.closing = False
        self._connect = connect
        self._release = release
        self._loop = loop
        self._max_waiters = max_waiters
        self._work: queue.SimpleQueue[CommitBatch | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._batch: CommitBatch | None = None
        self._busy = False
        self._latest = -math.inf
        self._thread = threading.Thread(target=self._main, name="dify-kb-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(
        self, statement: Statement, values: Values | Callable[[], Values], *, soon: bool
    ) -> tuple[CommitBatch, int]:
        """Add a statement to the next commit; `soon` if a task waits for it.

        Returns the batch and the position in it. Must be called in the loop thread.
        """
        with self._mutex:
            if self.closing:
                return create_closed_batch(statement, values), 0
            batch = self._batch = self._batch or CommitBatch()
            batch.operations.append((statement, values))
        position = len(batch.operations) - 1
        if not position:
            self._loop.call_later(MAX_DELAY, self._mark_ready, batch)
        if soon:
            self._add_waiter(batch)
        return batch, position

    def close(self) -> None:
        """Request a final commit and the closing of the file, without waiting. Thread-safe."""
        with self._mutex:
            if self.closing:
                return
            self.closing = True
            batch, self._batch = self._batch, None
        _closing_threads.add(self._thread)
        if batch is not None:
            self._work.put(batch)
        self._work.put(None)

    def join(self) -> None:
        """Wait for the thread to end; call it once `closed` is set."""
        self._thread.join()

    def _add_waiter(self, batch: CommitBatch) -> None:
        """Count a task that waits for a batch; commit the batch once no other task can join."""
        batch.waiting += 1
        now = time.monotonic()
        alone, self._latest = now - self._latest > GATHER_DELAY, now
        if batch.waiting >= self._max_waiters():
            self._mark_ready(batch)
        elif batch.waiting == 1:
            self._loop.call_soon(
                self._commit_when_quiet, batch, QUIET_ITERATIONS, 1 if alone else 0
            )

    def _commit_when_quiet(self, batch: CommitBatch, turns: int, before: int) -> None:
        """Commit a batch once no task has joined it for a few iterations of the event loop."""
        if batch.ready:
            return
        if turns:
            self._loop.call_soon(self._commit_when_quiet, batch, turns - 1, before)
        elif batch.waiting == before and not self._busy:
            self._mark_ready(batch)
        else:
            self._loop.call_later(
                GATHER_DELAY, self._commit_when_quiet, batch, QUIET_ITERATIONS, batch.waiting
            )

    def _mark_ready(self, batch: CommitBatch) -> None:
        batch.ready = True
        self._submit()

    def _submit(self) -> None:
        """Pass the batch to the thread, if both are ready."""
        with self._mutex:
            batch = self._batch
            if self._busy or batch is None or not batch.ready:
                return
            self._batch, self._busy = None, True
        self._work.put(batch)

    def _finish(self, batch: CommitBatch) -> None:
        batch.done.set()
        self._busy, self._latest = False, time.monotonic()
        self._submit()

    def _main(self) -> None:
        try:
            self._serve()
        finally:
            try:
                self._release()
            finally:
                self._call_in_loop(self.closed.set)

    def _serve(self) -> None:
        try:
            self.connection = self._connect()
        except Exception as error:  # noqa: BLE001 -- raised where `opened` is awaited
            self.error = error
            self._call_in_loop(self.opened.set)
            return
        self._call_in_loop(self.opened.set)
        self._commit_batches()
        with self.connection_lock:
            self.connection.close()

    def _commit_batches(self) -> None:
        while (batch := self._work.get()) is not None:
            try:
                evaluated = evaluate_batch(batch)
                with self.connection_lock:
                    commit_batch(self.connection, batch, evaluated)
            except Exception as error:  # noqa: BLE001 -- otherwise its waiters would never wake
                batch.error = error
                self.error = self.error or error
            self._call_in_loop(self._finish, batch)

    def _call_in_loop(self, call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: no task waits
            self._loop.call_soon_threadsafe(call, *args)


_closing_threads: WeakSet[threading.Thread] = WeakSet()


@atexit.register
def _wait_for_closing() -> None:
    """Wait for journals that are being closed, so that their last rows are committed."""
    for thread in tuple(_closing_threads):
        thread.join(EXIT_TIMEOUT)
