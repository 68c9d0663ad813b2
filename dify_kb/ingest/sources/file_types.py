"""Extensions beyond those that every server accepts, and those whose files are text."""

from __future__ import annotations

UNSTRUCTURED_EXTENSIONS = frozenset({"doc", "eml", "epub", "msg", "ppt", "pptx", "xml"})
"""Accepted by Dify with `ETL_TYPE=Unstructured` only (`api/constants/__init__.py` there)."""

TEXT_EXTENSIONS = frozenset(
    {"csv", "htm", "html", "markdown", "md", "mdx", "properties", "txt", "vtt"}
)
"""Files whose bytes are the text that the server cleans and cuts."""
