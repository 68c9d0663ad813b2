"""The journal of an import: which documents exist already, and which were created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from attrs import frozen

from .archive_database import ProgressDatabase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

APPLICATION_ID: Final = 0x4B42_494D
"""The SQLite `application_id`: "KBIM"."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE existing (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE document (
    source_id TEXT PRIMARY KEY, name TEXT NOT NULL, content TEXT, attributes TEXT, target_id TEXT,
    method TEXT
) WITHOUT ROWID;
CREATE TABLE loss (source_id TEXT, kind TEXT, PRIMARY KEY (source_id, kind)) WITHOUT ROWID
"""


@frozen
class ImportedDocument:
    """A document that an import started or finished.

    `content` and `attributes` are digests of what was created; None while that is not complete.
    """

    source_id: str
    name: str
    content: str | None
    attributes: str | None
    target_id: str | None
    method: str | None


class ImportState(ProgressDatabase):
    """The database of an import."""

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Open or create the database; in memory without a path.

        Raises:
            ArchiveError: another import uses it, or it is damaged.
        """
        return cls.connect(path, APPLICATION_ID, _TABLES)

    def reset(self) -> None:
        """Forget everything, as the dataset no longer exists."""
        with self.transaction() as database:
            for table in ("meta", "existing", "document", "loss"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 -- own names

    def add_existing(self, ids: Iterable[str]) -> None:
        """Record the documents that the dataset had before the first run."""
        with self.transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO existing VALUES (?)", [(id_,) for id_ in ids]
            )

    def list_existing(self) -> set[str]:
        """Return the ids of documents that the import did not create."""
        return {id_ for (id_,) in self._database.execute("SELECT id FROM existing")}

    def list_documents(self) -> dict[str, ImportedDocument]:
        """Return all documents by source id."""
        rows = self._database.execute(
            "SELECT source_id, name, content, attributes, target_id, method FROM document"
        )
        return {row[0]: ImportedDocument(*row) for row in rows}

    def find(self, source_id: str) -> ImportedDocument | None:
        """Return a document by its source id, or None."""
        row = self._database.execute(
            "SELECT source_id, name, content, attributes, target_id, method FROM document"
            " WHERE source_id = ?",
            (source_id,),
        ).fetchone()
        return None if row is None else ImportedDocument(*row)

    def start(self, source_id: str, name: str) -> None:
        """Record that a document is about to be created."""
        with self.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO document (source_id, name) VALUES (?, ?)", (source_id, name)
            )
            database.execute("DELETE FROM loss WHERE source_id = ?", (source_id,))

    def finish(
        self, source_id: str, content: str, target_id: str, method: str, losses: Iterable[str]
    ) -> None:
        """Record that a document has its chunks."""
        with self.transaction() as database:
            database.execute(
                "UPDATE document SET content = ?, target_id = ?, method = ? WHERE source_id = ?",
                (content, target_id, method, source_id),
            )
            self._add_losses(source_id, losses)

    def finish_attributes(self, values: Mapping[str, str]) -> None:
        """Record that documents have their metadata and state; values are digests."""
        with self.transaction() as database:
            database.executemany(
                "UPDATE document SET attributes = ? WHERE source_id = ?",
                [(digest, source_id) for source_id, digest in values.items()],
            )

    def add_losses(self, source_id: str, kinds: Iterable[str]) -> None:
        """Record what of a document could not be kept."""
        with self.transaction():
            self._add_losses(source_id, kinds)

    def _add_losses(self, source_id: str, kinds: Iterable[str]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO loss VALUES (?, ?)", [(source_id, kind) for kind in kinds]
        )

    def count_losses(self) -> dict[str, int]:
        """Return the number of documents by the kind of loss."""
        return dict(
            self._database.execute(
                "SELECT kind, count(*) FROM loss GROUP BY kind ORDER BY kind"
            ).fetchall()
        )

    def count_methods(self) -> dict[str, int]:
        """Return the number of documents by the way in which they were created."""
        return dict(
            self._database.execute(
                "SELECT method, count(*) FROM document WHERE method IS NOT NULL"
                " GROUP BY method ORDER BY method"
            ).fetchall()
        )

    def list_ids(self) -> Sequence[tuple[str, str]]:
        """Return the ids of documents in the archive and in the dataset."""
        return self._database.execute(
            "SELECT source_id, target_id FROM document WHERE target_id IS NOT NULL"
            " ORDER BY source_id"
        ).fetchall()
