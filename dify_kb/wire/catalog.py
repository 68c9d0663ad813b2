"""The operations of the Knowledge API, grouped by noun. The only place that knows paths.

Checked against the endpoint table (tests/data/endpoints.json) by a test.
"""

from __future__ import annotations

from dify_kb.models import (
    AssignMetadata,
    BindTags,
    BuiltInFields,
    ChildChunk,
    ChildChunkAnswer,
    CreateByFile,
    CreateByText,
    CreateDataset,
    CreateMetadata,
    CreateSegments,
    CreateTag,
    Dataset,
    DatasetTags,
    DatasourcePlugin,
    DeleteTag,
    Document,
    DocumentCreated,
    DocumentDetail,
    DocumentIds,
    DocumentStatuses,
    DownloadUrl,
    Event,
    GetDocument,
    ListChildChunks,
    ListDatasets,
    ListDatasourcePlugins,
    ListDocuments,
    ListSegments,
    MetadataField,
    MetadataFields,
    ModelProviders,
    Page,
    PipelineFile,
    RenameMetadata,
    RenameTag,
    Retrieve,
    Retrieved,
    RunDatasource,
    RunPipeline,
    Segment,
    SegmentAnswer,
    SegmentsCreated,
    ServerInfo,
    StoredFile,
    Tag,
    UnbindTag,
    UpdateByFile,
    UpdateByText,
    UpdateDataset,
    UpdateSegment,
    UploadPipelineFile,
    WriteChildChunk,
)

from .endpoint import NOTHING, Endpoint, Older, Repeat, Where

_DATASET = "/datasets/{dataset_id}"
_DOCUMENTS = _DATASET + "/documents"
_DOCUMENT = _DOCUMENTS + "/{document_id}"
_SEGMENTS = _DOCUMENT + "/segments"
_CHILD_CHUNKS = _SEGMENTS + "/{segment_id}/child_chunks"

GET_SERVER_INFO = Endpoint(
    "server.info", "GET", "/",
    takes=NOTHING, where=Where.NOWHERE, returns=ServerInfo, repeat=Repeat.SAFE,
)  # fmt: skip

CREATE_DATASET = Endpoint(
    "datasets.create", "POST", "/datasets",
    takes=CreateDataset, where=Where.JSON, returns=Dataset, repeat=Repeat.CREATES,
)  # fmt: skip
LIST_DATASETS = Endpoint(
    "datasets.list", "GET", "/datasets",
    takes=ListDatasets, where=Where.QUERY, returns=Page[Dataset], repeat=Repeat.SAFE,
)  # fmt: skip
GET_DATASET = Endpoint(
    "datasets.get", "GET", _DATASET,
    takes=NOTHING, where=Where.NOWHERE, returns=Dataset, repeat=Repeat.SAFE,
)  # fmt: skip
DELETE_DATASET = Endpoint(
    "datasets.delete", "DELETE", _DATASET,
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip
UPDATE_DATASET = Endpoint(
    "datasets.update", "PATCH", _DATASET,
    takes=UpdateDataset, where=Where.JSON, returns=Dataset, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip
RETRIEVE = Endpoint(
    "datasets.retrieve", "POST", _DATASET + "/retrieve",
    takes=Retrieve, where=Where.JSON, returns=Retrieved, repeat=Repeat.SAFE,
)  # fmt: skip

CREATE_DOCUMENT_BY_TEXT = Endpoint(
    "documents.create_by_text", "POST", _DATASET + "/document/create-by-text",
    takes=CreateByText, where=Where.JSON, returns=DocumentCreated, repeat=Repeat.UPSERT,
)  # fmt: skip
CREATE_DOCUMENT_BY_FILE = Endpoint(
    "documents.create_by_file", "POST", _DATASET + "/document/create-by-file",
    takes=CreateByFile, where=Where.FORM, returns=DocumentCreated, repeat=Repeat.UPSERT,
)  # fmt: skip
LIST_DOCUMENTS = Endpoint(
    "documents.list", "GET", _DOCUMENTS,
    takes=ListDocuments, where=Where.QUERY, returns=Page[Document], repeat=Repeat.SAFE,
)  # fmt: skip
GET_DOCUMENT = Endpoint(
    "documents.get", "GET", _DOCUMENT,
    takes=GetDocument, where=Where.QUERY, returns=DocumentDetail, repeat=Repeat.SAFE, since="1.8",
)  # fmt: skip
DELETE_DOCUMENT = Endpoint(
    "documents.delete", "DELETE", _DOCUMENT,
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip
GET_INDEXING_STATUS = Endpoint(
    "documents.indexing_status", "GET", _DOCUMENTS + "/{batch}/indexing-status",
    takes=NOTHING, where=Where.NOWHERE, returns=DocumentStatuses, repeat=Repeat.SAFE,
)  # fmt: skip
UPDATE_DOCUMENT_BY_TEXT = Endpoint(
    "documents.update_by_text", "POST", _DOCUMENT + "/update-by-text",
    takes=UpdateByText, where=Where.JSON, returns=DocumentCreated, repeat=Repeat.UPSERT,
)  # fmt: skip
UPDATE_DOCUMENT_BY_FILE = Endpoint(
    "documents.update_by_file", "PATCH", _DOCUMENT,
    takes=UpdateByFile, where=Where.FORM, returns=DocumentCreated, repeat=Repeat.UPSERT,
    older=Older(before="1.16", method="POST", path=_DOCUMENT + "/update-by-file"),
)  # fmt: skip
SET_DOCUMENT_STATUS = Endpoint(
    "documents.set_status", "PATCH", _DOCUMENTS + "/status/{action}",
    takes=DocumentIds, where=Where.JSON, returns=NOTHING, repeat=Repeat.IDEMPOTENT, since="1.8",
)  # fmt: skip
GET_DOWNLOAD_URL = Endpoint(
    "documents.download_url", "GET", _DOCUMENT + "/download",
    takes=NOTHING, where=Where.NOWHERE, returns=DownloadUrl, repeat=Repeat.SAFE, since="1.16",
)  # fmt: skip
DOWNLOAD_ZIP = Endpoint(
    "documents.download_zip", "POST", _DOCUMENTS + "/download-zip",
    takes=DocumentIds, where=Where.JSON, returns=bytes, repeat=Repeat.SAFE, since="1.16",
)  # fmt: skip
GET_UPLOAD_FILE = Endpoint(
    "documents.upload_file", "GET", _DOCUMENT + "/upload-file",
    takes=NOTHING, where=Where.NOWHERE, returns=StoredFile, repeat=Repeat.SAFE, until="1.11",
)  # fmt: skip

CREATE_SEGMENTS = Endpoint(
    "segments.create", "POST", _SEGMENTS,
    takes=CreateSegments, where=Where.JSON, returns=SegmentsCreated, repeat=Repeat.CREATES,
)  # fmt: skip
LIST_SEGMENTS = Endpoint(
    "segments.list", "GET", _SEGMENTS,
    takes=ListSegments, where=Where.QUERY, returns=Page[Segment], repeat=Repeat.SAFE,
)  # fmt: skip
GET_SEGMENT = Endpoint(
    "segments.get", "GET", _SEGMENTS + "/{segment_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=SegmentAnswer, repeat=Repeat.SAFE,
)  # fmt: skip
UPDATE_SEGMENT = Endpoint(
    "segments.update", "POST", _SEGMENTS + "/{segment_id}",
    takes=UpdateSegment, where=Where.JSON, returns=SegmentAnswer, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip
DELETE_SEGMENT = Endpoint(
    "segments.delete", "DELETE", _SEGMENTS + "/{segment_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip

CREATE_CHILD_CHUNK = Endpoint(
    "child_chunks.create", "POST", _CHILD_CHUNKS,
    takes=WriteChildChunk, where=Where.JSON, returns=ChildChunkAnswer, repeat=Repeat.CREATES,
)  # fmt: skip
LIST_CHILD_CHUNKS = Endpoint(
    "child_chunks.list", "GET", _CHILD_CHUNKS,
    takes=ListChildChunks, where=Where.QUERY, returns=Page[ChildChunk], repeat=Repeat.SAFE,
)  # fmt: skip
UPDATE_CHILD_CHUNK = Endpoint(
    "child_chunks.update", "PATCH", _CHILD_CHUNKS + "/{child_chunk_id}",
    takes=WriteChildChunk, where=Where.JSON, returns=ChildChunkAnswer, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip
DELETE_CHILD_CHUNK = Endpoint(
    "child_chunks.delete", "DELETE", _CHILD_CHUNKS + "/{child_chunk_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip

CREATE_METADATA = Endpoint(
    "metadata.create", "POST", _DATASET + "/metadata",
    takes=CreateMetadata, where=Where.JSON,
    returns=MetadataField, repeat=Repeat.CREATES, status=201,
)  # fmt: skip
LIST_METADATA = Endpoint(
    "metadata.list", "GET", _DATASET + "/metadata",
    takes=NOTHING, where=Where.NOWHERE, returns=MetadataFields, repeat=Repeat.SAFE,
)  # fmt: skip
RENAME_METADATA = Endpoint(
    "metadata.update", "PATCH", _DATASET + "/metadata/{metadata_id}",
    takes=RenameMetadata, where=Where.JSON, returns=MetadataField, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip
DELETE_METADATA = Endpoint(
    "metadata.delete", "DELETE", _DATASET + "/metadata/{metadata_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip
LIST_BUILT_IN_FIELDS = Endpoint(
    "metadata.built_in_fields", "GET", _DATASET + "/metadata/built-in",
    takes=NOTHING, where=Where.NOWHERE, returns=BuiltInFields, repeat=Repeat.SAFE,
    older=Older(before="1.11", method="GET", path="/datasets/metadata/built-in"),
)  # fmt: skip
SET_BUILT_IN_FIELDS = Endpoint(
    "metadata.set_built_in", "POST", _DATASET + "/metadata/built-in/{action}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip
ASSIGN_METADATA = Endpoint(
    "metadata.assign", "POST", _DOCUMENTS + "/metadata",
    takes=AssignMetadata, where=Where.JSON, returns=NOTHING, repeat=Repeat.IDEMPOTENT,
)  # fmt: skip

LIST_TAGS = Endpoint(
    "tags.list", "GET", "/datasets/tags",
    takes=NOTHING, where=Where.NOWHERE, returns=list[Tag], repeat=Repeat.SAFE, since="1.4.2",
)  # fmt: skip
CREATE_TAG = Endpoint(
    "tags.create", "POST", "/datasets/tags",
    takes=CreateTag, where=Where.JSON, returns=Tag, repeat=Repeat.CREATES, since="1.4.2",
)  # fmt: skip
RENAME_TAG = Endpoint(
    "tags.update", "PATCH", "/datasets/tags",
    takes=RenameTag, where=Where.JSON, returns=Tag, repeat=Repeat.IDEMPOTENT, since="1.4.2",
)  # fmt: skip
DELETE_TAG = Endpoint(
    "tags.delete", "DELETE", "/datasets/tags",
    takes=DeleteTag, where=Where.JSON,
    returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
BIND_TAGS = Endpoint(
    "tags.bind", "POST", "/datasets/tags/binding",
    takes=BindTags, where=Where.JSON,
    returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
UNBIND_TAG = Endpoint(
    "tags.unbind", "POST", "/datasets/tags/unbinding",
    takes=UnbindTag, where=Where.JSON,
    returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
LIST_DATASET_TAGS = Endpoint(
    "tags.list_for_dataset", "GET", _DATASET + "/tags",
    takes=NOTHING, where=Where.NOWHERE, returns=DatasetTags, repeat=Repeat.SAFE, since="1.4.2",
)  # fmt: skip

LIST_MODELS = Endpoint(
    "workspace.models", "GET", "/workspaces/current/models/model-types/{model_type}",
    takes=NOTHING, where=Where.NOWHERE, returns=ModelProviders, repeat=Repeat.SAFE,
)  # fmt: skip

UPLOAD_PIPELINE_FILE = Endpoint(
    "pipeline.upload_file", "POST", "/datasets/pipeline/file-upload",
    takes=UploadPipelineFile, where=Where.FORM,
    returns=PipelineFile, repeat=Repeat.CREATES, status=201, since="1.16",
)  # fmt: skip
LIST_DATASOURCE_PLUGINS = Endpoint(
    "pipeline.datasource_plugins", "GET", _DATASET + "/pipeline/datasource-plugins",
    takes=ListDatasourcePlugins, where=Where.QUERY,
    returns=list[DatasourcePlugin], repeat=Repeat.SAFE, since="1.16",
)  # fmt: skip
RUN_DATASOURCE = Endpoint(
    "pipeline.run_datasource", "POST", _DATASET + "/pipeline/datasource/nodes/{node_id}/run",
    takes=RunDatasource, where=Where.JSON, returns=Event, repeat=Repeat.CREATES, since="1.16",
)  # fmt: skip
RUN_PIPELINE = Endpoint(
    "pipeline.run", "POST", _DATASET + "/pipeline/run",
    takes=RunPipeline, where=Where.JSON, returns=Event, repeat=Repeat.CREATES, since="1.16",
)  # fmt: skip

ENDPOINTS = tuple(value for value in globals().values() if isinstance(value, Endpoint))
