"""How a file of an older version becomes one of the next.

A step is written once and stays as it is: it says in full what it makes, and never refers to
`schema.SCHEMA`, which goes on changing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .schema import USER_VERSION

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

_TO_2: Final = """
CREATE TABLE new_datasets (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT, provider TEXT NOT NULL,
    permission TEXT NOT NULL, data_source_type TEXT, indexing_technique TEXT,
    retrieval_model TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    built_in INTEGER NOT NULL, pipeline_id TEXT, members TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO new_datasets SELECT id, name, description, provider, permission, data_source_type,
    indexing_technique, retrieval_model, created_at, updated_at, 0, NULL, '[]', number
    FROM datasets;
DROP TABLE datasets;
ALTER TABLE new_datasets RENAME TO datasets;
CREATE INDEX datasets_by_name ON datasets (name);
ALTER TABLE documents ADD COLUMN doc_metadata TEXT;
ALTER TABLE documents ADD COLUMN locked_until REAL NOT NULL DEFAULT 0.0;
ALTER TABLE segments ADD COLUMN answer TEXT;
ALTER TABLE segments ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;
ALTER TABLE segments ADD COLUMN disabled_at REAL;
ALTER TABLE segments ADD COLUMN updated_at REAL;
ALTER TABLE segments ADD COLUMN edited INTEGER NOT NULL DEFAULT 0;
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
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (document_id, metadata_id)
);
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
"""

_TO_3: Final = """
ALTER TABLE datasets ADD COLUMN embedding_provider TEXT;
ALTER TABLE datasets ADD COLUMN embedding_model TEXT;
ALTER TABLE segments ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN error TEXT;
"""

_TO_4: Final = """
CREATE TABLE external_apis (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, endpoint TEXT NOT NULL, api_key TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE external_bindings (
    dataset_id TEXT PRIMARY KEY REFERENCES datasets (id) ON DELETE CASCADE,
    api_id TEXT NOT NULL, knowledge_id TEXT NOT NULL
) WITHOUT ROWID;
"""

STEPS: Final[Mapping[int, str]] = {1: _TO_2, 2: _TO_3, 3: _TO_4}
"""What makes a file of this version one of the next; there is a step for every version but ours."""


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Make a file of `version` one of ours, wholly or not at all; foreign keys must be off.

    A process that is killed meanwhile leaves the file as it was.
    """
    steps = "".join(STEPS[number] for number in range(version, USER_VERSION))
    try:
        connection.executescript(
            f"BEGIN EXCLUSIVE; {steps} PRAGMA user_version = {USER_VERSION}; COMMIT;"
        )
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
