from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x6B62656D
"""`kbem`: marks a file as an emulator's database."""

USER_VERSION: Final = 4
"""Grows with every change of the tables; files of any other version are refused."""

SCHEMA: Final = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE datasets (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT, provider TEXT NOT NULL,
    permission TEXT NOT NULL, data_source_type TEXT, indexing_technique TEXT,
    retrieval_model TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    built_in INTEGER NOT NULL, pipeline_id TEXT, members TEXT NOT NULL,
    embedding_provider TEXT, embedding_model TEXT,
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
    locked_until REAL NOT NULL,
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
    tokens INTEGER NOT NULL DEFAULT 0, error TEXT,
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
CREATE TABLE external_apis (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, endpoint TEXT NOT NULL, api_key TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE external_bindings (
    dataset_id TEXT PRIMARY KEY REFERENCES datasets (id) ON DELETE CASCADE,
    api_id TEXT NOT NULL, knowledge_id TEXT NOT NULL
) WITHOUT ROWID;
"""
