"""File extensions accepted only by some servers, and those of text files."""

from __future__ import annotations

UNSTRUCTURED_EXTENSIONS = frozenset({"doc", "eml", "epub", "msg", "ppt", "pptx", "xml"})
"""Accepted only if Dify runs with `ETL_TYPE=Unstructured` (its `api/constants/__init__.py`)."""

TEXT_EXTENSIONS = frozenset(
    {"csv", "htm", "html", "markdown", "md", "mdx", "properties", "txt", "vtt"}
)
"""Files that the server cleans and chunks as text without conversion."""
