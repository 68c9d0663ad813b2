from __future__ import annotations

from typing import Final

from dify_kb.emulator import views
from dify_kb.emulator.context import Context, serves
from dify_kb.emulator.payload import Field, Payload, text
from dify_kb.emulator.refused import invalid_param
from dify_kb.models import (
    MAX_QUERY,
    Query,
    Record,
    Retrieve,
    Retrieved,
    SearchMethod,
)
from dify_kb.wire import catalog, codec

from .fields import NO_MODEL, RETRIEVAL_MODEL

_RETRIEVE = Payload(
    "HitTestingPayload",
    {
        "query": Field(text(most=MAX_QUERY), required=True),
        "retrieval_model": Field(RETRIEVAL_MODEL),
    },
)

_EVERYTHING: Final = 10_000
"""Hits that a negative top_k is counted from the end of."""


def _read(context: Context, raw: object) -> Retrieve:
    return codec.decode(Retrieve, _RETRIEVE.read(raw, context.profile.pydantic))


@serves(catalog.RETRIEVE, _read)
def retrieve(context: Context, body: Retrieve) -> Retrieved:
    """Search; without a model only keyword search works (findings.md §8.12 to §8.14)."""
    if not body.query:
        raise invalid_param("Query or attachment_ids is required")
    method, top_k = _settings(context, body)
    if method == SearchMethod.HYBRID:
        # Both legs of the search fail (recording 760).
        raise invalid_param(f"{NO_MODEL};\n{NO_MODEL}")
    if method != SearchMethod.KEYWORD:
        raise invalid_param(NO_MODEL)
    return Retrieved(query=Query(content=body.query), records=_records(context, body.query, top_k))


def _settings(context: Context, body: Retrieve) -> tuple[SearchMethod, int]:
    if body.retrieval_model:
        return body.retrieval_model.search_method, body.retrieval_model.top_k
    stored = views.stored_retrieval(context.dataset)
    return SearchMethod(stored["search_method"]), stored["top_k"]


def _records(context: Context, query: str, top_k: int) -> list[Record]:
    store, dataset_id = context.store, context.dataset.id
    limit = top_k if top_k >= 0 else _EVERYTHING
    with store.transaction():
        within = store.documents.available(dataset_id)
        hits = store.index.search(dataset_id, query, limit, within)[:top_k]
        rows = store.segments.find([hit.segment_id for hit in hits])
        documents = {
            row.document_id: store.documents.find(row.document_id) for row in rows.values()
        }
    # An economy base knows no scores (findings.md §8.14).
    return [
        Record(
            segment=views.found_segment(store, rows[hit.segment_id], document),
            score=0.0,
            child_chunks=context.profile.no_items,
            files=context.profile.no_items,
        )
        for hit in hits
        if (document := documents[rows[hit.segment_id].document_id]) is not None
    ]


HANDLERS = (retrieve,)
