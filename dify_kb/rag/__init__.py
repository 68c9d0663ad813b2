"""Extract, clean, chunk, index and search documents as a Dify server does, without HTTP.

All functions are synchronous and hold the GIL; call them in a thread. Unless a docstring says
otherwise, the behaviour is that of Dify 1.12.1.
"""

from __future__ import annotations

from .chunk import ChunkError, SplitterVersion, build_leading_symbols, chunk, chunk_with_sources
from .embedding import cosine_similarity, embed
from .extract import can_extract, extract
from .extract_errors import ExtractError
from .filter_evaluation import FilterError, matches_filter
from .parent_child import ParentChunk, chunk_children, chunk_parents
from .rerank import Candidate, deduplicate, rerank, rerank_by_weights
from .search_index import IndexedSegment, SearchHit, SearchIndex
from .tokenize import extract_keywords, remove_stop_words, tokenize

__all__ = [
    "Candidate",
    "ChunkError",
    "ExtractError",
    "FilterError",
    "IndexedSegment",
    "ParentChunk",
    "SearchHit",
    "SearchIndex",
    "SplitterVersion",
    "build_leading_symbols",
    "can_extract",
    "chunk",
    "chunk_children",
    "chunk_parents",
    "chunk_with_sources",
    "cosine_similarity",
    "deduplicate",
    "embed",
    "extract",
    "extract_keywords",
    "matches_filter",
    "remove_stop_words",
    "rerank",
    "rerank_by_weights",
    "tokenize",
]
