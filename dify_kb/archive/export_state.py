"""The journal of an export: rows of the document list, and documents that were read."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Self

from attrs import frozen

from .archive_database import ProgressDatabase, damaged_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

APPLICATION_ID: Final = 0x4B42_4152
"""The SQLite `application_id`: "KBAR"."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE document (
    id TEXT PRIMARY KEY, created REAL NOT NULL, position INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, seen INTEGER NOT NULL, row TEXT NOT NULL,
    exported TEXT, line BLOB, chunks INTEGER, children INTEGER, file TEXT,
    file_size INTEGER, file_reason TEXT, finished INTEGER
) WITHOUT ROWID;
CREATE INDEX document_order ON document (created, position, id);
"""

_BATCH: Final = 200


@frozen
class ListedRow:
    """A row of the document list: what orders it, and what tells whether it changed."""

    id: str
    created: float
    position: int
    fingerprint: str
    row: str


@frozen
class StoredDocument:
    """A document that was read: its line, and its counts."""

    id: str
    fingerprint: str
    line: bytes
    chunks: int
    children: int
    file: str | None
    file_size: int | None
    file_reason: str | None
    finished: bool


class ExportState(ProgressDatabase):
    """The database `state.sqlite` of an archive."""

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Open or create the database; in memory without a path.

        Raises:
            ArchiveError: another export uses it, or it is damaged.
        """
        return cls.connect(path, APPLICATION_ID, _TABLES)

    def start_list(self) -> None:
        """Forget which rows were listed."""
        with self.transaction() as database:
            database.execute("UPDATE document SET seen = 0 WHERE seen")

    def add_rows(self, rows: Sequence[ListedRow]) -> None:
        """Store rows of the list; documents that were read keep their lines."""
        with self.transaction() as database:
            database.executemany(
                "INSERT INTO document (id, created, position, fingerprint, row, seen)"
                " VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (id) DO UPDATE SET seen = 1,"
                " created = excluded.created, position = excluded.position,"
                " fingerprint = excluded.fingerprint, row = excluded.row",
                [(row.id, row.created, row.position, row.fingerprint, row.row) for row in rows],
            )

    def finish_list(self) -> int:
        """Remove documents that were not listed; return how many of them were exported."""
        with self.transaction() as database:
            (count,) = database.execute(
                "SELECT count(*) FROM document WHERE NOT seen AND line IS NOT NULL"
            ).fetchone()
            database.execute("DELETE FROM document WHERE NOT seen")
        return int(count)

    def count(self, *, pending: bool = False) -> int:
        """Return the number of documents; with `pending`, of those that have to be read."""
        where = "WHERE exported IS NOT fingerprint" if pending else ""
        sql = f"SELECT count(*) FROM document {where}"  # noqa: S608 -- own words
        return int(self._database.execute(sql).fetchone()[0])

    def forget_exports(self) -> None:
        """Mark all documents to be read again."""
        with self.transaction() as database:
            database.execute("UPDATE document SET exported = NULL")

    def list_pending(self, after: tuple[float, int, str]) -> list[ListedRow]:
        """Return the next documents to read, in order, after a place in the order."""
        rows = self._database.execute(
            "SELECT id, created, position, fingerprint, row FROM document"
            " WHERE exported IS NOT fingerprint AND (created, position, id) > (?, ?, ?)"
            " ORDER BY created, position, id LIMIT ?",
            (*after, _BATCH),
        )
        return [ListedRow(*row) for row in rows]

    def remove(self, document_id: str) -> None:
        """Remove a document that no longer exists."""
        with self.transaction() as database:
            database.execute("DELETE FROM document WHERE id = ?", (document_id,))

    def store(self, document: StoredDocument, rule: str | None) -> None:
        """Store a document that was read, and the rule of the dataset that came with it."""
        with self.transaction() as database:
            if rule is not None:
                database.execute("INSERT OR REPLACE INTO meta VALUES ('rule', ?)", (rule,))
            database.execute(
                "UPDATE document SET exported = ?, line = ?, chunks = ?, children = ?, file = ?,"
                " file_size = ?, file_reason = ?, finished = ? WHERE id = ?",
                (
                    document.fingerprint,
                    zlib.compress(document.line),
                    document.chunks,
                    document.children,
                    document.file,
                    document.file_size,
                    document.file_reason,
                    document.finished,
                    document.id,
                ),
            )

    def iter_lines(self, offset: int, limit: int) -> Iterator[bytes]:
        """Yield the lines of documents, in order.

        Raises:
            ArchiveError: a stored line is damaged.
        """
        rows = self._database.execute(
            "SELECT line FROM document WHERE line IS NOT NULL ORDER BY created, position, id"
            " LIMIT ? OFFSET ?",
            (limit, offset),
        )
        try:
            for (line,) in rows:
                yield zlib.decompress(line)
        except zlib.error as error:
            raise damaged_error(self.path, error) from error

    def sum_counts(self) -> tuple[int, int, int]:
        """Return the numbers of documents, chunks and child chunks that were read."""
        row = self._database.execute(
            "SELECT count(*), coalesce(sum(chunks), 0), coalesce(sum(children), 0)"
            " FROM document WHERE line IS NOT NULL"
        ).fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def iter_files(self) -> Iterator[tuple[str, int]]:
        """Yield the SHA-256 and the size of each file that a document has."""
        yield from self._database.execute(
            "SELECT DISTINCT file, file_size FROM document WHERE file IS NOT NULL ORDER BY file"
        )

    def forget_file(self, sha256: str) -> None:
        """Mark the documents with this file to be read again."""
        with self.transaction() as database:
            database.execute("UPDATE document SET exported = NULL WHERE file = ?", (sha256,))

    def count_unfinished(self) -> int:
        """Return the number of documents that were not completely indexed."""
        sql = "SELECT count(*) FROM document WHERE NOT finished"
        return int(self._database.execute(sql).fetchone()[0])

    def count_missing_files(self) -> dict[str, int]:
        """Return the number of documents without a file, by reason."""
        return dict(
            self._database.execute(
                "SELECT file_reason, count(*) FROM document WHERE file_reason IS NOT NULL"
                " GROUP BY file_reason"
            ).fetchall()
        )
