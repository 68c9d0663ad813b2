"""A folder of documents to measure with: the same for the same seed, with questions it answers."""

from __future__ import annotations

from .folder import own_files, questions_about
from .make import FORMATS, Sample, corpus, page_of
from .manual import Question

__all__ = [
    "FORMATS",
    "Question",
    "Sample",
    "corpus",
    "own_files",
    "page_of",
    "questions_about",
]
