"""Serve any search to Dify as an external knowledge base.

Pass a `Retriever`, included or your own, to `create_app` and enter the server's address in Dify's
console. `check` tests how Dify would handle the responses of any such server.
"""

from __future__ import annotations

from .bedrock_retriever import BedrockRetriever
from .dataset_retriever import DatasetRetriever
from .diagnostics import DEFAULT_QUERY, Finding, check
from .dify_requester import InvalidResponseError, RetryPolicy
from .folder_index import FolderCounts
from .folder_retriever import FolderRetriever
from .retrieval_app import create_app, serve
from .retriever import RetrievalRecord, RetrievalRequest, Retriever

__all__ = [
    "DEFAULT_QUERY",
    "BedrockRetriever",
    "DatasetRetriever",
    "Finding",
    "FolderCounts",
    "FolderRetriever",
    "InvalidResponseError",
    "RetrievalRecord",
    "RetrievalRequest",
    "Retriever",
    "RetryPolicy",
    "check",
    "create_app",
    "serve",
]
