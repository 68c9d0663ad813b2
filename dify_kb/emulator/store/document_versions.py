"""Keep former versions of documents, so that their list can be read as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .database import Database

AS_OF: Final = "(SELECT * FROM document_versions WHERE since <= ? AND before > ?)"
"""A table of the documents as they were; its two values are both the time."""

_ADD: Final = (
    "INSERT INTO document_versions SELECT version_time(), 9e999, * FROM documents"
    " WHERE id = NEW.id;"
)
_END: Final = (
    "UPDATE document_versions SET before = version_time() WHERE id = OLD.id AND before = 9e999;"
)

# All of it is temporary, so that a file stays as it is and others can open it.
_STATEMENTS: Final = (
    (
        "CREATE TEMP TABLE document_versions AS"
        " SELECT -9e999 AS since, 9e999 AS before, * FROM documents"
    ),
    "CREATE INDEX temp.versions_of_documents ON document_versions (id, before)",
    f"CREATE TEMP TRIGGER added AFTER INSERT ON documents BEGIN {_ADD} END",
    f"CREATE TEMP TRIGGER changed AFTER UPDATE ON documents BEGIN {_END} {_ADD} END",
    f"CREATE TEMP TRIGGER deleted AFTER DELETE ON documents BEGIN {_END} END",
)


def keep_versions(database: Database, now: Callable[[], float]) -> None:
    """Keep each version of each document from now on; again, it does nothing."""
    with database.transaction():
        if database.value("SELECT 1 FROM sqlite_temp_master WHERE name = 'document_versions'"):
            return
        database.connection.create_function("version_time", 0, now)
        for statement in _STATEMENTS:
            database.run(statement)
