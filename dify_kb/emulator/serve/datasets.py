from __future__ import annotations

import json
import uuid

import attrs

from dify_kb.emulator import views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import Field, Payload, flag, items, text, words
from dify_kb.emulator.refused import RefusedError, invalid_param, not_found
from dify_kb.emulator.store import DatasetRow
from dify_kb.models import (
    CreateDataset,
    Dataset,
    ListDatasets,
    Page,
    Permission,
    SearchMethod,
    StoredRetrievalModel,
)
from dify_kb.wire import catalog, codec

from .fields import (
    PAGING,
    RETRIEVAL_MODEL,
    TECHNIQUE,
    bounds,
    page_of,
    require_economy,
    require_no_model,
)

_CREATE = Payload(
    "DatasetCreatePayload",
    {
        "name": Field(text(least=1, most=40), required=True),
        "description": Field(text(most=400), nullable=False),
        "indexing_technique": Field(TECHNIQUE),
        "permission": Field(words([*Permission], "enum")),
        "provider": Field(text(), nullable=False),
        "external_knowledge_api_id": Field(text()),
        "external_knowledge_id": Field(text()),
        "embedding_model": Field(text()),
        "embedding_model_provider": Field(text()),
        "retrieval_model": Field(RETRIEVAL_MODEL),
    },
)

_LIST = Payload(
    "DatasetListQuery",
    PAGING
    | {
        "keyword": Field(text()),
        "include_all": Field(flag),
        "tag_ids": Field(items(text())),
    },
)


def _read_create(context: Context, raw: object) -> CreateDataset:
    return codec.decode(CreateDataset, _CREATE.read(raw, context.profile.pydantic))


def _read_list(context: Context, raw: object) -> ListDatasets:
    return codec.decode(ListDatasets, _LIST.read(raw, context.profile.pydantic))


@serves(catalog.CREATE_DATASET, _read_create)
def create(context: Context, body: CreateDataset) -> Dataset:
    """Make an empty dataset (findings.md §3)."""
    technique = body.indexing_technique or None
    if technique == "high_quality":
        require_no_model(body.embedding_model_provider, body.embedding_model)
    require_economy(technique)
    if body.provider == "external" and body.external_knowledge_api_id:
        raise invalid_param("api template not found")
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
    )
    if not context.store.datasets.add(row):
        raise RefusedError(
            409,
            "dataset_name_duplicate",
            "The dataset name already exists. Please modify your dataset name.",
        )
    return views.dataset(context.store, context.profile, row)


@serves(catalog.LIST_DATASETS, _read_list)
def list_(context: Context, query: ListDatasets) -> Page[Dataset]:
    """List datasets, the newest first; no dataset has a tag yet, so a tag finds none."""
    if query.tag_ids:
        return page_of([], 0, query.page, query.limit)
    offset, size = bounds(query.page, query.limit)
    rows, total = context.store.datasets.page(query.keyword or "", offset, size)
    datasets = [
        views.dataset(context.store, context.profile, row, embedding_available=True) for row in rows
    ]
    return page_of(datasets, total, query.page, query.limit)


@serves(catalog.GET_DATASET, nothing)
def get(context: Context, _: None) -> Dataset:
    """Show a dataset, with a search method that works although another is stored (§3.4)."""
    dataset = views.dataset(
        context.store, context.profile, context.dataset, embedding_available=True
    )
    stored = dataset.retrieval_model_dict or StoredRetrievalModel()
    return attrs.evolve(
        dataset,
        retrieval_model_dict=attrs.evolve(stored, search_method=SearchMethod.KEYWORD),
        partial_member_list=[] if dataset.permission == Permission.PARTIAL_MEMBERS else None,
    )


@serves(catalog.DELETE_DATASET, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a dataset; what is being indexed ends silently."""
    if not context.store.delete_dataset(context.dataset.id):
        raise not_found("Dataset not found.")


HANDLERS = (create, list_, get, delete)
