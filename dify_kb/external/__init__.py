"""The other direction: any search, served as an external knowledge base of Dify.

Write a `Retriever`, or take one that ships, give it to `create_app`, and enter its address in
Dify's console. `check` tells what Dify would think of any such address.
"""

from __future__ import annotations

from .app import create_app
from .bedrock import BedrockRetriever
from .check import QUERY, check
from .contract import Record, RetrievalRequest, Retriever
from .dataset import DatasetRetriever
from .dify import DroppedError, Patience
from .findings import Finding
from .folder import FolderRetriever
from .folder_index import Counts
from .serving import listening

__all__ = [
    "QUERY",
    "BedrockRetriever",
    "Counts",
    "DatasetRetriever",
    "DroppedError",
    "Finding",
    "FolderRetriever",
    "Patience",
    "Record",
    "RetrievalRequest",
    "Retriever",
    "check",
    "create_app",
    "listening",
]
