"""Batches of journal writes: compute the values, group them into statements, commit them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import anyio
from attrs import define, field

PATIENCE = 0.002
"""Maximum seconds for computing the values of a commit. A small file in the page cache is read in
0.02 ms; slower ones would delay all other writes."""

Values = Sequence[Any]
Statement = str | Callable[[int], str]
"""SQL, or a function from the number of rows to SQL; the first value of each row is its key."""

Operation = tuple[Statement, Values | Callable[[], Values]]
"""A statement with its values, or with a function that computes them in the journal's thread."""

Evaluated = tuple[int, Statement, Values]
"""An operation with computed values, and its position in the batch."""

MAX_ROWS = 16
"""Maximum rows of a statement. `sqlite3` releases the GIL several times per statement, and a busy
event loop acquires it (measured with 32 in flight: 15 us less per file than row by row)."""


class LateError(Exception):
    """The values were not computed because those of other writes took too long."""


@define
class Batch:
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


def create_closed_batch(statement: Statement, values: Values | Callable[[], Values]) -> Batch:
    """Return a batch that failed because the journal is closed."""
    batch = Batch([(statement, values)], error=sqlite3.ProgrammingError("already closed"))
    batch.done.set()
    return batch


def evaluate_batch(batch: Batch) -> Sequence[Evaluated]:
    """Compute the values of a batch; return its operations with their positions."""
    evaluated: list[Evaluated] = []
    until = time.monotonic() + PATIENCE
    for position, (statement, values) in enumerate(batch.operations):
        if not callable(values):
            evaluated.append((position, statement, values))
        elif time.monotonic() > until:
            batch.refused[position] = LateError()
        else:
            try:
                evaluated.append((position, statement, values()))
            except Exception as error:  # noqa: BLE001 -- raised by `JournalDatabase.commit`
                batch.refused[position] = error
    return evaluated


def commit_batch(
    connection: sqlite3.Connection, batch: Batch, evaluated: Iterable[Evaluated]
) -> None:
    """Commit the evaluated operations of a batch; record those that violate a constraint.

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
    batch: Batch,
    statement: Statement,
    rows: Sequence[tuple[int, Values]],
) -> None:
    for position, values in rows:
        try:
            connection.execute(_sql(statement, 1), values)
        except sqlite3.IntegrityError as error:
            batch.refused[position] = error


def group_rows(
    evaluated: Iterable[Evaluated],
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
