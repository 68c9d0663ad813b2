-- That of version 3, with what the step to version 4 of the tables adds at its end.
PRAGMA application_id = 1801610605;
PRAGMA user_version = 4;
CREATE TABLE child_chunks (
    id TEXT NOT NULL UNIQUE, segment_id TEXT NOT NULL REFERENCES segments (id) ON DELETE CASCADE,
    position INTEGER NOT NULL, content TEXT NOT NULL, type TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE contents (document_id TEXT PRIMARY KEY, content BLOB NOT NULL);
INSERT INTO "contents" VALUES('e6315317-70e3-4420-b524-d2ad5ecfae32',X'7A65627261206F6E65');
INSERT INTO "contents" VALUES('cdd80c98-7456-42f1-a9a2-0c7df3a3a90b',X'7A656272612074776F0A616E64206D6F7265');
CREATE TABLE datasets (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT, provider TEXT NOT NULL,
    permission TEXT NOT NULL, data_source_type TEXT, indexing_technique TEXT,
    retrieval_model TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    built_in INTEGER NOT NULL, pipeline_id TEXT, members TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "datasets" VALUES('1f9e9571-9473-4cec-9151-35f18412ecc9','old','','vendor','only_me','upload_file','economy',NULL,1.79526866966570949552e+09,1.79526866968666148189e+09,0,NULL,'[]',1);
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
INSERT INTO "documents" VALUES('e6315317-70e3-4420-b524-d2ad5ecfae32','1f9e9571-9473-4cec-9151-35f18412ecc9',1,'a.txt','20261121134429781258','3d96dd23-cccf-4cb5-9fe9-0694a216c04b','api',1795268670,1.79526866970597219464e+09,'text_model','English','7111d20b-77fe-427a-a5f9-315d6b13edd1','a.txt',9,'txt','text/plain',1.7952686696873934269e+09,'completed',1.79526866969313597674e+09,1.79526866969933485986e+09,1.79526866970323777201e+09,1.79526866970596957204e+09,1.283359527587890625e-02,NULL,NULL,0,9,1,NULL,0,NULL,0.0,1);
INSERT INTO "documents" VALUES('cdd80c98-7456-42f1-a9a2-0c7df3a3a90b','1f9e9571-9473-4cec-9151-35f18412ecc9',2,'b.txt','20261121134429773277','d583ec54-06e9-4eef-9d67-70fad62ab266','api',1795268670,1.79526866974079561236e+09,'text_model','English','b1172849-2073-4e06-8001-86bd31c71684','b.txt',18,'txt','text/plain',1.79526866970847105977e+09,'completed',1.79526866971191620828e+09,1.79526866971465516088e+09,1.7952686697160885334e+09,1.79526866971766185755e+09,5.7456493377685546875e-03,NULL,NULL,0,18,1,NULL,0,'{"author": "Ada"}',0.0,2);
CREATE TABLE indexed_dataset (
    number INTEGER PRIMARY KEY,
    dataset_id TEXT NOT NULL UNIQUE
);
INSERT INTO "indexed_dataset" VALUES(1,'1f9e9571-9473-4cec-9151-35f18412ecc9');
CREATE TABLE indexed_segment (
    number INTEGER PRIMARY KEY,
    segment_id TEXT NOT NULL UNIQUE,
    document_id TEXT NOT NULL,
    dataset INTEGER NOT NULL
);
INSERT INTO "indexed_segment" VALUES(1,'98cc0862-436e-4fae-bdbc-47261f080cfb','e6315317-70e3-4420-b524-d2ad5ecfae32',1);
INSERT INTO "indexed_segment" VALUES(2,'b0ce1b6e-2a8d-44c3-867c-408d46d3bf59','cdd80c98-7456-42f1-a9a2-0c7df3a3a90b',1);
CREATE VIRTUAL TABLE indexed_words_1 USING fts5 (words, tokenize = 'ascii');
INSERT INTO indexed_words_1 (rowid, words) VALUES(1,'zebra one');
INSERT INTO indexed_words_1 (rowid, words) VALUES(2,'zebra two and more');
CREATE TABLE metadata (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    type TEXT NOT NULL, name TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "metadata" VALUES('1c14ba61-579f-4abe-b5e7-7e7b0010ccaf','1f9e9571-9473-4cec-9151-35f18412ecc9','string','author',1);
CREATE TABLE metadata_bindings (
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    metadata_id TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (document_id, metadata_id)
);
INSERT INTO "metadata_bindings" VALUES('cdd80c98-7456-42f1-a9a2-0c7df3a3a90b','1c14ba61-579f-4abe-b5e7-7e7b0010ccaf',1);
CREATE TABLE pipeline_files (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, size INTEGER NOT NULL, extension TEXT NOT NULL,
    mime_type TEXT, created_at REAL NOT NULL, content BLOB NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE process_rules (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, mode TEXT NOT NULL, rules TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "process_rules" VALUES('3d96dd23-cccf-4cb5-9fe9-0694a216c04b','1f9e9571-9473-4cec-9151-35f18412ecc9','automatic','{"pre_processing_rules": [{"id": "remove_extra_spaces", "enabled": true}, {"id": "remove_urls_emails", "enabled": false}], "segmentation": {"delimiter": "\n", "max_tokens": 500, "chunk_overlap": 50}}',1);
INSERT INTO "process_rules" VALUES('d583ec54-06e9-4eef-9d67-70fad62ab266','1f9e9571-9473-4cec-9151-35f18412ecc9','automatic','{"pre_processing_rules": [{"id": "remove_extra_spaces", "enabled": true}, {"id": "remove_urls_emails", "enabled": false}], "segmentation": {"delimiter": "\n", "max_tokens": 500, "chunk_overlap": 50}}',2);
CREATE TABLE segments (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, document_id TEXT NOT NULL,
    position INTEGER NOT NULL, content TEXT NOT NULL, keywords TEXT, index_node_id TEXT NOT NULL,
    index_node_hash TEXT NOT NULL, status TEXT NOT NULL, created_at REAL NOT NULL,
    indexing_at REAL, completed_at REAL, answer TEXT, enabled INTEGER NOT NULL,
    disabled_at REAL, updated_at REAL, edited INTEGER NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "segments" VALUES('98cc0862-436e-4fae-bdbc-47261f080cfb','1f9e9571-9473-4cec-9151-35f18412ecc9','e6315317-70e3-4420-b524-d2ad5ecfae32',1,'zebra one','["zebra", "one"]','3cce3a76-223a-4002-b274-e678768ba5af','511bd91a15e4a8b32f9866c210e234564e093cd294f02e6a2dd439ca0ba7c622','completed',1.79526866970323777201e+09,1.79526866970323777201e+09,1795268669.70582,NULL,1,NULL,NULL,0,1);
INSERT INTO "segments" VALUES('b0ce1b6e-2a8d-44c3-867c-408d46d3bf59','1f9e9571-9473-4cec-9151-35f18412ecc9','cdd80c98-7456-42f1-a9a2-0c7df3a3a90b',1,'zebra two
and more','["zebra", "two", "and", "more"]','0ec17535-59c4-426a-8b67-19e2ffec8ba6','fd1a146cedab396ef9b1be75f74b6650f376f83ad458b501a67f4277f2249904','completed',1.7952686697160885334e+09,1.7952686697160885334e+09,1.79526866971756768223e+09,NULL,1,NULL,NULL,0,2);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "settings" VALUES('account','f093aa28-39d5-4a08-b58e-772194601c0e');
INSERT INTO "settings" VALUES('secret','fcd8fba5-f4c1-4b86-a1af-fb30665bbd3c');
CREATE TABLE tag_bindings (
    dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    tag_id TEXT NOT NULL,
    PRIMARY KEY (dataset_id, tag_id)
) WITHOUT ROWID;
INSERT INTO "tag_bindings" VALUES('1f9e9571-9473-4cec-9151-35f18412ecc9','96612656-ebb6-4e9d-9ac3-19709e31092e');
CREATE TABLE tags (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "tags" VALUES('96612656-ebb6-4e9d-9ac3-19709e31092e','red',1);
CREATE INDEX datasets_by_name ON datasets (name);
CREATE INDEX process_rules_of_dataset ON process_rules (dataset_id);
CREATE INDEX documents_by_name ON documents (dataset_id, name, created_at, position);
CREATE INDEX documents_by_time ON documents (dataset_id, created_at, position);
CREATE INDEX documents_by_position ON documents (dataset_id, position);
CREATE INDEX documents_by_batch ON documents (batch);
CREATE INDEX documents_by_state
    ON documents (dataset_id, indexing_status, enabled, archived, word_count);
CREATE INDEX documents_unfinished ON documents (indexing_status)
    WHERE indexing_status NOT IN ('completed', 'error');
CREATE INDEX segments_of_document ON segments (document_id, position);
CREATE INDEX segments_of_dataset ON segments (dataset_id);
CREATE INDEX child_chunks_of_segment ON child_chunks (segment_id, position);
CREATE INDEX metadata_of_dataset ON metadata (dataset_id);
CREATE INDEX metadata_bindings_of_field ON metadata_bindings (metadata_id);
CREATE INDEX tag_bindings_of_tag ON tag_bindings (tag_id);
CREATE INDEX indexed_segment_document ON indexed_segment (document_id);
CREATE INDEX indexed_segment_dataset ON indexed_segment (dataset);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('datasets',1);
INSERT INTO "sqlite_sequence" VALUES('process_rules',2);
INSERT INTO "sqlite_sequence" VALUES('documents',2);
INSERT INTO "sqlite_sequence" VALUES('segments',2);
INSERT INTO "sqlite_sequence" VALUES('metadata',1);
INSERT INTO "sqlite_sequence" VALUES('metadata_bindings',1);
INSERT INTO "sqlite_sequence" VALUES('tags',1);
UPDATE documents SET indexing_status = 'indexing', completed_at = NULL WHERE name = 'b.txt';
ALTER TABLE datasets ADD COLUMN embedding_provider TEXT;
ALTER TABLE datasets ADD COLUMN embedding_model TEXT;
ALTER TABLE segments ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN error TEXT;
CREATE TABLE external_apis (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, endpoint TEXT NOT NULL, api_key TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
CREATE TABLE external_bindings (
    dataset_id TEXT PRIMARY KEY REFERENCES datasets (id) ON DELETE CASCADE,
    api_id TEXT NOT NULL, knowledge_id TEXT NOT NULL
) WITHOUT ROWID;
