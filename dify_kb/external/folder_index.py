"""A folder in an SQLite file: what was read of which file, and the search over it. No HTTP."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import evolve, field, frozen

from dify_kb.corpus import Index, chunk
from dify_kb.models import ProcessRule

from .folder_database import connect
from .folder_files import ExtractError, Seen, read, texts_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger(__name__)

DATASET: Final = "folder"
"""What the index calls the folder."""

_FILES_AT_ONCE: Final = 100
"""Of a transaction: what is indexed is found after so many, and survives the process."""

_RACY: Final = 2.0
"""Seconds after its last change in which a file may change again and look the same."""

_SPARED: Final = str.maketrans("ï¿¾", "\ue0ef\ue0bf\ue0be")
_BACK: Final = str.maketrans("\ue0ef\ue0bf\ue0be", "ï¿¾")
"""Letters that Dify deletes by mistake, and what stands for them meanwhile."""

_RULE: Final = ProcessRule.automatic()


@frozen(kw_only=True)
class Counts:
    """What an index holds."""

    files: int
    """Those with at least one passage."""

    passages: int
    unread: int
    """Documents that are damaged, or whose parser is not installed; the log says which."""


@frozen
class _File:
    """A file as it was read. `error` says why there is nothing of it."""

    path: str
    signature: str
    digest: str
    size: int
    modified: float
    error: str | None = None
    contents: Sequence[str] | None = field(default=None, eq=False)
    """Its passages; None where they are those that are there already."""


@frozen
class Writer:
    """Brings an index up to date with its folder. One thread at a time."""

    root: Path
    connection: sqlite3.Connection
    stop: threading.Event
    """Ends a look early; what was read by then is kept."""

    def refresh(self, *, again: bool = False) -> bool:
        """Read what is new or changed, forget what is gone; tell whether anything was.

        `again` also tries documents that could not be read.

        Raises:
            OSError: the folder cannot be listed; the index stays as it is.
        """
        known = self._known()
        gone = {*known}
        changed = False
        batch: list[_File] = []
        for seen in walk(self.root):
            if self.stop.is_set():
                gone.clear()
                break
            gone.discard(seen.path)
            before = known.get(seen.path)
            if before and before.signature == seen.signature and not (again and before.error):
                continue
            file = self._read(seen, before)
            changed |= file.contents is not None
            batch.append(file)
            if len(batch) == _FILES_AT_ONCE:
                self._write(batch, ())
                batch.clear()
        if batch or gone:
            self._write(batch, gone)
        return changed or bool(gone)

    def counts(self) -> Counts:
        """Count what there is."""
        unread, passages, files = self.connection.execute(
            "SELECT (SELECT count(error) FROM files), count(*), count(DISTINCT path) FROM passages"
        ).fetchone()
        return Counts(files=files, passages=passages, unread=unread)

    def _known(self) -> dict[str, _File]:
        sql = "SELECT path, signature, digest, size, modified, error FROM files"
        return {row[0]: _File(*row) for row in self.connection.execute(sql)}

    def _read(self, seen: Seen, before: _File | None) -> _File:
        """Read a file, and cut it unless it is as it was."""
        racy = time.time() - seen.modified < _RACY
        signature = "" if racy else seen.signature
        file = _File(seen.path, signature, "", seen.size, seen.modified, contents=())
        try:
            content = read(self.root, seen.path)
            digest = hashlib.sha256(content).hexdigest()
            if before and before.digest == digest and not before.error:
                return evolve(file, digest=digest, contents=None)
            texts = texts_of(seen.path, content) or []
            return evolve(file, digest=digest, contents=_cut(texts))
        except (ExtractError, OSError) as error:
            why = str(error)
            if before is None or before.error != why:
                _log.warning("%s is left out: %s", seen.path, why)
            return evolve(file, error=why)

    def _write(self, files: Sequence[_File], gone: Iterable[str]) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            index = Index(connection)
            for path in [*gone, *(file.path for file in files if file.contents is not None)]:
                index.remove(path)
                connection.execute("DELETE FROM passages WHERE path = ?", (path,))
                connection.execute("DELETE FROM files WHERE path = ?", (path,))
            for file in files:
                self._put(index, file)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _put(self, index: Index, file: _File) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (file.path, file.signature, file.digest, file.size, file.modified, file.error),
        )
        rows = []
        for content in file.contents or ():
            number = self.connection.execute(
                "INSERT INTO passages (path, content) VALUES (?, ?)", (file.path, content)
            ).lastrowid
            rows.append((str(number), DATASET, file.path, content))
        index.add(rows)


def _cut(texts: Sequence[str]) -> list[str]:
    pieces = chunk([text.translate(_SPARED) for text in texts], _RULE)
    return [piece.translate(_BACK) for piece in pieces]


class Passage(NamedTuple):
    """A part of a file, and that file's path, size and time of change."""

    content: str
    path: str
    size: int
    modified: float


@frozen
class Reader:
    """Looks things up in an index. One thread at a time."""

    connection: sqlite3.Connection
    index: Index

    @classmethod
    def of(cls, path: Path) -> Reader:
        """Open an index."""
        connection = connect(path)
        return cls(connection, Index(connection))

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Have all look-ups meanwhile see one state, whatever is written."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    def files(self) -> list[tuple[str, int, float]]:
        """Tell path, size and time of change of each file."""
        return self.connection.execute(
            "SELECT path, size, modified FROM files WHERE error IS NULL"
        ).fetchall()

    def passages(self, numbers: Sequence[str]) -> list[Passage]:
        """Fetch passages in this order; one that is gone is left out."""
        rows = self.connection.execute(
            "SELECT number, content, path, size, modified FROM passages JOIN files USING (path)"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps([int(number) for number in numbers]),),
        )
        found = {str(number): Passage(*row) for number, *row in rows}
        return [found[number] for number in numbers if number in found]
