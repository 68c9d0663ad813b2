from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import unicodedata
from typing import TYPE_CHECKING, Any

import attrs

from dify_kb.errors import ConfigError

from .schema import APPLICATION_ID, SCHEMA, USER_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


class Database:
    """One SQLite connection that several threads take turns on.

    A file is locked for as long as it is open: another process that opens it gets an error.
    """

    def __init__(self, path: Path | None) -> None:
        self._turn = threading.RLock()
        self.connection = _open(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of it or nothing; nested ones are part of the outermost."""
        with self._turn:
            if self.connection.in_transaction:
                yield
                return
            self.connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Ask."""
        with self._turn:
            return self.connection.execute(sql, values).fetchall()

    def value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """Ask for one value; None when there is no row."""
        with self._turn:
            row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """Change something; return how many rows it were."""
        with self._turn:
            return self.connection.execute(sql, values).rowcount

    def insert(self, table: str, rows: Iterable[attrs.AttrsInstance]) -> None:
        """Add rows whose attributes are the columns."""
        values = [attrs.astuple(row, recurse=False) for row in rows]
        if not values:
            return
        marks = ", ".join("?" * len(values[0]))
        kind = type(next(iter(rows)))
        with self._turn:
            self.connection.executemany(
                f"INSERT INTO {table} ({columns(kind)}) VALUES ({marks})",  # noqa: S608 -- own names
                values,
            )

    def update(self, table: str, key: str, changes: Mapping[str, object]) -> bool:
        """Change columns of the row of this id; tell whether it exists."""
        names = ", ".join(f"{name} = ?" for name in changes)
        sql = f"UPDATE {table} SET {names} WHERE id = ?"  # noqa: S608 -- own names
        return self.run(sql, (*changes.values(), key)) == 1

    def close(self) -> None:
        """Close, and let go of the file."""
        with self._turn:
            self.connection.close()


def columns(kind: type[attrs.AttrsInstance]) -> str:
    """Name the columns of a kind of row."""
    return ", ".join(attribute.name for attribute in attrs.fields(kind))


def _open(path: Path | None) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        _prepare(connection, path)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise _unusable(path, error) from error
    except ConfigError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path | None) -> None:
    connection.create_function("folded", 1, _folded, deterministic=True)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _version(connection, path)
    if version:
        _check_whole(connection)
    # The case of names counts in a keyword, as in PostgreSQL's LIKE (measured).
    connection.execute("PRAGMA case_sensitive_like = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    # What was committed survives the death of the process; it may be lost with the machine's.
    connection.execute("PRAGMA synchronous = NORMAL")
    if not version:
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {USER_VERSION}; {SCHEMA} COMMIT;"
        )


def _version(connection: sqlite3.Connection, path: Path | None) -> int:
    """Lock the file, and tell the version of its tables; 0 where there are none yet."""
    connection.execute("BEGIN EXCLUSIVE")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.execute("COMMIT")
    if empty:
        return 0
    if application != APPLICATION_ID:
        raise ConfigError(
            f"{path} is a database, but not an emulator's.",
            hint="Name a file that does not exist yet, or one that an emulator made.",
        )
    if version != USER_VERSION:
        age = "a newer" if version > USER_VERSION else "an older"
        raise ConfigError(
            f"{path} was made by {age} version of the emulator.",
            hint="Install the dify-kb that made it, or name another file.",
        )
    return version


def _check_whole(connection: sqlite3.Connection) -> None:
    """Look for damage before anything is written; takes 1 ms per MB (measured)."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed, {found}")


def _unusable(path: Path | None, error: sqlite3.Error) -> ConfigError:
    why = str(error)
    if "locked" in why:
        return ConfigError(
            f"{path} is in use by another emulator.",
            hint="Stop the other one, or name another file.",
        )
    if "not a database" in why:
        return ConfigError(
            f"{path} is not an emulator's database.",
            hint="Name a file that does not exist yet, or one that an emulator made.",
        )
    if "malformed" in why:
        return ConfigError(
            f"{path} is damaged.",
            hint="Put a copy of it in its place, or name another file; this one is left as it is.",
        )
    if path is not None and not _writable(path):
        why = "it may not be written, or nothing beside it"  # SQLite says "disk I/O error"
    return ConfigError(
        f"{path} cannot be opened: {why}.",
        hint="Check that its folder exists and that you may write there.",
    )


def _writable(path: Path) -> bool:
    """Tell whether the file and its folder, as far as they exist, take what is written."""
    return all(
        os.access(place, os.W_OK, effective_ids=True)
        for place in (path, path.parent)
        if place.exists()
    )


def _folded(value: str) -> str:
    return unicodedata.normalize("NFC", value).lower()
