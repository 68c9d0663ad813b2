from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dify_kb.corpus import meets
from dify_kb.emulator import views
from dify_kb.emulator.context import Context, serves
from dify_kb.emulator.refused import invalid_param
from dify_kb.models import (
    Query,
    Record,
    Retrieve,
    Retrieved,
    SearchMethod,
)
from dify_kb.wire import catalog

from .fields import no_model
from .searches import read_search

if TYPE_CHECKING:
    from dify_kb.models import MetadataFilter

_EVERYTHING: Final = 10_000
"""Hits that a negative top_k is counted from the end of."""


@serves(catalog.RETRIEVE, read_search)
def retrieve(context: Context, body: Retrieve) -> Retrieved:
    """Search; without a model only keyword search works (measured)."""
    if not body.query:
        raise invalid_param("Query or attachment_ids is required")
    method, top_k = _settings(context, body)
    if not method.known:
        return _unknown(context, body.query, method)
    missing = no_model(context.profile)
    if method == SearchMethod.HYBRID:
        # Both legs of the search fail (recording 760).
        raise invalid_param(f"{missing};\n{missing}")
    if method != SearchMethod.KEYWORD:
        raise invalid_param(missing)
    wanted = body.retrieval_model and body.retrieval_model.metadata_filtering_conditions
    records = _records(context, body.query, top_k, wanted or None)
    return Retrieved(query=Query(content=body.query), records=records)


def _unknown(context: Context, query: str, method: SearchMethod) -> Retrieved:
    """Refuse a method, or find nothing by it (recording 761)."""
    if context.profile.typed_methods:
        raise invalid_param(f"{str(method)!r} is not a valid RetrievalMethod")
    return Retrieved(query=Query(content=query), records=[])


def _settings(context: Context, body: Retrieve) -> tuple[SearchMethod, int]:
    if body.retrieval_model:
        return body.retrieval_model.search_method, body.retrieval_model.top_k
    stored = views.stored_retrieval(context.dataset)
    return SearchMethod(stored["search_method"]), stored["top_k"]


def _within(context: Context, wanted: MetadataFilter | None) -> list[str] | None:
    """Tell the documents that are searched; None for all."""
    documents, dataset_id = context.store.documents, context.dataset.id
    if wanted is None or not wanted.conditions:
        return documents.available(dataset_id)
    rows = documents.searched(dataset_id)
    apart = context.profile.quirks.texts_apart
    return [
        row.id for row in rows if meets(views.metadata.raw(row) or {}, wanted, texts_apart=apart)
    ]


def _records(
    context: Context, query: str, top_k: int, wanted: MetadataFilter | None
) -> list[Record]:
    store, dataset_id = context.store, context.dataset.id
    limit = top_k if top_k >= 0 else _EVERYTHING
    with store.transaction():
        within = _within(context, wanted)
        hits = store.index.search(dataset_id, query, limit, within)[:top_k]
        rows = store.segments.find([hit.segment_id for hit in hits])
        documents = {
            row.document_id: store.documents.find(row.document_id) for row in rows.values()
        }
    # An economy base knows no scores (measured).
    return [
        Record(
            segment=views.found_segment(store, rows[hit.segment_id], document),
            score=context.profile.economy_score,
            child_chunks=context.profile.no_items,
            files=context.profile.no_items,
        )
        for hit in hits
        if (document := documents[rows[hit.segment_id].document_id]) is not None
    ]


HANDLERS = (retrieve,)
