"""The file that remembers what was read of a folder; it may be made anew at any time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from dify_kb.corpus import Index
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_APPLICATION_ID: Final = 0x6B626664
"""`kbfd`: marks a file as the index of a folder."""

_USER_VERSION: Final = 1
"""Grows with every change of the tables, and of how files are read and cut."""

_SCHEMA: Final = """
CREATE TABLE root (path TEXT NOT NULL);
CREATE TABLE files (
    path TEXT PRIMARY KEY, signature TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    modified REAL NOT NULL, error TEXT
) WITHOUT ROWID;
CREATE TABLE passages (number INTEGER PRIMARY KEY, path TEXT NOT NULL, content TEXT NOT NULL);
CREATE INDEX passages_of_file ON passages (path);
"""

_BUSY: Final = 30.0
"""Seconds to wait for another process that indexes the same folder."""


def connect(path: Path) -> sqlite3.Connection:
    """Open an index that `prepare` made."""
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def prepare(path: Path, root: Path) -> None:
    """Make an index ready; one that is damaged, of another version or folder is made anew.

    Raises:
        ConfigError: the file is something else, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_index(path):
            raise ConfigError(
                f"{path} is not the index of a folder.",
                hint="Name a file that does not exist yet.",
            )
        if path.exists() and not _usable(path, root):
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
        if not path.exists() or not path.stat().st_size:
            _create(path, root)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{path} cannot be written: {error}.", hint="Name another file for the index."
        ) from error


def _is_index(path: Path) -> bool:
    """Look at the head, where SQLite has the application's number (fileformat2.html, 1.3)."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        head = file.read(100)
    return not head or (
        head.startswith(b"SQLite format 3\0") and head[68:72] == _APPLICATION_ID.to_bytes(4, "big")
    )


def _usable(path: Path, root: Path) -> bool:
    try:
        with closing(connect(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _USER_VERSION:
                return False
            whole: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            of: tuple[str] | None = connection.execute("SELECT path FROM root").fetchone()
            return whole == "ok" and of == (str(root),)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        return False
    except sqlite3.DatabaseError:
        return False


def _create(path: Path, root: Path) -> None:
    path.touch(mode=0o600)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {_USER_VERSION}; {_SCHEMA} COMMIT;"
        )
        Index(connection)
        connection.execute("INSERT INTO root VALUES (?)", (str(root),))
