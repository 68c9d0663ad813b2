"""Serialize datasets and their tags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.clocks import to_whole_seconds
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    object_validator,
    string_validator,
    validate_boolean,
)
from dify_kb.models import (
    Dataset,
    DatasetTags,
    DocForm,
    ExternalKnowledgeInfo,
    IndexingTechnique,
    Permission,
    StoredRetrievalModel,
    SummaryIndexSetting,
    Tag,
    TagRef,
)
from dify_kb.wire import codec

from . import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.server_profile import ServerProfile
    from dify_kb.emulator.store import DatasetRow, Store, TagRow

AUTHOR: Final = "admin"
"""The name of the workspace owner, shown as the author of every dataset."""

_ICON_FIELDS: Final = ("icon_type", "icon", "icon_background", "icon_url")

# `top_k` is 2, although a search without settings uses 4 (server source).
_DEFAULT_RETRIEVAL = {
    "search_method": "semantic_search",
    "reranking_enable": False,
    "reranking_model": {"reranking_provider_name": "", "reranking_model_name": ""},
    "top_k": 2,
    "score_threshold_enabled": False,
}

_DEFAULT_EXTERNAL_RETRIEVAL: Final = {
    "top_k": 2,
    "score_threshold": 0.0,
    "score_threshold_enabled": None,
}

_TAG_TYPE = "knowledge"


def read_retrieval_model(row: DatasetRow) -> dict[str, Any]:
    """Return the retrieval settings of a dataset, with the field names of the API."""
    stored: dict[str, Any] = (
        json.loads(row.retrieval_model) if row.retrieval_model else _DEFAULT_RETRIEVAL
    )
    return stored


def serialize_dataset(
    store: Store, profile: ServerProfile, row: DatasetRow, **changes: Any
) -> Dataset:
    """Serialize a dataset as creates return it; lists and details override fields by `changes`."""
    counts, doc_form = store.datasets.count_contents(row.id), store.datasets.get_doc_form(row.id)
    fields: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "provider": row.provider,
        "permission": Permission(row.permission),
        "data_source_type": row.data_source_type,
        "indexing_technique": IndexingTechnique(row.indexing_technique)
        if row.indexing_technique
        else None,
        "app_count": 0,
        "document_count": counts.documents,
        "word_count": counts.words,
        "created_by": store.account,
        "author_name": AUTHOR,
        "created_at": to_whole_seconds(row.created_at),
        "updated_by": store.account,
        "updated_at": to_whole_seconds(row.updated_at),
        "embedding_model": row.embedding_model,
        "embedding_model_provider": row.embedding_provider,
        "embedding_available": None,
        "retrieval_model_dict": _serialize_retrieval_model(row),
        "summary_index_setting": _serialize_summary_setting(profile, row),
        "tags": _serialize_tags_of_dataset(store, row.id),
        "doc_form": DocForm(doc_form) if doc_form else None,
        "external_knowledge_info": _serialize_external_knowledge(store, row),
        "external_retrieval_model": _serialize_external_retrieval(profile, row),
        "doc_metadata": metadata.serialize_dataset_metadata(store, row),
        "built_in_field_enabled": bool(row.built_in),
        "pipeline_id": row.pipeline_id,
        "runtime_mode": "rag_pipeline" if row.pipeline_id else "general",
        "icon_info": dict.fromkeys(_ICON_FIELDS),
        "is_published": row.pipeline_id is not None,
        "total_documents": counts.documents,
        "total_available_documents": counts.available,
        "enable_api": True,
        "is_multimodal": False,
        "maintainer": AUTHOR,
    }
    return Dataset(**(fields | changes))


_SUMMARY_SETTING: Final = BodySchema(
    "DatasetDetailResponse",
    {
        "summary_index_setting": BodyField(
            object_validator(
                {
                    "enable": BodyField(validate_boolean),
                    "model_name": BodyField(string_validator()),
                    "model_provider_name": BodyField(string_validator()),
                    "summary_prompt": BodyField(string_validator()),
                }
            )
        )
    },
)


def _serialize_summary_setting(profile: ServerProfile, row: DatasetRow) -> SummaryIndexSetting:
    """Serialize settings that only this response checks, when they are already stored (1504)."""
    stored = {"summary_index_setting": json.loads(row.summary_setting or "null")}
    checked: Any = _SUMMARY_SETTING.validate_with_pydantic(stored, profile)
    return SummaryIndexSetting(**checked.get("summary_index_setting", {}))


def _serialize_retrieval_model(row: DatasetRow) -> StoredRetrievalModel:
    stored = read_retrieval_model(row)
    if stored.get("reranking_model") is None:
        names = dict.fromkeys(("reranking_provider_name", "reranking_model_name"))
        stored = {**stored, "reranking_model": names}
    return codec.decode(StoredRetrievalModel, stored)


def _serialize_external_retrieval(
    profile: ServerProfile, row: DatasetRow
) -> Mapping[str, object] | None:
    """Serialize retrieval settings that some versions repeat for all datasets (recording 041)."""
    if not profile.external_retrieval and row.provider != "external":
        return None
    if not row.retrieval_model:
        return _DEFAULT_EXTERNAL_RETRIEVAL
    stored = read_retrieval_model(row)
    return {name: stored.get(name) for name in _DEFAULT_EXTERNAL_RETRIEVAL}


def _serialize_external_knowledge(store: Store, row: DatasetRow) -> ExternalKnowledgeInfo:
    binding = store.external.get_binding(row.id) if row.provider == "external" else None
    api = store.external.get_api(binding.api_id) if binding else None
    if binding is None or api is None:
        return ExternalKnowledgeInfo()
    return ExternalKnowledgeInfo(
        external_knowledge_id=binding.knowledge_id,
        external_knowledge_api_id=api.id,
        external_knowledge_api_name=api.name,
        external_knowledge_api_endpoint=api.endpoint,
    )


def serialize_tag(row: TagRow, count: object) -> Tag:
    """Serialize a tag; `count` is a number or a string, depending on the server version."""
    return Tag(id=row.id, name=row.name, type=_TAG_TYPE, extra={"binding_count": count})


def serialize_dataset_tags(store: Store, dataset_id: str) -> DatasetTags:
    """Serialize the response that lists the tags of a dataset."""
    rows = store.tags.list_by_dataset(dataset_id)
    return DatasetTags(data=[TagRef(id=row.id, name=row.name) for row in rows], total=len(rows))


def _serialize_tags_of_dataset(store: Store, dataset_id: str) -> list[Mapping[str, object]]:
    """Serialize the tags as a field of their dataset."""
    rows = store.tags.list_by_dataset(dataset_id)
    return [{"id": row.id, "name": row.name, "type": _TAG_TYPE} for row in rows]
