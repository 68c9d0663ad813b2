"""The SQLite index of a served folder: indexed files, their passages, and keyword search."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import evolve, field, frozen

from dify_kb.errors import ConfigError
from dify_kb.models import ProcessRule
from dify_kb.rag import SearchIndex, chunk

from .folder_files import ExtractError, FolderFile, extract_texts, iter_files, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger(__name__)

FOLDER_DATASET: Final = "folder"
"""Dataset id of the folder in the search index."""

_FILES_PER_TRANSACTION: Final = 100
"""Files per commit; committed files can be found and survive a crash."""

_MTIME_GRANULARITY: Final = 2.0
"""Seconds after a change during which another change might leave the file's signature the same."""

_PROTECT_LETTERS: Final = str.maketrans("ï¿¾", "\ue0ef\ue0bf\ue0be")
_RESTORE_LETTERS: Final = str.maketrans("\ue0ef\ue0bf\ue0be", "ï¿¾")
"""Letters that Dify's cleaning deletes by mistake, and their placeholders while chunking."""

_CHUNK_RULE: Final = ProcessRule.automatic()


_APPLICATION_ID: Final = 0x6B626664
"""Marks an SQLite file as the index of a folder ("kbfd")."""

_USER_VERSION: Final = 1
"""Incremented with every change of the tables, of text extraction or of chunking."""

_SCHEMA: Final = """
CREATE TABLE root (path TEXT NOT NULL);
CREATE TABLE files (
    path TEXT PRIMARY KEY, signature TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    modified REAL NOT NULL, error TEXT
) WITHOUT ROWID;
CREATE TABLE passages (number INTEGER PRIMARY KEY, path TEXT NOT NULL, content TEXT NOT NULL);
CREATE INDEX passages_of_file ON passages (path);
"""

_BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process that writes to the same index."""


@frozen(kw_only=True)
class FolderCounts:
    """Numbers of files and passages in an index."""

    files: int
    """Files with at least one passage."""

    passages: int
    unreadable: int
    """Documents that are damaged or whose parser is not installed; the log lists them."""


@frozen
class _IndexedFile:
    """An indexed file. `error` is the reason if the file could not be read."""

    path: str
    signature: str
    digest: str
    size: int
    modified: float
    error: str | None = None
    contents: Sequence[str] | None = field(default=None, eq=False)
    """Passages of the file; None if the indexed passages are up to date."""


@frozen
class IndexWriter:
    """Writer that updates an index from its folder. Not thread-safe."""

    root: Path
    connection: sqlite3.Connection
    stop: threading.Event
    """Stops a refresh early; the files read until then are kept."""

    def refresh(self, *, retry_failed: bool = False) -> bool:
        """Index new and changed files, remove deleted ones; return whether anything changed.

        `retry_failed` also retries documents that could not be read.

        Raises:
            OSError: the folder cannot be listed; the index stays as it is.
        """
        indexed_files = self._indexed_files()
        removed_paths = {*indexed_files}
        changed = False
        batch: list[_IndexedFile] = []
        for folder_file in iter_files(self.root):
            if self.stop.is_set():
                removed_paths.clear()
                break
            removed_paths.discard(folder_file.path)
            previous = indexed_files.get(folder_file.path)
            if (
                previous
                and previous.signature == folder_file.signature
                and not (retry_failed and previous.error)
            ):
                continue
            file = self._read_and_chunk(folder_file, previous)
            changed |= file.contents is not None
            batch.append(file)
            if len(batch) == _FILES_PER_TRANSACTION:
                self._write_batch(batch, ())
                batch.clear()
        if batch or removed_paths:
            self._write_batch(batch, removed_paths)
        return changed or bool(removed_paths)

    def counts(self) -> FolderCounts:
        """Count the files and passages of the index."""
        unreadable, passages, files = self.connection.execute(
            "SELECT (SELECT count(error) FROM files), count(*), count(DISTINCT path) FROM passages"
        ).fetchone()
        return FolderCounts(files=files, passages=passages, unreadable=unreadable)

    def _indexed_files(self) -> dict[str, _IndexedFile]:
        sql = "SELECT path, signature, digest, size, modified, error FROM files"
        return {row[0]: _IndexedFile(*row) for row in self.connection.execute(sql)}

    def _read_and_chunk(
        self, folder_file: FolderFile, previous: _IndexedFile | None
    ) -> _IndexedFile:
        """Read a file; split it into passages if its content has changed."""
        may_still_change = time.time() - folder_file.modified < _MTIME_GRANULARITY
        signature = "" if may_still_change else folder_file.signature
        file = _IndexedFile(
            folder_file.path, signature, "", folder_file.size, folder_file.modified, contents=()
        )
        try:
            content = read_file(self.root, folder_file.path)
            digest = hashlib.sha256(content).hexdigest()
            if previous and previous.digest == digest and not previous.error:
                return evolve(file, digest=digest, contents=None)
            texts = extract_texts(folder_file.path, content) or []
            return evolve(file, digest=digest, contents=_chunk_texts(texts))
        except (ExtractError, OSError) as error:
            reason = str(error)
            if previous is None or previous.error != reason:
                _log.warning("Skipping file %s: %s", folder_file.path, reason)
            return evolve(file, error=reason)

    def _write_batch(self, files: Sequence[_IndexedFile], removed_paths: Iterable[str]) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            index = SearchIndex(connection)
            for path in [
                *removed_paths,
                *(file.path for file in files if file.contents is not None),
            ]:
                index.remove_document(path)
                connection.execute("DELETE FROM passages WHERE path = ?", (path,))
                connection.execute("DELETE FROM files WHERE path = ?", (path,))
            for file in files:
                self._insert_file(index, file)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _insert_file(self, index: SearchIndex, file: _IndexedFile) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (file.path, file.signature, file.digest, file.size, file.modified, file.error),
        )
        rows = []
        for content in file.contents or ():
            number = self.connection.execute(
                "INSERT INTO passages (path, content) VALUES (?, ?)", (file.path, content)
            ).lastrowid
            rows.append((str(number), FOLDER_DATASET, file.path, content))
        index.add(rows)


def _chunk_texts(texts: Sequence[str]) -> list[str]:
    pieces = chunk([text.translate(_PROTECT_LETTERS) for text in texts], _CHUNK_RULE)
    return [piece.translate(_RESTORE_LETTERS) for piece in pieces]


class Passage(NamedTuple):
    """A part of a file, with the path, size and modification time of the file."""

    content: str
    path: str
    size: int
    modified: float


@frozen
class IndexReader:
    """Reader of an index. Not thread-safe."""

    connection: sqlite3.Connection
    index: SearchIndex

    @classmethod
    def open(cls, path: Path) -> IndexReader:
        """Open a reader of an index."""
        connection = connect_index(path)
        return cls(connection, SearchIndex(connection))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read from one consistent state of the index, regardless of concurrent writes."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    def files(self) -> list[tuple[str, int, float]]:
        """Return path, size and modification time of each file."""
        return self.connection.execute(
            "SELECT path, size, modified FROM files WHERE error IS NULL"
        ).fetchall()

    def passages(self, numbers: Sequence[str]) -> list[Passage]:
        """Return the passages with these numbers, in this order, without deleted ones."""
        rows = self.connection.execute(
            "SELECT number, content, path, size, modified FROM passages JOIN files USING (path)"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps([int(number) for number in numbers]),),
        )
        passages_by_number = {str(number): Passage(*row) for number, *row in rows}
        return [passages_by_number[number] for number in numbers if number in passages_by_number]


def connect_index(path: Path) -> sqlite3.Connection:
    """Connect to an index created by `prepare_index`."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def prepare_index(path: Path, root: Path) -> None:
    """Create the index, or recreate it if damaged, of another version or of another folder.

    Raises:
        ConfigError: the file is not an index, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_index(path):
            raise ConfigError(
                f"{path} is not the index of a folder.",
                hint="Choose a file that does not exist yet.",
            )
        if path.exists() and not _is_usable(path, root):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        if not path.exists() or not path.stat().st_size:
            _create_index(path, root)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"Cannot write the index {path}: {error}.", hint="Choose another file for the index."
        ) from error


def _is_index(path: Path) -> bool:
    """Return whether the file is new, empty, or has our application id in its SQLite header.

    Source of the offset: fileformat2.html of SQLite, section 1.3.
    """
    if not path.exists():
        return True
    with path.open("rb") as file:
        head = file.read(100)
    return not head or (
        head.startswith(b"SQLite format 3\0") and head[68:72] == _APPLICATION_ID.to_bytes(4, "big")
    )


def _is_usable(path: Path, root: Path) -> bool:
    try:
        with closing(connect_index(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _USER_VERSION:
                return False
            integrity: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            root_row: tuple[str] | None = connection.execute("SELECT path FROM root").fetchone()
            return integrity == "ok" and root_row == (str(root),)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        return False
    except sqlite3.DatabaseError:
        return False


def _create_index(path: Path, root: Path) -> None:
    path.touch(mode=0o600)
    with closing(connect_index(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {_USER_VERSION}; {_SCHEMA} COMMIT;"
        )
        SearchIndex(connection)
        connection.execute("INSERT INTO root VALUES (?)", (str(root),))
