"""A reproducible corpus of generated documents, with questions that they answer."""

from __future__ import annotations

from .random_text import Question
from .sample_documents import (
    FORMAT_SHARES,
    Sample,
    generate_documents,
    generate_html_page,
    queries_for_samples,
    read_user_files,
)

__all__ = [
    "FORMAT_SHARES",
    "Question",
    "Sample",
    "generate_documents",
    "generate_html_page",
    "queries_for_samples",
    "read_user_files",
]
