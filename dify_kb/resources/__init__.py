"""The API resources: one class per resource, one method per operation."""

from __future__ import annotations

from ._pager import Pager
from .child_chunks import ChildChunks
from .datasets import Datasets
from .documents import Documents
from .metadata import Metadata
from .pipeline import Events, Pipeline
from .segments import Segments
from .tags import Tags
from .workspace import Workspace

__all__ = [
    "ChildChunks",
    "Datasets",
    "Documents",
    "Events",
    "Metadata",
    "Pager",
    "Pipeline",
    "Segments",
    "Tags",
    "Workspace",
]
