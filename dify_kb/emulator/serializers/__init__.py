"""Serialize rows of the store as the models of responses."""

from __future__ import annotations

from .datasets import (
    read_retrieval_model,
    serialize_dataset,
    serialize_dataset_tags,
    serialize_tag,
)
from .documents import (
    get_display_status,
    serialize_child_chunk,
    serialize_document,
    serialize_document_detail,
    serialize_document_status,
    serialize_record_segment,
    serialize_segment,
)
from .metadata import (
    BUILT_IN_FIELD_TYPES,
    build_built_in_values,
    read_metadata_values,
    serialize_metadata_field,
    serialize_metadata_fields,
)

__all__ = [
    "BUILT_IN_FIELD_TYPES",
    "build_built_in_values",
    "get_display_status",
    "read_metadata_values",
    "read_retrieval_model",
    "serialize_child_chunk",
    "serialize_dataset",
    "serialize_dataset_tags",
    "serialize_document",
    "serialize_document_detail",
    "serialize_document_status",
    "serialize_metadata_field",
    "serialize_metadata_fields",
    "serialize_record_segment",
    "serialize_segment",
    "serialize_tag",
]
