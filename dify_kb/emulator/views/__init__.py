"""Rows as the models that answers are made of."""

from __future__ import annotations

from .datasets import dataset, stored_retrieval
from .documents import detail, document, found_segment, status

__all__ = ["dataset", "detail", "document", "found_segment", "status", "stored_retrieval"]
