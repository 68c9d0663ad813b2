"""The memory of loads in SQLite: what was intended, sent, accepted and seen indexed."""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import sqlite3
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import attrs

from dify_kb.errors import ConfigError, JournalError
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import IndexingStatus

from . import schema
from .lock import Lock
from .rows import COLUMNS, Row, State, row_of, stored, told
from .writer import LateError, Statement, Values, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Journal", "LateError", "Row", "State", "failures", "opened", "schema"]

_RUNS: Final = 5
"""Runs whose failures are kept."""

_KNOWN: Final = "SELECT count(*) FROM item WHERE document_id IS NOT NULL AND state != 'sending'"


def _slots(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@functools.cache
def _intend(rows: int) -> str:
    return f"""
        INSERT INTO item ({", ".join(COLUMNS)}) VALUES {_slots(len(COLUMNS), rows)}
        ON CONFLICT (key) DO UPDATE SET name = excluded.name, size = excluded.size,
            mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
            content = excluded.content, rule = excluded.rule,
            labels = excluded.labels, state = excluded.state, attempts = excluded.attempts,
            sent_at = excluded.sent_at, previous = excluded.previous, reason = NULL
    """  # noqa: S608 -- own names


def _update(*columns: str) -> Callable[[int], str]:
    """Write the change of these columns, of rows that are told by their keys."""
    names = ", ".join(columns)

    @functools.cache
    def sql(rows: int) -> str:
        return f"""
            WITH given (key, {names}) AS (VALUES {_slots(1 + len(columns), rows)})
            UPDATE item SET ({names}) = (SELECT {names} FROM given WHERE given.key = item.key)
            WHERE key IN (SELECT key FROM given)
        """  # noqa: S608 -- own names

    return sql


_accept = _update("state", "document_id", "batch", "upload_file_id")
_end = _update("state", "reason", "labels")

_REMOTE: Final = "INSERT OR REPLACE INTO remote VALUES (?, ?, ?, ?, ?, ?, ?)"
_RESULTS: Final = (
    "SELECT number, result FROM result WHERE run = ? AND held = ? AND number > ?"
    " ORDER BY number LIMIT 200"
)


class NameTakenError(Exception):
    """Another file of the journal has the name of this one's document."""


class Journal:
    """One open journal. What is awaited is on the disk when it returns, the rest within 50 ms.

    Methods that are not coroutines and read hold their thread for a commit at most.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        loop: asyncio.AbstractEventLoop,
        company: Callable[[], int],
    ) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._writer = Writer(connection, self._lock, loop, company)
        self.run = 0

    def rows(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Tell what is remembered of these keys."""
        slots = ", ".join("?" * len(keys))
        sql = f"SELECT {', '.join(COLUMNS)} FROM item WHERE key IN ({slots})"  # noqa: S608 -- slots
        rows = [row_of(tuple(row)) for row in self._all(sql, keys)]
        return {row.key: row for row in rows}

    def known(self) -> int:
        """Count the documents that the server is known to have."""
        return int(self._value(_KNOWN))

    def unsettled(self) -> int:
        """Count the files of which the server may have a document that is not known."""
        return int(self._value("SELECT count(*) FROM item WHERE state = 'sending'"))

    def unsettled_names(self) -> Sequence[str]:
        """Tell the names of their documents."""
        sql = "SELECT name FROM item WHERE state = 'sending'"
        return [told(row["name"]) for row in self._all(sql, ())]

    def note_remote(self, documents: Iterable[tuple[str, RemoteDocument]]) -> None:
        """Keep for this run what the knowledge base holds, by name."""
        values = [_values_of(name, remote) for name, remote in documents]
        with schema.translated(self.path), self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(_REMOTE, values)

    def forget_remote(self) -> None:
        """Forget what the knowledge base held, to learn it anew."""
        with schema.translated(self.path), self._lock:
            self._connection.execute("DELETE FROM remote")

    def remote_by_id(self, document_ids: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Tell what the knowledge base held of these documents."""
        slots = ", ".join("?" * len(document_ids))
        sql = f"SELECT * FROM remote WHERE document_id IN ({slots})"  # noqa: S608 -- slots
        return {row["document_id"]: _remote_of(row) for row in self._all(sql, document_ids)}

    def twins(self, names: Sequence[str]) -> Mapping[str, int]:
        """Count the documents of those of these names that several have."""
        slots = ", ".join("?" * len(names))
        sql = (
            f"SELECT name, count(*) AS number FROM remote WHERE name IN ({slots})"  # noqa: S608 -- slots
            " GROUP BY name HAVING number > 1"
        )
        return {row["name"]: row["number"] for row in self._all(sql, names)}

    def remote(self, names: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Tell what the knowledge base held of these names; of several, an enabled one, which a
        create would replace.
        """
        slots = ", ".join("?" * len(names))
        sql = f"SELECT * FROM remote WHERE name IN ({slots}) ORDER BY enabled, place DESC"  # noqa: S608 -- slots
        return {row["name"]: _remote_of(row) for row in self._all(sql, names)}

    async def intend(self, row: Row | Callable[[], Row]) -> None:
        """Note that a file is about to be sent.

        Args:
            row: what to note, or what makes it in the journal's thread: reading a small file and
                noting it is one hop then. What that raises is raised here.

        Raises:
            NameTakenError: another key has its name.
            LateError: others kept the journal's thread for too long, so it was not made.
            JournalError: it could not be written, so nothing may be sent.
        """
        if isinstance(row, Row):
            await self._written(_intend, _values(row))
        else:
            await self._written(_intend, lambda: _values(row()))

    def accept(
        self, key: str, document_id: str, batch: str | None, upload_file_id: str | None
    ) -> None:
        """Note that the server has a document. What dies before that is written looks for it."""
        self._add(_accept, key, State.ACCEPTED, document_id, batch, upload_file_id)

    def end(self, key: str, state: State, *, reason: str | None = None, labels: str = "") -> None:
        """Note how far a file got."""
        self._add(_end, key, state, reason, labels)

    def touched(
        self, key: str, mtime_ns: int | None, ctime_ns: int | None = None, inode: int | None = None
    ) -> None:
        """Record new times and inode of a file whose content did not change."""
        sql = "UPDATE item SET mtime_ns = ?, ctime_ns = ?, inode = ? WHERE key = ?"
        self._add(sql, mtime_ns, ctime_ns, inode, key)

    def keep(self, result: ItemResult, *, held: bool = False) -> None:
        """Keep a result that makes the report False, or hold a good one that is to be verified."""
        sql = "INSERT INTO result (run, held, result) VALUES (?, ?, ?)"
        self._add(sql, self.run, held, json.dumps(attrs.asdict(result)))

    def held(self) -> Iterator[Sequence[ItemResult]]:
        """Give the results that are to be verified, many at a time."""
        return _results(self._all, self.run, held=True)

    async def flush(self) -> None:
        """Wait until everything that was noted is on the disk.

        Raises:
            JournalError: it could not be written.
        """
        await self._written("UPDATE run SET ended = NULL WHERE id = ?", [self.run])
        if self._writer.failed is not None:
            raise schema.damaged(self.path, self._writer.failed) from self._writer.failed

    def finish(self, report: str) -> None:
        """Note the end of a run."""
        sql = "UPDATE run SET ended = ?, report = ? WHERE id = ?"
        self._add(sql, time.time(), report, self.run)

    def failures(self) -> Iterator[ItemResult]:
        """Give the results of this run that make the report False."""
        for results in _results(self._all, self.run, held=False):
            yield from results

    async def begin(self, identity: Mapping[str, str]) -> None:
        """Begin a run, of the load that the journal belongs to or, if it is new, belongs to now.

        Raises:
            ConfigError: it is that of another server, dataset or source.
        """
        known, last = await anyio.to_thread.run_sync(self._head)
        for name, value in identity.items():
            if known.get(name, value) != value:
                raise ConfigError(
                    f"The journal {self.path} is of another {name}: {known[name]}, not {value}.",
                    hint="Name another journal, or leave it to the default; nothing was sent.",
                )
        for name, value in identity.items():
            self._add("INSERT OR IGNORE INTO meta VALUES (?, ?)", name, value)
        self.run = last + 1
        self._add("INSERT INTO run (id, started) VALUES (?, ?)", self.run, time.time())
        self._add("DELETE FROM result WHERE held OR run <= ?", self.run - _RUNS)
        await self.flush()

    def _head(self) -> tuple[Mapping[str, str], int]:
        meta = {row["name"]: told(row["value"]) for row in self._all("SELECT * FROM meta", ())}
        return meta, int(self._value("SELECT coalesce(max(id), 0) FROM run"))

    def close(self) -> None:
        """Commit what is left and let go of the file."""
        self._writer.close()
        self._connection.close()

    async def _written(self, sql: Statement, values: Values | Callable[[], Values]) -> None:
        batch, place = self._writer.add(sql, values, soon=True)
        await batch.done.wait()
        if batch.error is not None:
            raise schema.damaged(self.path, batch.error) from batch.error
        match batch.refused.get(place):
            case None:
                pass
            case sqlite3.IntegrityError() as error:
                raise NameTakenError from error
            case error:
                raise error

    def _add(self, sql: Statement, *values: Any) -> None:
        self._writer.add(sql, [stored(value) for value in values], soon=False)

    def _all(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with schema.translated(self.path), self._lock:
            return self._connection.execute(sql, [stored(value) for value in values]).fetchall()

    def _value(self, sql: str) -> Any:
        return self._all(sql, ())[0][0]


_columns = operator.attrgetter(*COLUMNS)


def _values(row: Row) -> Values:
    return [stored(value) for value in _columns(row)]


@asynccontextmanager
async def opened(
    path: Path | None,
    identity: Mapping[str, str],
    *,
    copy: bool = False,
    company: Callable[[], int] = lambda: 1,
) -> AsyncIterator[Journal]:
    """Open a journal for a run; None is one in memory.

    Args:
        copy: work on a copy in memory, which leaves the file alone.
        company: how many may intend at a time; once all of them wait, none waits for another.

    Raises:
        JournalError: another load has it, it is damaged, newer, or cannot be written.
        ConfigError: it is that of another server, dataset or source.
    """
    opening = _Opening(path, asyncio.get_running_loop(), company, copy=copy)
    try:
        journal = await anyio.to_thread.run_sync(opening.open)
        await journal.begin(identity)
        yield journal
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(opening.close)


class _Opening:
    """Opens and closes in threads, whose work goes on when asyncio cancels who waits for it.

    So the one that closes waits for the one that opens, and nothing is left behind.
    """

    def __init__(
        self,
        path: Path | None,
        loop: asyncio.AbstractEventLoop,
        company: Callable[[], int],
        *,
        copy: bool,
    ) -> None:
        self._file = None if copy else path
        self._original = path if copy else None
        self._loop = loop
        self._company = company
        self._mutex = threading.Lock()
        self._lock: Lock | None = None
        self._journal: Journal | None = None

    def open(self) -> Journal:
        """Take the lock and open the file."""
        with self._mutex:
            self._lock = None if self._file is None else _locked(self._file)
            connection = schema.connect(self._file, self._original)
            self._journal = Journal(connection, self._file, self._loop, self._company)
            return self._journal

    def close(self) -> None:
        """Commit what is left, close the file and let go of the lock."""
        with self._mutex:
            if self._journal is not None:
                self._journal.close()
            if self._lock is not None:
                self._lock.release()


def failures(path: Path, run: int) -> Iterator[ItemResult]:
    """Give the results of a run that made its report False, from the file.

    Raises:
        JournalError: the file is gone, something else, newer or damaged.
    """
    with schema.reading(path) as connection:
        for results in _results(connection.execute, run):
            yield from results


def _results(
    select: Callable[[str, Sequence[Any]], Iterable[sqlite3.Row]], run: int, *, held: bool = False
) -> Iterator[Sequence[ItemResult]]:
    after = 0
    while rows := list(select(_RESULTS, (run, held, after))):
        values = [json.loads(row["result"]) for row in rows]
        yield [ItemResult(**{**one, "outcome": Outcome(one["outcome"])}) for one in values]
        after = rows[-1]["number"]


def _values_of(name: str, remote: RemoteDocument) -> tuple[object, ...]:
    file = (remote.upload_file_id, remote.size)
    return (name, remote.document_id, remote.enabled, str(remote.status), *file, remote.place)


def _remote_of(row: sqlite3.Row) -> RemoteDocument:
    return RemoteDocument(
        document_id=row["document_id"],
        enabled=bool(row["enabled"]),
        status=IndexingStatus(row["status"]),
        upload_file_id=row["upload_file_id"],
        size=row["size"],
        place=row["place"],
    )


def _locked(path: Path) -> Lock:
    schema.require_ours(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Lock(path)
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be used: {(error.strerror or str(error)).lower()}.",
            hint="Name one that can be written with journal= (--journal); nothing was sent.",
        ) from error
