"""The endpoints of the Knowledge API, grouped by resource.

A test compares them with the endpoint table (tests/data/endpoints.json).
"""

from __future__ import annotations

from dify_kb.models import (
    AssignMetadata,
    BindTags,
    BuiltInFields,
    ChildChunk,
    ChildChunkResponse,
    CreateByFile,
    CreateByText,
    CreateDataset,
    CreatedDocument,
    CreatedSegments,
    CreateMetadata,
    CreateSegments,
    CreateTag,
    Dataset,
    DatasetTags,
    DatasourcePlugin,
    DeleteTag,
    Document,
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
    RetrievalResult,
    Retrieve,
    RunDatasource,
    RunPipeline,
    Segment,
    SegmentResponse,
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

from .endpoint import NOTHING, Endpoint, LegacyRoute, Repeatability, RequestEncoding

_DATASET = "/datasets/{dataset_id}"
_DOCUMENTS = _DATASET + "/documents"
_DOCUMENT = _DOCUMENTS + "/{document_id}"
_SEGMENTS = _DOCUMENT + "/segments"
_CHILD_CHUNKS = _SEGMENTS + "/{segment_id}/child_chunks"

GET_SERVER_INFO = Endpoint(
    "server.info", "GET", "/",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=ServerInfo, repeatability=Repeatability.SAFE, until="1.8",
)  # fmt: skip

CREATE_DATASET = Endpoint(
    "datasets.create", "POST", "/datasets",
    request_type=CreateDataset, encoding=RequestEncoding.JSON,
    response_type=Dataset, repeatability=Repeatability.CREATE,
)  # fmt: skip
LIST_DATASETS = Endpoint(
    "datasets.list", "GET", "/datasets",
    request_type=ListDatasets, encoding=RequestEncoding.QUERY,
    response_type=Page[Dataset], repeatability=Repeatability.SAFE,
)  # fmt: skip
GET_DATASET = Endpoint(
    "datasets.get", "GET", _DATASET,
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=Dataset, repeatability=Repeatability.SAFE,
)  # fmt: skip
DELETE_DATASET = Endpoint(
    "datasets.delete", "DELETE", _DATASET,
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204,
)  # fmt: skip
UPDATE_DATASET = Endpoint(
    "datasets.update", "PATCH", _DATASET,
    request_type=UpdateDataset, encoding=RequestEncoding.JSON,
    response_type=Dataset, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip
RETRIEVE = Endpoint(
    "datasets.retrieve", "POST", _DATASET + "/retrieve",
    request_type=Retrieve, encoding=RequestEncoding.JSON,
    response_type=RetrievalResult, repeatability=Repeatability.SAFE,
)  # fmt: skip

CREATE_DOCUMENT_BY_TEXT = Endpoint(
    "documents.create_by_text", "POST", _DATASET + "/document/create-by-text",
    request_type=CreateByText, encoding=RequestEncoding.JSON,
    response_type=CreatedDocument, repeatability=Repeatability.UPSERT,
)  # fmt: skip
CREATE_DOCUMENT_BY_FILE = Endpoint(
    "documents.create_by_file", "POST", _DATASET + "/document/create-by-file",
    request_type=CreateByFile, encoding=RequestEncoding.FORM,
    response_type=CreatedDocument, repeatability=Repeatability.UPSERT,
)  # fmt: skip
LIST_DOCUMENTS = Endpoint(
    "documents.list", "GET", _DOCUMENTS,
    request_type=ListDocuments, encoding=RequestEncoding.QUERY,
    response_type=Page[Document], repeatability=Repeatability.SAFE,
)  # fmt: skip
GET_DOCUMENT = Endpoint(
    "documents.get", "GET", _DOCUMENT,
    request_type=GetDocument, encoding=RequestEncoding.QUERY,
    response_type=DocumentDetail, repeatability=Repeatability.SAFE, since="1.8",
)  # fmt: skip
DELETE_DOCUMENT = Endpoint(
    "documents.delete", "DELETE", _DOCUMENT,
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204,
)  # fmt: skip
GET_INDEXING_STATUS = Endpoint(
    "documents.indexing_status", "GET", _DOCUMENTS + "/{batch}/indexing-status",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=DocumentStatuses, repeatability=Repeatability.SAFE,
)  # fmt: skip
UPDATE_DOCUMENT_BY_TEXT = Endpoint(
    "documents.update_by_text", "POST", _DOCUMENT + "/update-by-text",
    request_type=UpdateByText, encoding=RequestEncoding.JSON,
    response_type=CreatedDocument, repeatability=Repeatability.UPSERT,
)  # fmt: skip
UPDATE_DOCUMENT_BY_FILE = Endpoint(
    "documents.update_by_file", "PATCH", _DOCUMENT,
    request_type=UpdateByFile, encoding=RequestEncoding.FORM,
    response_type=CreatedDocument, repeatability=Repeatability.UPSERT,
    legacy=LegacyRoute(before="1.14.2", method="POST", path=_DOCUMENT + "/update-by-file"),
)  # fmt: skip
SET_DOCUMENT_STATUS = Endpoint(
    "documents.set_status", "PATCH", _DOCUMENTS + "/status/{action}",
    request_type=DocumentIds, encoding=RequestEncoding.JSON,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, since="1.8",
)  # fmt: skip
GET_DOWNLOAD_URL = Endpoint(
    "documents.download_url", "GET", _DOCUMENT + "/download",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=DownloadUrl, repeatability=Repeatability.SAFE, since="1.13.1",
)  # fmt: skip
DOWNLOAD_ZIP = Endpoint(
    "documents.download_zip", "POST", _DOCUMENTS + "/download-zip",
    request_type=DocumentIds, encoding=RequestEncoding.JSON,
    response_type=bytes, repeatability=Repeatability.SAFE, since="1.13.1",
)  # fmt: skip
GET_UPLOAD_FILE = Endpoint(
    "documents.upload_file", "GET", _DOCUMENT + "/upload-file",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=StoredFile, repeatability=Repeatability.SAFE, until="1.11",
)  # fmt: skip

CREATE_SEGMENTS = Endpoint(
    "segments.create", "POST", _SEGMENTS,
    request_type=CreateSegments, encoding=RequestEncoding.JSON,
    response_type=CreatedSegments, repeatability=Repeatability.CREATE,
)  # fmt: skip
LIST_SEGMENTS = Endpoint(
    "segments.list", "GET", _SEGMENTS,
    request_type=ListSegments, encoding=RequestEncoding.QUERY,
    response_type=Page[Segment], repeatability=Repeatability.SAFE,
)  # fmt: skip
GET_SEGMENT = Endpoint(
    "segments.get", "GET", _SEGMENTS + "/{segment_id}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=SegmentResponse, repeatability=Repeatability.SAFE,
)  # fmt: skip
UPDATE_SEGMENT = Endpoint(
    "segments.update", "POST", _SEGMENTS + "/{segment_id}",
    request_type=UpdateSegment, encoding=RequestEncoding.JSON,
    response_type=SegmentResponse, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip
DELETE_SEGMENT = Endpoint(
    "segments.delete", "DELETE", _SEGMENTS + "/{segment_id}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204,
)  # fmt: skip

CREATE_CHILD_CHUNK = Endpoint(
    "child_chunks.create", "POST", _CHILD_CHUNKS,
    request_type=WriteChildChunk, encoding=RequestEncoding.JSON,
    response_type=ChildChunkResponse, repeatability=Repeatability.CREATE,
)  # fmt: skip
LIST_CHILD_CHUNKS = Endpoint(
    "child_chunks.list", "GET", _CHILD_CHUNKS,
    request_type=ListChildChunks, encoding=RequestEncoding.QUERY,
    response_type=Page[ChildChunk], repeatability=Repeatability.SAFE,
)  # fmt: skip
UPDATE_CHILD_CHUNK = Endpoint(
    "child_chunks.update", "PATCH", _CHILD_CHUNKS + "/{child_chunk_id}",
    request_type=WriteChildChunk, encoding=RequestEncoding.JSON,
    response_type=ChildChunkResponse, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip
DELETE_CHILD_CHUNK = Endpoint(
    "child_chunks.delete", "DELETE", _CHILD_CHUNKS + "/{child_chunk_id}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204,
)  # fmt: skip

CREATE_METADATA = Endpoint(
    "metadata.create", "POST", _DATASET + "/metadata",
    request_type=CreateMetadata, encoding=RequestEncoding.JSON,
    response_type=MetadataField, repeatability=Repeatability.CREATE, status=201,
)  # fmt: skip
LIST_METADATA = Endpoint(
    "metadata.list", "GET", _DATASET + "/metadata",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=MetadataFields, repeatability=Repeatability.SAFE,
)  # fmt: skip
RENAME_METADATA = Endpoint(
    "metadata.update", "PATCH", _DATASET + "/metadata/{metadata_id}",
    request_type=RenameMetadata, encoding=RequestEncoding.JSON,
    response_type=MetadataField, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip
DELETE_METADATA = Endpoint(
    "metadata.delete", "DELETE", _DATASET + "/metadata/{metadata_id}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204,
)  # fmt: skip
LIST_BUILT_IN_FIELDS = Endpoint(
    "metadata.built_in_fields", "GET", _DATASET + "/metadata/built-in",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=BuiltInFields, repeatability=Repeatability.SAFE,
    legacy=LegacyRoute(before="1.11", method="GET", path="/datasets/metadata/built-in"),
)  # fmt: skip
SET_BUILT_IN_FIELDS = Endpoint(
    "metadata.set_built_in", "POST", _DATASET + "/metadata/built-in/{action}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip
ASSIGN_METADATA = Endpoint(
    "metadata.assign", "POST", _DOCUMENTS + "/metadata",
    request_type=AssignMetadata, encoding=RequestEncoding.JSON,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT,
)  # fmt: skip

LIST_TAGS = Endpoint(
    "tags.list", "GET", "/datasets/tags",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=list[Tag], repeatability=Repeatability.SAFE, since="1.4.2",
)  # fmt: skip
CREATE_TAG = Endpoint(
    "tags.create", "POST", "/datasets/tags",
    request_type=CreateTag, encoding=RequestEncoding.JSON,
    response_type=Tag, repeatability=Repeatability.CREATE, since="1.4.2",
)  # fmt: skip
RENAME_TAG = Endpoint(
    "tags.update", "PATCH", "/datasets/tags",
    request_type=RenameTag, encoding=RequestEncoding.JSON,
    response_type=Tag, repeatability=Repeatability.IDEMPOTENT, since="1.4.2",
)  # fmt: skip
DELETE_TAG = Endpoint(
    "tags.delete", "DELETE", "/datasets/tags",
    request_type=DeleteTag, encoding=RequestEncoding.JSON,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
BIND_TAGS = Endpoint(
    "tags.bind", "POST", "/datasets/tags/binding",
    request_type=BindTags, encoding=RequestEncoding.JSON,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
UNBIND_TAG = Endpoint(
    "tags.unbind", "POST", "/datasets/tags/unbinding",
    request_type=UnbindTag, encoding=RequestEncoding.JSON,
    response_type=NOTHING, repeatability=Repeatability.IDEMPOTENT, status=204, since="1.4.2",
)  # fmt: skip
LIST_DATASET_TAGS = Endpoint(
    "tags.list_for_dataset", "GET", _DATASET + "/tags",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=DatasetTags, repeatability=Repeatability.SAFE, since="1.4.2",
)  # fmt: skip

LIST_MODELS = Endpoint(
    "workspace.models", "GET", "/workspaces/current/models/model-types/{model_type}",
    request_type=NOTHING, encoding=RequestEncoding.NONE,
    response_type=ModelProviders, repeatability=Repeatability.SAFE,
)  # fmt: skip

UPLOAD_PIPELINE_FILE = Endpoint(
    "pipeline.upload_file", "POST", "/datasets/pipeline/file-upload",
    request_type=UploadPipelineFile, encoding=RequestEncoding.FORM,
    response_type=PipelineFile, repeatability=Repeatability.CREATE, status=201, since="1.14.2",
)  # fmt: skip
LIST_DATASOURCE_PLUGINS = Endpoint(
    "pipeline.datasource_plugins", "GET", _DATASET + "/pipeline/datasource-plugins",
    request_type=ListDatasourcePlugins, encoding=RequestEncoding.QUERY,
    response_type=list[DatasourcePlugin], repeatability=Repeatability.SAFE, since="1.14.2",
)  # fmt: skip
RUN_DATASOURCE = Endpoint(
    "pipeline.run_datasource", "POST", _DATASET + "/pipeline/datasource/nodes/{node_id}/run",
    request_type=RunDatasource, encoding=RequestEncoding.JSON,
    response_type=Event, repeatability=Repeatability.CREATE, since="1.14.2",
)  # fmt: skip
RUN_PIPELINE = Endpoint(
    "pipeline.run", "POST", _DATASET + "/pipeline/run",
    request_type=RunPipeline, encoding=RequestEncoding.JSON,
    response_type=Event, repeatability=Repeatability.CREATE, since="1.14.2",
)  # fmt: skip

ENDPOINTS = tuple(value for value in globals().values() if isinstance(value, Endpoint))
