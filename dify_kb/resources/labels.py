"""The former name of `MetadataAssignment`, until the load engine constructs that itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .metadata_assignment import AT_ONCE, MetadataAssignment

if TYPE_CHECKING:
    from dify_kb.models import Dataset

    from .documents import Documents
    from .metadata import Metadata

__all__ = ["AT_ONCE", "Labels"]


class Labels(MetadataAssignment):
    """`MetadataAssignment` made of resources."""

    def __init__(self, metadata: Metadata, _documents: Documents, dataset: Dataset | str) -> None:
        super().__init__(metadata._send, dataset)  # noqa: SLF001 -- gone with this module
