"""The SQLite connection: schema, format version, and errors about unusable files."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sqlite3
import threading
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import attrs

from dify_kb.errors import ConfigError
from dify_kb.rag import SearchIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

APPLICATION_ID: Final = 0x6B62656D
"""Marks a file as an emulator database; the bytes are "kbem"."""

USER_VERSION: Final = 6
"""Format version, increased with every schema change; other versions are refused."""

SCHEMA: Final = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE datasets (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT, provider TEXT NOT NULL,
    permission TEXT NOT NULL, data_source_type TEXT, indexing_technique TEXT,
    retrieval_model TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    built_in INTEGER NOT NULL, pipeline_id TEXT, members TEXT NOT NULL,
    embedding_provider TEXT, embedding_model TEXT, summary_setting TEXT,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX datasets_by_name ON datasets (name);
CREATE TABLE process_rules (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, mode TEXT NOT NULL, rules TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX process_rules_of_dataset ON process_rules (dataset_id);
CREATE TABLE documents (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, position INTEGER NOT NULL,
    name TEXT NOT NULL, batch TEXT NOT NULL, process_rule_id TEXT NOT NULL,
    created_from TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at REAL NOT NULL,
    doc_form TEXT NOT NULL, doc_language TEXT NOT NULL,
    file_id TEXT NOT NULL, file_name TEXT NOT NULL, file_size INTEGER NOT NULL,
    file_extension TEXT NOT NULL, file_mime_type TEXT, file_created_at REAL NOT NULL,
    indexing_status TEXT NOT NULL, processing_started_at REAL, parsing_completed_at REAL,
    splitting_completed_at REAL, completed_at REAL, indexing_latency REAL, stopped_at REAL,
    error TEXT, tokens INTEGER, word_count INTEGER, enabled INTEGER NOT NULL,
    disabled_at REAL, archived INTEGER NOT NULL, doc_metadata TEXT,
    locked_until REAL NOT NULL, replaced INTEGER NOT NULL, error_details TEXT,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX documents_by_name ON documents (dataset_id, name, created_at, position);
CREATE INDEX documents_by_time ON documents (dataset_id, created_at, position);
CREATE INDEX documents_by_position ON documents (dataset_id, position);
CREATE INDEX documents_by_batch ON documents (batch);
CREATE INDEX documents_by_state
    ON documents (dataset_id, indexing_status, enabled, archived, word_count);
CREATE INDEX documents_unfinished ON documents (indexing_status)
    WHERE indexing_status NOT IN ('completed', 'error');
CREATE TABLE contents (document_id TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE segments (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, document_id TEXT NOT NULL,
    position INTEGER NOT NULL, content TEXT NOT NULL, keywords TEXT, index_node_id TEXT NOT NULL,
    index_node_hash TEXT NOT NULL, status TEXT NOT NULL, created_at REAL NOT NULL,
    indexing_at REAL, completed_at REAL, answer TEXT, enabled INTEGER NOT NULL,
    disabled_at REAL, updated_at REAL, edited INTEGER NOT NULL,
    tokens INTEGER NOT NULL DEFAULT 0, error TEXT, summary TEXT,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX segments_of_document ON segments (document_id, position);
CREATE INDEX segments_of_dataset ON segments (dataset_id);
CREATE TABLE child_chunks (
    id TEXT NOT NULL UNIQUE, segment_id TEXT NOT NULL REFERENCES segments (id) ON DELETE CASCADE,
    position INTEGER NOT NULL, content TEXT NOT NULL, type TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX child_chunks_of_segment ON child_chunks (segment_id, position);
CREATE TABLE metadata (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    type TEXT NOT NULL, name TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX metadata_of_dataset ON metadata (dataset_id);
CREATE TABLE metadata_bindings (
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    metadata_id TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE INDEX metadata_bindings_of_document ON metadata_bindings (document_id, metadata_id);
CREATE INDEX metadata_bindings_of_field ON metadata_bindings (metadata_id);
CREATE TABLE tags (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE tag_bindings (
    dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    tag_id TEXT NOT NULL,
    PRIMARY KEY (dataset_id, tag_id)
) WITHOUT ROWID;
CREATE INDEX tag_bindings_of_tag ON tag_bindings (tag_id);
CREATE TABLE pipeline_files (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, size INTEGER NOT NULL, extension TEXT NOT NULL,
    mime_type TEXT, created_at REAL NOT NULL, content BLOB NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE external_apis (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, endpoint TEXT NOT NULL, api_key TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE external_bindings (
    dataset_id TEXT PRIMARY KEY REFERENCES datasets (id) ON DELETE CASCADE,
    api_id TEXT NOT NULL, knowledge_id TEXT NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """One SQLite connection, shared by several threads.

    A file is locked while it is open; a second process that opens it gets an error.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self.connection = _connect(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a block as one transaction; nested transactions join the outermost one."""
        with self._lock:
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

    def fetch_all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self.connection.execute(sql, values).fetchall()

    def fetch_value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """Return the first column of the first row; None if there is no row."""
        with self._lock:
            row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None

    def execute(self, sql: str, values: Sequence[object] = ()) -> int:
        """Run a statement and return the number of affected rows."""
        with self._lock:
            return self.connection.execute(sql, values).rowcount

    def insert(self, table: str, rows: Iterable[attrs.AttrsInstance]) -> None:
        """Insert rows whose attributes are the columns."""
        values = [attrs.astuple(row, recurse=False) for row in rows]
        if not values:
            return
        placeholders = ", ".join("?" * len(values[0]))
        row_class = type(next(iter(rows)))
        with self._lock:
            self.connection.executemany(
                f"INSERT INTO {table} ({join_columns(row_class)}) VALUES ({placeholders})",  # noqa: S608 -- own names
                values,
            )

    def update(self, table: str, key: str, changes: Mapping[str, object]) -> bool:
        """Update columns of the row with this id; return whether the row exists."""
        names = ", ".join(f"{name} = ?" for name in changes)
        sql = f"UPDATE {table} SET {names} WHERE id = ?"  # noqa: S608 -- own names
        return self.execute(sql, (*changes.values(), key)) == 1

    def close(self) -> None:
        """Close the connection and release the file."""
        with self._lock:
            self.connection.close()


def join_columns(row_class: type[attrs.AttrsInstance]) -> str:
    """Return the column names of a row class, separated by commas."""
    return ", ".join(attribute.name for attribute in attrs.fields(row_class))


def _connect(path: Path | None) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        _configure(connection, path)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise _to_config_error(path, error) from error
    except ConfigError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, path: Path | None) -> None:
    connection.create_function("folded", 1, _fold_case, deterministic=True)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _read_version(connection, path)
    if version:
        _check_integrity(connection)
    # Keywords match names case-sensitively, like PostgreSQL's LIKE (measured).
    connection.execute("PRAGMA case_sensitive_like = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    # Commits survive a crash of the process, but may be lost in a crash of the machine.
    connection.execute("PRAGMA synchronous = NORMAL")
    if not version and path is None:
        _create_template().backup(connection)
    elif not version:
        _create_tables(connection)


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {USER_VERSION}; {SCHEMA} COMMIT;"
    )


@functools.cache
def _create_template() -> sqlite3.Connection:
    """Create an empty database, whose copy costs a tenth of the statements that created it."""
    template = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _create_tables(template)
    SearchIndex(template)
    atexit.register(template.close)
    return template


def _read_version(connection: sqlite3.Connection, path: Path | None) -> int:
    """Lock the file and return its format version; 0 if it has no tables yet."""
    connection.execute("BEGIN EXCLUSIVE")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.execute("COMMIT")
    if empty:
        return 0
    if application != APPLICATION_ID:
        raise ConfigError(
            f"{path} is an SQLite database, but not an emulator database.",
            hint="Use a new file name, or a database that the emulator created.",
        )
    if version != USER_VERSION:
        age = "a newer" if version > USER_VERSION else "an older"
        raise ConfigError(
            f"{path} was created by {age} version of dify-kb.",
            hint="Install the version that created it, or use another file.",
        )
    return version


def _check_integrity(connection: sqlite3.Connection) -> None:
    """Raise an error if the file is damaged, before any write; takes 1 ms per MB (measured)."""
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(f"malformed, {problem}")


def _to_config_error(path: Path | None, error: sqlite3.Error) -> ConfigError:
    reason = str(error)
    if "locked" in reason:
        return ConfigError(
            f"{path} is in use by another emulator.",
            hint="Stop the other emulator, or use another file.",
        )
    if "not a database" in reason:
        return ConfigError(
            f"{path} is not an emulator database.",
            hint="Use a new file name, or a database that the emulator created.",
        )
    if "malformed" in reason:
        return ConfigError(
            f"{path} is damaged.",
            hint="Restore a backup, or use another file; the damaged file was not changed.",
        )
    if path is not None and not _is_writable(path):
        reason = "the file or its directory is not writable"  # SQLite: "disk I/O error"
    return ConfigError(
        f"Cannot open {path}: {reason}.",
        hint="Check that its directory exists and is writable.",
    )


def _is_writable(path: Path) -> bool:
    """Return whether the file and its directory are writable, as far as they exist."""
    return all(
        os.access(place, os.W_OK, effective_ids=True)
        for place in (path, path.parent)
        if place.exists()
    )


def _fold_case(value: str) -> str:
    return unicodedata.normalize("NFC", value).lower()
