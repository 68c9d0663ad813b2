"""The other direction: any search, served as an external knowledge base of Dify.

Write a `Retriever`, or take one that ships, give it to `create_app`, and enter its address in
Dify's console. `check` tells what Dify would think of any such address.
"""

from __future__ import annotations

from .bedrock_retriever import BedrockRetriever
from .dataset_retriever import DatasetRetriever
from .diagnostics import DEFAULT_QUERY, Finding, check
from .dify_requester import InvalidReplyError, RetryPolicy
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
    "InvalidReplyError",
    "RetrievalRecord",
    "RetrievalRequest",
    "Retriever",
    "RetryPolicy",
    "check",
    "create_app",
    "serve",
]
