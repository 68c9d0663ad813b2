-- Written by an emulator of version 1 of the tables, which was killed while it indexed b.txt.
PRAGMA application_id = 1801610605;
PRAGMA user_version = 1;
CREATE TABLE contents (document_id TEXT PRIMARY KEY, content BLOB NOT NULL);
INSERT INTO "contents" VALUES('ec7330ae-16c7-41a3-a71a-94ad83528bad',X'7A65627261206F6E65');
INSERT INTO "contents" VALUES('3001c099-e690-4a30-b436-5c0919941991',X'7A656272612074776F0A616E64206D6F7265');
CREATE TABLE datasets (
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, description TEXT, provider TEXT NOT NULL,
    permission TEXT NOT NULL, data_source_type TEXT, indexing_technique TEXT,
    retrieval_model TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "datasets" VALUES('4e8cdcdd-80a7-436c-94a1-d6b34ff224e3','old','','vendor','only_me','upload_file','economy',NULL,1.79526863471354699132e+09,1.7952686347331569195e+09,1);
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
    disabled_at REAL, archived INTEGER NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "documents" VALUES('ec7330ae-16c7-41a3-a71a-94ad83528bad','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3',1,'a.txt','20261121134354563460','8d6147b2-1115-41ce-9a7e-c3c1a7ebe240','api',1795268635,1.79526863475187253944e+09,'text_model','English','0f8b67f7-9b67-4bf0-8197-fdb55eb71bdc','a.txt',9,'txt','text/plain',1.79526863473318791389e+09,'completed',1.79526863474099707606e+09,1.79526863474483847613e+09,1.79526863474807357786e+09,1795268634.75187,1.087284088134765625e-02,NULL,NULL,0,9,1,NULL,0,1);
INSERT INTO "documents" VALUES('3001c099-e690-4a30-b436-5c0919941991','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3',2,'b.txt','20261121134354127066','2685be55-d481-4b42-820e-c99a6509cfe5','api',1795268635,1.79526863475920748711e+09,'text_model','English','6442043b-070c-4eec-a4c0-1b7156615081','b.txt',18,'txt','text/plain',1.79526863475371885304e+09,'completed',1.79526863475558614733e+09,1.79526863475649738318e+09,1.79526863475815510748e+09,1.79526863475920534134e+09,3.61919403076171875e-03,NULL,NULL,0,18,1,NULL,0,2);
CREATE TABLE indexed_dataset (
    number INTEGER PRIMARY KEY,
    dataset_id TEXT NOT NULL UNIQUE
);
INSERT INTO "indexed_dataset" VALUES(1,'4e8cdcdd-80a7-436c-94a1-d6b34ff224e3');
CREATE TABLE indexed_segment (
    number INTEGER PRIMARY KEY,
    segment_id TEXT NOT NULL UNIQUE,
    document_id TEXT NOT NULL,
    dataset INTEGER NOT NULL
);
INSERT INTO "indexed_segment" VALUES(1,'ee2ba858-2c05-4abd-90d4-927a348b08f7','ec7330ae-16c7-41a3-a71a-94ad83528bad',1);
INSERT INTO "indexed_segment" VALUES(2,'c123e2be-2089-4819-a612-c0384320fc18','3001c099-e690-4a30-b436-5c0919941991',1);
CREATE VIRTUAL TABLE indexed_words_1 USING fts5 (words, tokenize = 'ascii');
INSERT INTO indexed_words_1 (rowid, words) VALUES(1,'zebra one');
INSERT INTO indexed_words_1 (rowid, words) VALUES(2,'zebra two and more');
CREATE TABLE process_rules (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, mode TEXT NOT NULL, rules TEXT NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "process_rules" VALUES('8d6147b2-1115-41ce-9a7e-c3c1a7ebe240','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3','automatic','{"pre_processing_rules": [{"id": "remove_extra_spaces", "enabled": true}, {"id": "remove_urls_emails", "enabled": false}], "segmentation": {"delimiter": "\n", "max_tokens": 500, "chunk_overlap": 50}}',1);
INSERT INTO "process_rules" VALUES('2685be55-d481-4b42-820e-c99a6509cfe5','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3','automatic','{"pre_processing_rules": [{"id": "remove_extra_spaces", "enabled": true}, {"id": "remove_urls_emails", "enabled": false}], "segmentation": {"delimiter": "\n", "max_tokens": 500, "chunk_overlap": 50}}',2);
CREATE TABLE segments (
    id TEXT NOT NULL UNIQUE, dataset_id TEXT NOT NULL, document_id TEXT NOT NULL,
    position INTEGER NOT NULL, content TEXT NOT NULL, keywords TEXT, index_node_id TEXT NOT NULL,
    index_node_hash TEXT NOT NULL, status TEXT NOT NULL, created_at REAL NOT NULL,
    indexing_at REAL, completed_at REAL,
    number INTEGER PRIMARY KEY AUTOINCREMENT
);
INSERT INTO "segments" VALUES('ee2ba858-2c05-4abd-90d4-927a348b08f7','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3','ec7330ae-16c7-41a3-a71a-94ad83528bad',1,'zebra one','["zebra", "one"]','02a053ea-5e46-4999-965e-8c32c6105e73','511bd91a15e4a8b32f9866c210e234564e093cd294f02e6a2dd439ca0ba7c622','completed',1.79526863474807357786e+09,1.79526863474807357786e+09,1.79526863475171208385e+09,1);
INSERT INTO "segments" VALUES('c123e2be-2089-4819-a612-c0384320fc18','4e8cdcdd-80a7-436c-94a1-d6b34ff224e3','3001c099-e690-4a30-b436-5c0919941991',1,'zebra two
and more','["zebra", "two", "and", "more"]','b8232fd7-8c60-4b18-80e0-cd67b3b98dc2','fd1a146cedab396ef9b1be75f74b6650f376f83ad458b501a67f4277f2249904','completed',1.79526863475815510748e+09,1.79526863475815510748e+09,1.79526863475910663601e+09,2);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "settings" VALUES('account','4bc9189d-60b8-488f-9039-e3fdf1538910');
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
CREATE INDEX indexed_segment_document ON indexed_segment (document_id);
CREATE INDEX indexed_segment_dataset ON indexed_segment (dataset);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('datasets',1);
INSERT INTO "sqlite_sequence" VALUES('process_rules',2);
INSERT INTO "sqlite_sequence" VALUES('documents',2);
INSERT INTO "sqlite_sequence" VALUES('segments',2);
UPDATE documents SET indexing_status = 'indexing', completed_at = NULL WHERE name = 'b.txt';
