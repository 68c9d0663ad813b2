"""Request handler for retrieve: validate the request, search and build the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from dify_kb.emulator import serializers, stub_models
from dify_kb.emulator.chunk_search import UNLIMITED, Search, search_chunks
from dify_kb.emulator.errors import EmulatedError, invalid_param_error
from dify_kb.emulator.request_context import RequestContext, handles
from dify_kb.emulator.server_profile import ErrorStyle
from dify_kb.emulator.stub_models import ModelError
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    ValidationErrors,
    Validator,
    accept_any,
    choice_validator,
    list_validator,
    object_validator,
    string_validator,
)
from dify_kb.models import (
    MAX_QUERY_LENGTH,
    ComparisonOperator,
    LogicalOperator,
    Query,
    Record,
    RecordChild,
    RetrievalModel,
    RetrievalResult,
    Retrieve,
    SearchMethod,
    Weights,
)
from dify_kb.rag import Candidate, matches_filter
from dify_kb.wire import catalog, codec
from dify_kb.wire.codec import DecodeError

from .common_fields import RETRIEVAL_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dify_kb.emulator.server_profile import ServerProfile
    from dify_kb.emulator.store import ChildChunkRow
    from dify_kb.models import Condition, MetadataFilter

_PAYLOAD_FIELDS = {
    "query": BodyField(string_validator(max_length=MAX_QUERY_LENGTH), required=True),
    "attachment_ids": BodyField(list_validator(string_validator())),
}

_TYPED_PAYLOAD = BodySchema(
    "HitTestingPayload", {"retrieval_model": BodyField(RETRIEVAL_MODEL)} | _PAYLOAD_FIELDS
)

_UNTYPED_PAYLOAD = BodySchema(
    "HitTestingPayload", {"retrieval_model": BodyField(accept_any)} | _PAYLOAD_FIELDS
)

_REQUIRED_SETTINGS: Final = (
    "score_threshold_enabled",
    "reranking_enable",
    "search_method",
    "top_k",
)

_LIST_OPERATORS: Final = frozenset({ComparisonOperator.IN, ComparisonOperator.NOT_IN})

_NUMBER_OPERATORS: Final = frozenset({">", "<", "≥", "≤", "before", "after"})

_VALUE_TYPES: Final = (
    ("str", "string", "string_type"),
    ("list[str]", "list", "list_type"),
    ("int", "integer", "int_type"),
    ("float", "number", "float_type"),
)


def _check_condition_value(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a value as pydantic does for a union: a problem for each of its types (1912, 1934)."""
    items = value if isinstance(value, list) else None
    if isinstance(value, str | int | float) or (
        items is not None and all(isinstance(item, str) for item in items)
    ):
        return value
    for type_name, description, error_type in _VALUE_TYPES:
        if items is not None and error_type == "list_type":
            list_validator(string_validator())(items, (*path, type_name), problems)
        else:
            text = f"Input should be a valid {description}"
            problems.add((*path, type_name), text, error_type, value)
    return value


def _build_filter_payload(operators: Iterable[ComparisonOperator]) -> BodySchema:
    condition: Validator = object_validator(
        {
            "name": BodyField(string_validator(), required=True),
            "comparison_operator": BodyField(choice_validator([*operators]), required=True),
            "value": BodyField(_check_condition_value),
        }
    )
    return BodySchema(
        "MetadataFilteringCondition",
        {
            "logical_operator": BodyField(choice_validator([*LogicalOperator])),
            "conditions": BodyField(list_validator(condition)),
        },
    )


_FILTER: Final = _build_filter_payload(ComparisonOperator)

_FILTER_BEFORE_1_8: Final = _build_filter_payload(
    [word for word in ComparisonOperator if word not in _LIST_OPERATORS]
)


def read_retrieve(context: RequestContext, raw: object) -> Retrieve:
    """Parse a search; every version checks its filter with pydantic (recording 800)."""
    fields = _read_fields(context.profile, raw)
    context.notes.has_attachments = bool(fields.pop("attachment_ids", None))
    model = fields.get("retrieval_model") or {}
    if not model:
        fields.pop("retrieval_model", None)
    filter_conditions = model.get("metadata_filtering_conditions")
    if filter_conditions is not None:
        quirks = context.profile.quirks
        payload = _FILTER if quirks.has_in_operator else _FILTER_BEFORE_1_8
        read = _validate_filter(context.profile, payload, filter_conditions)
        if "conditions" not in filter_conditions or filter_conditions["conditions"] is None:
            message = "'NoneType' object is not iterable"
            raise EmulatedError(500, "internal_server_error", message)
        if quirks.ignores_in_operator:
            read["conditions"] = [
                condition
                for condition in read["conditions"] or ()
                if condition["comparison_operator"] not in _LIST_OPERATORS
            ]
        if any(isinstance(condition.get("value"), bool) for condition in read["conditions"]):
            message = "(psycopg2.errors.UndefinedFunction) operator does not exist: text = boolean"
            raise EmulatedError(500, "internal_server_error", message)
        model["metadata_filtering_conditions"] = read
    return codec.decode(Retrieve, fields)


def _validate_filter(profile: ServerProfile, payload: BodySchema, raw: object) -> dict[str, Any]:
    """Validate a filter, since 1.13 as a part of the whole body (800)."""
    if not profile.quirks.validates_search:
        return payload.validate_with_pydantic(raw, profile)
    problems = ValidationErrors(profile)
    path = ("retrieval_model", "metadata_filtering_conditions")
    read: Any = object_validator(payload.fields)(raw, path, problems)
    if problems.messages:
        raise problems.to_error(_TYPED_PAYLOAD.title)
    return cast("dict[str, Any]", read)


def _read_fields(profile: ServerProfile, raw: object) -> dict[str, Any]:
    quirks = profile.quirks
    if quirks.validates_search:
        return _TYPED_PAYLOAD.validate(raw, profile)
    if profile.error_style is ErrorStyle.PYDANTIC:
        fields: dict[str, Any] = _UNTYPED_PAYLOAD.validate(raw, profile)
    else:
        fields = {**raw} if isinstance(raw, dict) else {}
        fields["query"] = _check_query_before_1_11(fields.get("query"))
    if fields.get("retrieval_model"):
        _check_settings(fields["retrieval_model"])
        fields["retrieval_model"] |= _empty_invalid_weights(fields["retrieval_model"])
    names = ("query", "retrieval_model", "attachment_ids")
    return {name: fields[name] for name in names if name in fields}


def _empty_invalid_weights(model: dict[str, Any]) -> dict[str, Any]:
    """Return empty weights in place of malformed ones, which fail later, if at all."""
    if not model.get("weights"):
        return {"weights": None}
    try:
        codec.decode(Weights, model["weights"])
    except DecodeError:
        return {"weights": {}}
    return {}


def _check_query_before_1_11(query: object) -> str:
    """Check a query as servers before 1.11 do; numbers are accepted (recordings 763 to 767)."""
    query_text = "" if query is None else str(query)
    if not 1 <= len(query_text) <= MAX_QUERY_LENGTH:
        raise invalid_param_error(
            f"Query is required and cannot exceed {MAX_QUERY_LENGTH} characters"
        )
    return query_text


def _check_settings(model: dict[str, Any]) -> None:
    """Fail on invalid settings like servers that do not validate them (measured)."""
    for name in _REQUIRED_SETTINGS:
        if name not in model:
            raise EmulatedError(500, "internal_server_error", repr(name))
    if not isinstance(model["top_k"], int):
        message = "slice indices must be integers or None or have an __index__ method"
        raise invalid_param_error(message)


@handles(catalog.RETRIEVE, read_retrieve)
def retrieve(context: RequestContext, body: Retrieve) -> RetrievalResult:
    """Search an economy dataset by keywords, a high-quality one by other methods (measured)."""
    if not body.query and not context.notes.has_attachments:
        raise invalid_param_error("Query or attachment_ids is required")
    settings = _resolve_settings(context, body)
    if not body.query:
        # No attachment is stored, so none is found (1865).
        return RetrievalResult(query=Query(content=""), records=[])
    if not settings.search_method.is_known:
        return _search_by_unknown_method(context, body.query, settings.search_method)
    store, dataset = context.store, context.dataset
    if dataset.is_high_quality and settings.top_k < 1 and context.profile.quirks.refuses_top_k:
        raise invalid_param_error("top_k must be a positive integer")
    filter_conditions = settings.metadata_filtering_conditions or None
    with store.transaction():
        document_ids = _find_matching_documents(context, filter_conditions)
        if filter_conditions and document_ids == []:
            return RetrievalResult(query=Query(content=body.query), records=[])
        if settings.search_method != SearchMethod.KEYWORD:
            _require_vectors(context, settings.search_method)
        by_keywords = settings.search_method == SearchMethod.KEYWORD
        everywhere = context.profile.quirks.keywords_everywhere
        if not dataset.is_high_quality or (by_keywords and everywhere):
            records = _search_by_keywords(context, body.query, settings.top_k, document_ids)
        else:
            records = _build_records(
                context, _run_search(_build_search(context, body.query, settings, document_ids))
            )
    return RetrievalResult(query=Query(content=body.query), records=records)


def _search_by_unknown_method(
    context: RequestContext, query: str, method: SearchMethod
) -> RetrievalResult:
    """Refuse an unknown method or return no records, depending on version (recording 761)."""
    if context.profile.validates_search_method:
        raise invalid_param_error(f"{str(method)!r} is not a valid RetrievalMethod")
    return RetrievalResult(query=Query(content=query), records=[])


def _resolve_settings(context: RequestContext, body: Retrieve) -> RetrievalModel:
    """Return the settings of the request, or those of the dataset.

    Newer servers complete the settings of the request with those of the dataset.
    """
    quirks, row = context.profile.quirks, context.dataset
    stored = serializers.read_retrieval_model(row)
    if not row.retrieval_model:
        stored = stored | {"top_k": quirks.default_top_k}
    if not body.retrieval_model:
        if "search_method" not in stored:
            raise LookupError("an external dataset has no stored search method")
        return codec.decode(RetrievalModel, stored)
    if not quirks.merges_search or not row.retrieval_model:
        return body.retrieval_model
    encoded: Any = codec.encode(body.retrieval_model)
    sent_settings = {name: value for name, value in encoded.items() if value is not None}
    return codec.decode(RetrievalModel, stored | sent_settings)


def _find_matching_documents(
    context: RequestContext, metadata_filter: MetadataFilter | None
) -> list[str] | None:
    """Return the ids of the documents to search; None for all that are in the index.

    Only a filter with conditions considers the state of the documents. Without one, any indexed
    content is found: the old content of a document that waits for reindexing, and content that was
    added to an archived document (measured, all versions).
    """
    if metadata_filter is None or not metadata_filter.conditions:
        return None
    for condition in metadata_filter.conditions:
        _check_number(condition)
    rows = context.store.documents.list_available(context.dataset.id)
    is_strict = context.profile.quirks.compares_strictly
    return [
        row.id
        for row in rows
        if matches_filter(
            serializers.read_metadata_values(row) or {},
            metadata_filter,
            strict_types=is_strict,
        )
    ]


def _check_number(condition: Condition) -> None:
    """Fail like PostgreSQL if a value that is compared as a number is none (1880, 1916)."""
    value = condition.value
    if condition.comparison_operator not in _NUMBER_OPERATORS or value is None:
        return
    try:
        float(str(value))
    except ValueError as error:
        message = (
            "(psycopg2.errors.InvalidTextRepresentation) invalid input syntax for type double"
            f' precision: "{value}"'
        )
        raise EmulatedError(500, "internal_server_error", message) from error


def _require_vectors(context: RequestContext, method: SearchMethod) -> None:
    """Refuse a vector search in a dataset without vectors (recordings 750, 1044)."""
    row = context.dataset
    if not context.has_models:
        reason = stub_models.no_default_model_message(context.profile)
    elif not row.is_high_quality:
        table = f"embedding_vector_index_{row.id.replace('-', '_')}_nod"
        reason = f'relation "{table}" does not exist'
    else:
        return
    # Both halves of a hybrid search fail (recording 760).
    raise invalid_param_error(f"{reason};\n{reason}" if method == SearchMethod.HYBRID else reason)


def _build_search(
    context: RequestContext,
    query: str,
    settings: RetrievalModel,
    document_ids: Sequence[str] | None,
) -> Search:
    return Search(
        store=context.store,
        dataset_id=context.dataset.id,
        query=query,
        settings=settings,
        document_ids=document_ids,
        quirks=context.profile.quirks,
        invoke=context.invoke_model,
    )


def _run_search(search: Search) -> list[Candidate]:
    dataset = search.store.datasets.get(search.dataset_id)
    try:
        if dataset is not None and search.settings.search_method != SearchMethod.KEYWORD:
            stub_models.require_embedding_model(dataset.embedding_provider, dataset.embedding_model)
        return search_chunks(search)
    except ModelError as error:
        raise invalid_param_error(str(error)) from error


def _search_by_keywords(
    context: RequestContext, query: str, top_k: int, document_ids: Sequence[str] | None
) -> list[Record]:
    """Search an economy dataset, where every record has the same score (measured)."""
    limit = top_k if top_k >= 0 else UNLIMITED
    hits = context.store.index.search(context.dataset.id, query, limit, document_ids)[:top_k]
    score = context.profile.economy_score
    records = _build_records(context, [Candidate(hit.segment_id, "", hit.score) for hit in hits])
    return [attrs.evolve(record, score=score) for record in records]


def _build_records(context: RequestContext, candidates: Sequence[Candidate]) -> list[Record]:
    """Build records; child chunks are grouped by parent, which gets the best of their scores."""
    store = context.store
    ids = [candidate.id for candidate in candidates]
    children = store.child_chunks.get_many(ids)
    owners = [children[id_].segment_id if id_ in children else id_ for id_ in ids]
    candidates_by_owner: dict[object, list[Candidate]] = {}
    for number, (owner, candidate) in enumerate(zip(owners, candidates, strict=True)):
        # A segment that was found twice gets two records, unless it is a parent.
        key = owner if candidate.id in children else (owner, number)
        candidates_by_owner.setdefault(key, []).append(candidate)
    rows = store.segments.get_many(owners)
    records = []
    for siblings in candidates_by_owner.values():
        first_id = siblings[0].id
        row = rows.get(children[first_id].segment_id if first_id in children else first_id)
        document = store.documents.get_by_id(row.document_id) if row else None
        if row is None or document is None:
            continue
        records.append(
            Record(
                segment=serializers.serialize_record_segment(store, context.profile, row, document),
                score=max(candidate.score for candidate in siblings),
                child_chunks=_build_record_children(siblings, children)
                or context.profile.empty_items,
                files=context.profile.empty_items,
            )
        )
    return records


def _build_record_children(
    siblings: Sequence[Candidate], children: Mapping[str, ChildChunkRow]
) -> list[RecordChild]:
    return [
        RecordChild(
            id=candidate.id,
            content=candidate.text,
            position=children[candidate.id].position,
            score=candidate.score,
        )
        for candidate in siblings
        if candidate.id in children
    ]


HANDLERS = (retrieve,)
