"""A client for the Knowledge API of self-hosted Dify: load, synchronize and search documents.

    async with AsyncClient("https://dify.example/v1", "dataset-…") as client:
        dataset = await client.datasets.create("Handbook", indexing_technique="economy")
        report = await client.load(dataset, "docs/")
        result = await client.datasets.retrieve(dataset, "how do I reset it?")

`Client` is the blocking client with the same methods.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dify_kb.blocking import Client

    from .archive import (
        ArchiveProgress,
        CompareReport,
        CopyReport,
        DatasetDifference,
        ExportReport,
        ImportReport,
        OnArchiveEvent,
        OnExistingDocument,
        VerifyReport,
        verify_archive,
    )
    from .arguments import Duration
    from .client import AsyncClient
    from .config import LoadTiming, Policy, Polling, Retry, Timeout
    from .errors import (
        ApiError,
        ArchiveError,
        BadRequestError,
        ConfigError,
        ConflictError,
        ConnectError,
        ForbiddenError,
        JournalError,
        KnowledgeError,
        LoadError,
        NotFoundError,
        OutcomeUnknownError,
        PartialError,
        ProtocolError,
        QuotaExceededError,
        RateLimitedError,
        RequestTimeoutError,
        ServerError,
        SourceChangedError,
        SourceError,
        TooLargeError,
        TransportError,
        UnauthorizedError,
        UnsupportedTypeError,
    )
    from .event_loops import EventLoopName
    from .ingest import (
        Auto,
        FileSource,
        FileTimes,
        FrontMatter,
        Item,
        ItemResult,
        LoadEvent,
        LoadMetadata,
        LoadReport,
        MetadataSource,
        OnError,
        OnExisting,
        OnLoadEvent,
        OpenedEntry,
        Outcome,
        PathPattern,
        Progress,
        Replace,
        Results,
        Sidecar,
        Source,
        SourceEntry,
        StopReason,
        Table,
        Wait,
    )
    from .ingest.sources.archive_source import ArchiveSource
    from .ingest.sources.git_source import GitSource
    from .ingest.sources.url_list import UrlList
    from .models import (
        UNSET,
        ChildChunk,
        ComparisonOperator,
        Condition,
        CreatedDocument,
        Dataset,
        DatasourceType,
        DisplayStatus,
        DisplayStatusName,
        DocForm,
        DocFormName,
        Document,
        DocumentDetail,
        DocumentMetadata,
        DocumentStatus,
        Event,
        ExternalRetrieval,
        Field,
        IndexingStatus,
        IndexingTechnique,
        MetadataField,
        MetadataFields,
        MetadataFilter,
        MetadataSelection,
        MetadataType,
        MetadataTypeName,
        MetadataValue,
        ModelProvider,
        ModelRef,
        ModelType,
        NewSegment,
        Page,
        ParentMode,
        Permission,
        PermissionName,
        PipelineFile,
        ProcessRule,
        ProviderName,
        Record,
        RetrievalModel,
        RetrievalResult,
        SearchMethod,
        SearchMethodName,
        Segment,
        SegmentStatus,
        SegmentStatusName,
        ServerInfo,
        StoredFile,
        SummaryIndexSetting,
        Tag,
        TechniqueName,
        Unset,
    )
    from .resources import Events, Pager
    from .sync import DeleteMode, MayDelete, SyncAction, SyncChange, SyncReport, SyncState
    from .transport import AttemptEvent, OnAttempt

__version__ = "0.1.0"

__all__ = [
    "UNSET",
    "ApiError",
    "ArchiveError",
    "ArchiveProgress",
    "ArchiveSource",
    "AsyncClient",
    "AttemptEvent",
    "Auto",
    "BadRequestError",
    "ChildChunk",
    "Client",
    "CompareReport",
    "ComparisonOperator",
    "Condition",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "CopyReport",
    "CreatedDocument",
    "Dataset",
    "DatasetDifference",
    "DatasourceType",
    "DeleteMode",
    "DisplayStatus",
    "DisplayStatusName",
    "DocForm",
    "DocFormName",
    "Document",
    "DocumentDetail",
    "DocumentMetadata",
    "DocumentStatus",
    "Duration",
    "Event",
    "EventLoopName",
    "Events",
    "ExportReport",
    "ExternalRetrieval",
    "Field",
    "FileSource",
    "FileTimes",
    "ForbiddenError",
    "FrontMatter",
    "GitSource",
    "ImportReport",
    "IndexingStatus",
    "IndexingTechnique",
    "Item",
    "ItemResult",
    "JournalError",
    "KnowledgeError",
    "LoadError",
    "LoadEvent",
    "LoadMetadata",
    "LoadReport",
    "LoadTiming",
    "MayDelete",
    "MetadataField",
    "MetadataFields",
    "MetadataFilter",
    "MetadataSelection",
    "MetadataSource",
    "MetadataType",
    "MetadataTypeName",
    "MetadataValue",
    "ModelProvider",
    "ModelRef",
    "ModelType",
    "NewSegment",
    "NotFoundError",
    "OnArchiveEvent",
    "OnAttempt",
    "OnError",
    "OnExisting",
    "OnExistingDocument",
    "OnLoadEvent",
    "OpenedEntry",
    "Outcome",
    "OutcomeUnknownError",
    "Page",
    "Pager",
    "ParentMode",
    "PartialError",
    "PathPattern",
    "Permission",
    "PermissionName",
    "PipelineFile",
    "Policy",
    "Polling",
    "ProcessRule",
    "Progress",
    "ProtocolError",
    "ProviderName",
    "QuotaExceededError",
    "RateLimitedError",
    "Record",
    "Replace",
    "RequestTimeoutError",
    "Results",
    "RetrievalModel",
    "RetrievalResult",
    "Retry",
    "SearchMethod",
    "SearchMethodName",
    "Segment",
    "SegmentStatus",
    "SegmentStatusName",
    "ServerError",
    "ServerInfo",
    "Sidecar",
    "Source",
    "SourceChangedError",
    "SourceEntry",
    "SourceError",
    "StopReason",
    "StoredFile",
    "SummaryIndexSetting",
    "SyncAction",
    "SyncChange",
    "SyncReport",
    "SyncState",
    "Table",
    "Tag",
    "TechniqueName",
    "Timeout",
    "TooLargeError",
    "TransportError",
    "UnauthorizedError",
    "Unset",
    "UnsupportedTypeError",
    "UrlList",
    "VerifyReport",
    "Wait",
    "__version__",
    "verify_archive",
]

_HOMES = {
    "archive": "ArchiveProgress CompareReport CopyReport DatasetDifference ExportReport"
    " ImportReport OnArchiveEvent OnExistingDocument VerifyReport verify_archive",
    "client": "AsyncClient",
    "arguments": "Duration",
    "config": "LoadTiming Policy Polling Retry Timeout",
    "event_loops": "EventLoopName",
    "ingest": "Auto FileTimes FrontMatter LoadEvent LoadMetadata MetadataSource OnError OnExisting"
    " OnLoadEvent PathPattern Replace Sidecar Source Table Wait"
    " FileSource Item ItemResult LoadReport OpenedEntry Outcome Progress Results"
    " SourceEntry StopReason",
    "ingest.sources.archive_source": "ArchiveSource",
    "ingest.sources.git_source": "GitSource",
    "ingest.sources.url_list": "UrlList",
    "resources": "Events Pager",
    "sync": "DeleteMode MayDelete SyncAction SyncChange SyncReport SyncState",
    "blocking": "Client",
    "transport": "AttemptEvent OnAttempt",
}
"""The submodule of each public name that is neither an error nor a model."""

_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name on its first use, which keeps `import dify_kb` fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME.get(name, "errors" if name.endswith("Error") else "models")
    value: object = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
