"""Request handler for retrieve: search and build the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from dify_kb.emulator import serializers, stub_models
from dify_kb.emulator.chunk_search import UNLIMITED, Search, search_chunks
from dify_kb.emulator.errors import EmulatedError, invalid_param_error
from dify_kb.emulator.request_context import RequestContext, handles
from dify_kb.emulator.stub_models import ModelError
from dify_kb.models import (
    Query,
    Record,
    RecordChild,
    RetrievalModel,
    RetrievalResult,
    Retrieve,
    SearchMethod,
)
from dify_kb.rag import Candidate, matches_filter
from dify_kb.wire import catalog, codec

from .retrieve_bodies import read_retrieve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.store import ChildChunkRow
    from dify_kb.models import Condition, MetadataFilter

_NUMBER_OPERATORS: Final = frozenset({">", "<", "≥", "≤", "before", "after"})


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
