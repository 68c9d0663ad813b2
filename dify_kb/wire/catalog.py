"""The operations of the Knowledge API, grouped by noun. The only place that knows paths.

Checked against the endpoint table (tests/data/endpoints.json) by a test.
"""

from __future__ import annotations

from dify_kb.models import (
    CreateByFile,
    CreateByText,
    CreateDataset,
    Dataset,
    Document,
    DocumentCreated,
    DocumentDetail,
    DocumentStatuses,
    GetDocument,
    ListDatasets,
    ListDocuments,
    ModelProviders,
    Page,
    Retrieve,
    Retrieved,
    ServerInfo,
)

from .endpoint import NOTHING, Endpoint, Repeat, Where

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
    "datasets.get", "GET", "/datasets/{dataset_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=Dataset, repeat=Repeat.SAFE,
)  # fmt: skip
DELETE_DATASET = Endpoint(
    "datasets.delete", "DELETE", "/datasets/{dataset_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip
RETRIEVE = Endpoint(
    "datasets.retrieve", "POST", "/datasets/{dataset_id}/retrieve",
    takes=Retrieve, where=Where.JSON, returns=Retrieved, repeat=Repeat.SAFE,
)  # fmt: skip

CREATE_DOCUMENT_BY_TEXT = Endpoint(
    "documents.create_by_text", "POST", "/datasets/{dataset_id}/document/create-by-text",
    takes=CreateByText, where=Where.JSON, returns=DocumentCreated, repeat=Repeat.UPSERT,
)  # fmt: skip
CREATE_DOCUMENT_BY_FILE = Endpoint(
    "documents.create_by_file", "POST", "/datasets/{dataset_id}/document/create-by-file",
    takes=CreateByFile, where=Where.FORM, returns=DocumentCreated, repeat=Repeat.UPSERT,
)  # fmt: skip
LIST_DOCUMENTS = Endpoint(
    "documents.list", "GET", "/datasets/{dataset_id}/documents",
    takes=ListDocuments, where=Where.QUERY, returns=Page[Document], repeat=Repeat.SAFE,
)  # fmt: skip
GET_DOCUMENT = Endpoint(
    "documents.get", "GET", "/datasets/{dataset_id}/documents/{document_id}",
    takes=GetDocument, where=Where.QUERY, returns=DocumentDetail, repeat=Repeat.SAFE,
)  # fmt: skip
DELETE_DOCUMENT = Endpoint(
    "documents.delete", "DELETE", "/datasets/{dataset_id}/documents/{document_id}",
    takes=NOTHING, where=Where.NOWHERE, returns=NOTHING, repeat=Repeat.IDEMPOTENT, status=204,
)  # fmt: skip
GET_INDEXING_STATUS = Endpoint(
    "documents.indexing_status", "GET", "/datasets/{dataset_id}/documents/{batch}/indexing-status",
    takes=NOTHING, where=Where.NOWHERE, returns=DocumentStatuses, repeat=Repeat.SAFE,
)  # fmt: skip

LIST_MODELS = Endpoint(
    "workspace.models", "GET", "/workspaces/current/models/model-types/{model_type}",
    takes=NOTHING, where=Where.NOWHERE, returns=ModelProviders, repeat=Repeat.SAFE,
)  # fmt: skip

ENDPOINTS = tuple(value for value in globals().values() if isinstance(value, Endpoint))
