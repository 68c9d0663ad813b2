from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dify_kb.models import (
    Dataset,
    DocForm,
    IndexingTechnique,
    Permission,
    StoredRetrievalModel,
)
from dify_kb.wire import codec

from . import metadata, tags
from .times import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dify_kb.emulator.profile import Profile
    from dify_kb.emulator.store import DatasetRow, Store

AUTHOR: Final = "admin"
"""The name of the workspace's owner, as whom the server acts."""

_SUMMARY: Final = ("enable", "model_name", "model_provider_name", "summary_prompt")
_ICON: Final = ("icon_type", "icon", "icon_background", "icon_url")
_EXTERNAL: Final = (
    "external_knowledge_id",
    "external_knowledge_api_id",
    "external_knowledge_api_name",
    "external_knowledge_api_endpoint",
)

# 2, although a search without settings takes 4 (server source).
_RETRIEVAL = {
    "search_method": "semantic_search",
    "reranking_enable": False,
    "reranking_model": {"reranking_provider_name": "", "reranking_model_name": ""},
    "top_k": 2,
    "score_threshold_enabled": False,
}


_EXTERNAL_RETRIEVAL: Final = {"top_k": 2, "score_threshold": 0.0, "score_threshold_enabled": None}


def stored_retrieval(row: DatasetRow) -> dict[str, Any]:
    """Tell the retrieval settings of a dataset, in the fields of the API."""
    stored: dict[str, Any] = json.loads(row.retrieval_model) if row.retrieval_model else _RETRIEVAL
    return stored


def dataset(store: Store, profile: Profile, row: DatasetRow, **changes: Any) -> Dataset:
    """Show a dataset as creates do; `changes` is what lists and details show otherwise."""
    counts, doc_form = store.datasets.counts(row.id), store.datasets.doc_form(row.id)
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
        "created_at": whole(row.created_at),
        "updated_by": store.account,
        "updated_at": whole(row.updated_at),
        "embedding_model": row.embedding_model,
        "embedding_model_provider": row.embedding_provider,
        "embedding_available": None,
        "retrieval_model_dict": _retrieval(profile, row),
        "summary_index_setting": _unset(profile, _SUMMARY),
        "tags": tags.of_dataset(store, row.id),
        "doc_form": DocForm(doc_form) if doc_form else None,
        "external_knowledge_info": _external(store, profile, row),
        "external_retrieval_model": _external_retrieval(profile, row),
        "doc_metadata": metadata.of_dataset(store, row),
        "built_in_field_enabled": bool(row.built_in),
        "pipeline_id": row.pipeline_id,
        "runtime_mode": "rag_pipeline" if row.pipeline_id else "general",
        "icon_info": _unset(profile, _ICON),
        "is_published": row.pipeline_id is not None,
        "total_documents": counts.documents,
        "total_available_documents": counts.available,
        "enable_api": True,
        "is_multimodal": False,
        "maintainer": AUTHOR,
    }
    return Dataset(**(fields | changes))


def _retrieval(profile: Profile, row: DatasetRow) -> StoredRetrievalModel:
    stored = stored_retrieval(row)
    if stored.get("reranking_model") is None and not profile.unset_object:
        names = dict.fromkeys(("reranking_provider_name", "reranking_model_name"))
        stored = {**stored, "reranking_model": names}
    return codec.decode(StoredRetrievalModel, stored)


def _external_retrieval(profile: Profile, row: DatasetRow) -> Mapping[str, object] | None:
    """Show a part of the settings once more, as servers do for every dataset (recording 041)."""
    if not profile.external_retrieval and row.provider != "external":
        return None
    if not row.retrieval_model:
        return _EXTERNAL_RETRIEVAL
    stored = stored_retrieval(row)
    return {name: stored.get(name) for name in _EXTERNAL_RETRIEVAL}


def _external(store: Store, profile: Profile, row: DatasetRow) -> Mapping[str, object] | None:
    binding = store.external.binding(row.id) if row.provider == "external" else None
    api = store.external.api(binding.api_id) if binding else None
    if binding is None or api is None:
        return _unset(profile, _EXTERNAL)
    told = (binding.knowledge_id, api.id, api.name, api.endpoint)
    return dict(zip(_EXTERNAL, told, strict=True))


def _unset(profile: Profile, names: Iterable[str]) -> Mapping[str, object] | None:
    return None if profile.unset_object else dict.fromkeys(names)
