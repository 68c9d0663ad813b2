from __future__ import annotations

import json
import uuid
from typing import Final

import attrs

from dify_kb.emulator import views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import (
    Before,
    Field,
    Payload,
    Problems,
    anything,
    flag,
    items,
    record,
    text,
    words,
)
from dify_kb.emulator.profiles import Wording
from dify_kb.emulator.refused import RefusedError, id_of, invalid_param, not_found
from dify_kb.emulator.store import DatasetRow
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

_NAME = text(least=1, most=40)
_LENGTHS: Final = "Name must be between 1 to 40 characters."
_NAMED: Final = f"type is required. {_LENGTHS}"
_TECHNIQUES: Final = "Invalid indexing technique."

_LONGEST: Final = 400


def _description(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check a description; 1.4 takes one of any length (measured)."""
    wording = problems.profile.wording
    if wording is Wording.PARAMS:
        return value
    if wording is Wording.ERRORS and isinstance(value, str) and len(value) > _LONGEST:
        what = f"Description cannot exceed {_LONGEST} characters."
        problems.add(where, what, "string_too_long", value)
        return value
    return text(most=_LONGEST)(value, where, problems)


def _plain_name(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check a name as servers before 1.11 do (recordings 026, 027)."""
    wrong = Problems(problems.profile)
    _NAME(value, where, wrong)
    if wrong.texts:
        kind = type(value).__name__
        what = _LENGTHS if isinstance(value, str) else f"object of type '{kind}' has no len()"
        problems.add(where, what, "value_error", value)
    return value


_CREATE = Payload(
    "DatasetCreatePayload",
    {
        "name": Field(
            _NAME, required=True, before=Before(help=_NAMED, anywhere=True, check=_plain_name)
        ),
        "description": Field(_description, nullable=False, before=Before(nullable=True)),
        "indexing_technique": Field(TECHNIQUE, before=Before(help=_TECHNIQUES)),
        "permission": Field(
            words([*Permission], "enum"), before=Before(help="Invalid permission.")
        ),
        "provider": Field(text(), nullable=False),
        "external_knowledge_api_id": Field(text()),
        "external_knowledge_id": Field(text()),
        "embedding_model": Field(text()),
        "embedding_model_provider": Field(text()),
        "retrieval_model": Field(RETRIEVAL_MODEL, before=Before(model="RetrievalModel")),
    },
)


def _truth(value: object, _where: tuple[str, ...], _problems: Problems) -> object:
    return str(value).lower() == "true"


def _tag_ids(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check the tags; 1.12.1 takes the first for the list that it wants (recording 847)."""
    if problems.profile.tag_filter:
        return items(text())(value, where, problems)
    first = value[0] if isinstance(value, list) else value
    problems.add(where, "Input should be a valid list", "list_type", first)
    return []


_LIST = Payload(
    "DatasetListQuery",
    PAGING
    | {
        "keyword": Field(text()),
        "include_all": Field(flag, before=Before(check=_truth)),
        "tag_ids": Field(_tag_ids),
    },
)


def _read_create(context: Context, raw: object) -> CreateDataset:
    return codec.decode(CreateDataset, _CREATE.read(raw, context.profile))


def _read_list(context: Context, raw: object) -> ListDatasets:
    return codec.decode(ListDatasets, _LIST.read(raw, context.profile))


@serves(catalog.CREATE_DATASET, _read_create)
def create(context: Context, body: CreateDataset) -> Dataset:
    """Make an empty dataset (measured)."""
    technique = body.indexing_technique or None
    if technique == "high_quality":
        require_no_model(body.embedding_model_provider, body.embedding_model)
    require_economy(context.profile, technique)
    if body.provider == "external" and body.external_knowledge_api_id:
        raise invalid_param("api template not found")
    if body.provider == "external" and not context.profile.external_unbound:
        raise LookupError("an external dataset needs an API")
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
    )
    if not context.store.datasets.add(row):
        raise RefusedError(
            409,
            "dataset_name_duplicate",
            "The dataset name already exists. Please modify your dataset name.",
        )
    return views.dataset(context.store, context.profile, row)


_UPDATE = Payload(
    "DatasetUpdatePayload",
    {
        "name": Field(_NAME, before=Before(help=_NAMED, nullable=False, check=_plain_name)),
        "description": Field(_description),
        "indexing_technique": Field(TECHNIQUE, before=Before(help=_TECHNIQUES)),
        "permission": Field(
            words([*Permission], "enum"), before=Before(help="Invalid permission.")
        ),
        "embedding_model": Field(text()),
        "embedding_model_provider": Field(text()),
        "retrieval_model": Field(RETRIEVAL_MODEL, before=Before(check=anything)),
        "partial_member_list": Field(items(record({"user_id": Field(text(), required=True)}))),
        "external_retrieval_model": Field(anything),
        "external_knowledge_id": Field(text()),
        "external_knowledge_api_id": Field(text()),
    },
)


def _read_update(context: Context, raw: object) -> UpdateDataset:
    fields = _UPDATE.read(raw, context.profile)
    if isinstance(raw, dict) and "description" in raw:
        # Of all fields, only a description can be made null.
        fields["description"] = raw["description"]
    return codec.decode(UpdateDataset, fields)


@serves(catalog.UPDATE_DATASET, _read_update)
def update(context: Context, body: UpdateDataset) -> Dataset:
    """Change a dataset; nothing is indexed again, as there is no model to index with."""
    store, row = context.store, context.dataset
    changes = _changes(context, body)
    with store.transaction():
        others = set(store.datasets.named(body.name or row.name)) - {row.id}
        if body.name and others and context.profile.unique_renames:
            raise invalid_param("Dataset name already exists")
        store.datasets.update(row.id, **changes, updated_at=context.clock.now())
        row = store.datasets.get(row.id) or row
    members = json.loads(row.members)
    return views.dataset(store, context.profile, row, partial_member_list=members)


def _changes(context: Context, body: UpdateDataset) -> dict[str, object]:
    """Tell the columns that an update changes (measured)."""
    row, changes = context.dataset, dict[str, object]()
    if row.provider == "external" and not (
        body.external_knowledge_id and body.external_knowledge_api_id
    ):
        raise invalid_param("External knowledge id is required.")
    if body.name:
        changes["name"] = body.name
    if body.description is not UNSET:
        changes["description"] = body.description
    if body.permission:
        changes["permission"] = body.permission
        changes["members"] = "[]"
    if body.permission == Permission.PARTIAL_MEMBERS and body.partial_member_list:
        changes["members"] = json.dumps([member.user_id for member in body.partial_member_list])
    if body.indexing_technique and body.indexing_technique != row.indexing_technique:
        _require_technique(context, body)
        changes["indexing_technique"] = body.indexing_technique
    if body.retrieval_model:
        changes["retrieval_model"] = json.dumps(codec.encode(body.retrieval_model))
    return changes


def _require_technique(context: Context, body: UpdateDataset) -> None:
    require_no_model(body.embedding_model_provider, body.embedding_model)
    if body.indexing_technique == "high_quality" and context.profile.named_models:
        raise LookupError("high_quality needs the names of a model")
    require_economy(context.profile, body.indexing_technique or None)


@serves(catalog.LIST_DATASETS, _read_list)
def list_(context: Context, query: ListDatasets) -> Page[Dataset]:
    """List datasets, the newest first; with tags, those that bear any of them."""
    offset, size = bounds(query.page, query.limit)
    tags = [id_of(tag_id) for tag_id in query.tag_ids or ()]
    within = context.store.tags.bearers(tags) if tags else None
    rows, total = context.store.datasets.page(query.keyword or "", offset, size, within)
    datasets = [
        views.dataset(context.store, context.profile, row, embedding_available=True) for row in rows
    ]
    return page_of(datasets, total, query.page, query.limit)


@serves(catalog.GET_DATASET, nothing)
def get(context: Context, _: None) -> Dataset:
    """Show a dataset, with a search method that works although another is stored (measured)."""
    dataset = views.dataset(
        context.store, context.profile, context.dataset, embedding_available=True
    )
    stored = dataset.retrieval_model_dict or StoredRetrievalModel()
    return attrs.evolve(
        dataset,
        retrieval_model_dict=attrs.evolve(stored, search_method=SearchMethod.KEYWORD),
        partial_member_list=json.loads(context.dataset.members)
        if dataset.permission == Permission.PARTIAL_MEMBERS
        else None,
    )


@serves(catalog.DELETE_DATASET, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a dataset; what is being indexed ends silently."""
    if not context.store.delete_dataset(context.dataset.id):
        raise not_found("Dataset not found.")


HANDLERS = (create, list_, get, delete, update)
