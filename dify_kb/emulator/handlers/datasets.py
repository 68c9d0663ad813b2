"""Request handlers for datasets."""

from __future__ import annotations

import json
import uuid

import attrs

from dify_kb.emulator import serializers, stub_models
from dify_kb.emulator.errors import EmulatedError, invalid_param_error, not_found_error, parse_uuid
from dify_kb.emulator.request_context import RequestContext, handles, ignore_body
from dify_kb.emulator.store import DatasetRow, ExternalBindingRow, SegmentRow
from dify_kb.models import (
    UNSET,
    CreateDataset,
    Dataset,
    ListDatasets,
    Page,
    Permission,
    SearchMethod,
    StoredRetrievalModel,
    UpdateDataset,
)
from dify_kb.rag import extract_keywords
from dify_kb.wire import catalog, codec

from .common_fields import build_page, compute_page_bounds
from .dataset_bodies import read_create, read_list, read_update


@handles(catalog.CREATE_DATASET, read_create)
def create(context: RequestContext, body: CreateDataset) -> Dataset:
    """Create an empty dataset (measured)."""
    technique = body.indexing_technique or None
    provider, model = (
        _choose_embedding(context, body) if technique == "high_quality" else (None, None)
    )
    stub_models.check_reranking_model(context, body.retrieval_model)
    _check_external(context, body)
    now = context.clock.now()
    row = DatasetRow(
        id=str(uuid.uuid4()),
        name=body.name,
        description=body.description or "",
        provider=body.provider or "vendor",
        permission=body.permission or Permission.ONLY_ME,
        data_source_type=None,
        indexing_technique=technique,
        retrieval_model=json.dumps(codec.encode(body.retrieval_model))
        if body.retrieval_model
        else None,
        created_at=now,
        updated_at=now,
        pipeline_id=str(uuid.uuid4()) if context.settings.pipelines else None,
        embedding_provider=provider,
        embedding_model=model,
        summary_setting=json.dumps(context.notes.summary_setting),
    )
    with context.store.transaction():
        if not context.store.datasets.add(row, any_name=context.notes.overlooks_name):
            raise EmulatedError(
                409,
                "dataset_name_duplicate",
                "The dataset name already exists. Please modify your dataset name.",
            )
        if row.provider == "external":
            _bind_external(context, row, body)
    return serializers.serialize_dataset(context.store, context.profile, row)


def _check_external(context: RequestContext, body: CreateDataset) -> None:
    """Check the API and the id that bind an external dataset (recordings 032, 033)."""
    if body.provider != "external":
        return
    if not body.external_knowledge_api_id:
        if context.profile.allows_unbound_external:
            return
        raise LookupError("an external dataset requires an API")
    if context.store.external.get_api(body.external_knowledge_api_id) is None:
        raise invalid_param_error("api template not found")
    if not body.external_knowledge_id:
        raise invalid_param_error("external_knowledge_id is required")


def _bind_external(
    context: RequestContext, row: DatasetRow, body: CreateDataset | UpdateDataset
) -> None:
    if body.external_knowledge_api_id and body.external_knowledge_id:
        api_id, knowledge_id = body.external_knowledge_api_id, body.external_knowledge_id
        context.store.external.bind(ExternalBindingRow(row.id, api_id, knowledge_id))


def _choose_embedding(
    context: RequestContext, body: CreateDataset | UpdateDataset
) -> tuple[str, str]:
    """Return the full provider name and the model, as requested or the default."""
    stub_models.check_provider(context, body.embedding_model_provider, body.embedding_model)
    provider, model = stub_models.select_embedding_model(
        context, body.embedding_model_provider, body.embedding_model
    )
    return stub_models.full_provider_name(provider), model


@handles(catalog.UPDATE_DATASET, read_update)
def update(context: RequestContext, body: UpdateDataset) -> Dataset:
    """Update a dataset; a change of technique reindexes it before the response.

    Real servers reindex in the background.
    """
    store, row = context.store, context.dataset
    changes = _collect_changes(context, body)
    with store.transaction():
        same_named_ids = set(store.datasets.ids_by_name(body.name or row.name)) - {row.id}
        if body.name and same_named_ids and context.profile.checks_renames:
            raise invalid_param_error("Dataset name already exists")
        store.datasets.update(row.id, **changes, updated_at=context.clock.now())
        if row.provider == "external":
            _bind_external(context, row, body)
        if "indexing_technique" in changes and row.indexing_technique:
            _reindex(context, row)
        row = store.datasets.get(row.id) or row
    members = json.loads(row.members)
    return serializers.serialize_dataset(store, context.profile, row, partial_member_list=members)


def _collect_changes(context: RequestContext, body: UpdateDataset) -> dict[str, object]:
    """Return the columns that an update changes (measured)."""
    row, changes = context.dataset, dict[str, object]()
    if body.name:
        changes["name"] = body.name
    if body.description is not UNSET:
        changes["description"] = body.description
    if body.permission:
        changes["permission"] = body.permission
        changes["members"] = "[]"
    if body.permission == Permission.PARTIAL_MEMBERS and body.partial_member_list:
        changes["members"] = json.dumps([member.user_id for member in body.partial_member_list])
    if row.provider == "external":
        return changes | _collect_external_changes(context, body)
    changes |= _collect_technique_changes(context, body)
    if body.retrieval_model:
        stub_models.check_reranking_model(context, body.retrieval_model)
        changes["retrieval_model"] = json.dumps(codec.encode(body.retrieval_model))
    return changes


def _collect_external_changes(context: RequestContext, body: UpdateDataset) -> dict[str, object]:
    """Return the changes specific to an external dataset: its retrieval settings.

    Every update must contain both ids (server source).
    """
    if not body.external_knowledge_id:
        raise invalid_param_error("External knowledge id is required.")
    if not body.external_knowledge_api_id:
        raise invalid_param_error("External knowledge api id is required.")
    if context.store.external.get_api(body.external_knowledge_api_id) is None:
        raise invalid_param_error("api template not found")
    if context.store.external.get_binding(context.dataset.id) is None:
        raise invalid_param_error("External knowledge binding not found.")
    if not body.external_retrieval_model:
        return {}
    return {"retrieval_model": json.dumps(codec.encode(body.external_retrieval_model))}


def _collect_technique_changes(context: RequestContext, body: UpdateDataset) -> dict[str, object]:
    """Return changes of technique and embedding model; economy datasets have no model."""
    row, technique = context.dataset, body.indexing_technique or None
    names = ("embedding_provider", "embedding_model")
    named = body.embedding_model_provider and body.embedding_model
    changes: dict[str, object] = {}
    if technique and technique != row.indexing_technique:
        changes["indexing_technique"] = technique
    if changes and technique == "economy":
        return changes | dict.fromkeys(names)
    if changes and not named and context.profile.requires_model_names:
        raise LookupError("high_quality requires the names of the embedding model and its provider")
    if changes or (named and row.is_high_quality):
        changes |= zip(names, _choose_embedding(context, body), strict=True)
    return changes


def _reindex(context: RequestContext, before: DatasetRow) -> None:
    """Rebuild the index for a new technique; economy datasets get keywords."""
    store = context.store
    store.reindex_dataset(before.id)
    if before.is_high_quality:
        for document_id in store.documents.list_available_ids(before.id):
            rows = store.segments.list_by_document(document_id)
            store.segments.set_keywords([(row.id, _keywords_json(row)) for row in rows])


def _keywords_json(row: SegmentRow) -> str:
    return row.keywords or json.dumps(extract_keywords(row.content))


@handles(catalog.LIST_DATASETS, read_list)
def list_(context: RequestContext, query: ListDatasets) -> Page[Dataset]:
    """List datasets, newest first; `tag_ids` selects those with the tags."""
    offset, size = compute_page_bounds(query.page, query.limit)
    tags = [parse_uuid(tag_id) for tag_id in query.tag_ids or ()]
    all_tags = context.profile.quirks.filters_by_all_tags
    within = context.store.tags.dataset_ids_with(tags, all_tags=all_tags) if tags else None
    rows, total = context.store.datasets.list_page(query.keyword or "", offset, size, within)
    datasets = [
        serializers.serialize_dataset(
            context.store,
            context.profile,
            attrs.evolve(row, embedding_provider=_complete_provider_name(row)),
            embedding_available=_is_embedding_available(context, row, _complete_provider_name(row)),
        )
        for row in rows
    ]
    return build_page(datasets, total, query.page, query.limit)


@handles(catalog.GET_DATASET, ignore_body)
def get(context: RequestContext, _: None) -> Dataset:
    """Return a dataset.

    Since 1.11, an economy dataset shows the keyword method, whatever is stored (090).
    """
    row = context.dataset
    available = _is_embedding_available(context, row, row.embedding_provider)
    dataset = serializers.serialize_dataset(
        context.store, context.profile, row, embedding_available=available
    )
    stored = dataset.retrieval_model_dict or StoredRetrievalModel()
    return attrs.evolve(
        dataset,
        retrieval_model_dict=stored
        if row.is_high_quality or not context.profile.shows_keyword_method
        else attrs.evolve(stored, search_method=SearchMethod.KEYWORD),
        partial_member_list=json.loads(context.dataset.members)
        if dataset.permission == Permission.PARTIAL_MEMBERS
        else None,
    )


def _complete_provider_name(row: DatasetRow) -> str | None:
    """Return the full provider name, for lists; a document may have set a short name."""
    return (
        stub_models.full_provider_name(row.embedding_provider) if row.embedding_provider else None
    )


def _is_embedding_available(context: RequestContext, row: DatasetRow, provider: str | None) -> bool:
    if not row.is_high_quality:
        return True
    return context.has_models and stub_models.is_embedding_model(provider, row.embedding_model)


@handles(catalog.DELETE_DATASET, ignore_body)
def delete(context: RequestContext, _: None) -> None:
    """Delete a dataset; indexing in progress stops silently."""
    if not context.store.delete_dataset(context.dataset.id):
        raise not_found_error("Dataset not found.")


HANDLERS = (create, list_, get, delete, update)
