"""What the API says: frozen attrs classes, no I/O.

Response fields that every server sends have no default; the others are None where a server does
not send them, and what this package does not know is kept in `extra`. Request fields that are
optional are `UNSET` and then not sent; `None` is sent as null.
"""

from __future__ import annotations

from ._base import UNSET, OpenEnum, Page, Unset
from .dataset import (
    CreateDataset,
    Dataset,
    DocForm,
    IndexingTechnique,
    ListDatasets,
    Permission,
    StoredRetrievalModel,
)
from .document import (
    DOCUMENT_EXTENSIONS,
    MAX_FILE_SIZE,
    CreateByFile,
    CreateByText,
    DisplayStatus,
    Document,
    DocumentCreated,
    DocumentDetail,
    DocumentStatus,
    DocumentStatuses,
    GetDocument,
    IndexingStatus,
    ListDocuments,
    SourceDetail,
    SourceInfo,
    UploadFile,
)
from .file import File
from .process_rule import (
    MAX_CHUNK,
    MIN_CHUNK,
    ParentMode,
    PreProcessingRule,
    ProcessMode,
    ProcessRule,
    Rules,
    Segmentation,
)
from .retrieval import (
    MAX_QUERY,
    KeywordSetting,
    Query,
    Record,
    RecordChild,
    RecordDocument,
    RecordSegment,
    RerankingMode,
    RerankingModel,
    RetrievalModel,
    Retrieve,
    Retrieved,
    SearchMethod,
    VectorSetting,
    Weights,
)
from .segment import Segment
from .server import ServerInfo
from .workspace import ModelProvider, ModelProviders, ModelRef, ModelType, ProviderModel

__all__ = [
    "DOCUMENT_EXTENSIONS",
    "MAX_CHUNK",
    "MAX_FILE_SIZE",
    "MAX_QUERY",
    "MIN_CHUNK",
    "UNSET",
    "CreateByFile",
    "CreateByText",
    "CreateDataset",
    "Dataset",
    "DisplayStatus",
    "DocForm",
    "Document",
    "DocumentCreated",
    "DocumentDetail",
    "DocumentStatus",
    "DocumentStatuses",
    "File",
    "GetDocument",
    "IndexingStatus",
    "IndexingTechnique",
    "KeywordSetting",
    "ListDatasets",
    "ListDocuments",
    "ModelProvider",
    "ModelProviders",
    "ModelRef",
    "ModelType",
    "OpenEnum",
    "Page",
    "ParentMode",
    "Permission",
    "PreProcessingRule",
    "ProcessMode",
    "ProcessRule",
    "ProviderModel",
    "Query",
    "Record",
    "RecordChild",
    "RecordDocument",
    "RecordSegment",
    "RerankingMode",
    "RerankingModel",
    "RetrievalModel",
    "Retrieve",
    "Retrieved",
    "Rules",
    "SearchMethod",
    "Segment",
    "Segmentation",
    "ServerInfo",
    "SourceDetail",
    "SourceInfo",
    "StoredRetrievalModel",
    "Unset",
    "UploadFile",
    "VectorSetting",
    "Weights",
]
