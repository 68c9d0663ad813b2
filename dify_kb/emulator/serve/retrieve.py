from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from dify_kb.corpus import Candidate, meets
from dify_kb.emulator import chosen, stand_ins, views
from dify_kb.emulator.context import Context, serves
from dify_kb.emulator.refused import invalid_param
from dify_kb.emulator.search import EVERYTHING, Search, found
from dify_kb.emulator.stand_ins import ModelError
from dify_kb.models import (
    Query,
    Record,
    RecordChild,
    RetrievalModel,
    Retrieve,
    Retrieved,
    SearchMethod,
)
from dify_kb.wire import catalog, codec

from .searches import read_search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.store import ChildChunkRow
    from dify_kb.models import MetadataFilter


@serves(catalog.RETRIEVE, read_search)
def retrieve(context: Context, body: Retrieve) -> Retrieved:
    """Search: an economy base by keywords, a high-quality one in every other way (measured)."""
    if not body.query:
        raise invalid_param("Query or attachment_ids is required")
    wanted = _settings(context, body)
    if not wanted.search_method.known:
        return _unknown(context, body.query, wanted.search_method)
    store, dataset = context.store, context.dataset
    conditions = wanted.metadata_filtering_conditions or None
    with store.transaction():
        within = _within(context, conditions)
        if conditions and within == []:
            return Retrieved(query=Query(content=body.query), records=[])
        if wanted.search_method != SearchMethod.KEYWORD:
            _require_vectors(context, wanted.search_method)
        by_keywords = wanted.search_method == SearchMethod.KEYWORD
        everywhere = context.profile.quirks.keywords_everywhere
        if not dataset.high_quality or (by_keywords and everywhere):
            records = _by_keywords(context, body.query, wanted.top_k, within)
        else:
            records = _records(context, _found(_search(context, body.query, wanted, within)))
    return Retrieved(query=Query(content=body.query), records=records)


def _unknown(context: Context, query: str, method: SearchMethod) -> Retrieved:
    """Refuse a method, or find nothing by it (recording 761)."""
    if context.profile.typed_methods:
        raise invalid_param(f"{str(method)!r} is not a valid RetrievalMethod")
    return Retrieved(query=Query(content=query), records=[])


def _settings(context: Context, body: Retrieve) -> RetrievalModel:
    """Take the settings that were sent, or those of the dataset, which newer servers fill up the
    ones that were sent with.
    """
    quirks, row = context.profile.quirks, context.dataset
    stored = views.stored_retrieval(row)
    if not row.retrieval_model:
        stored = stored | {"top_k": quirks.default_top_k}
    if not body.retrieval_model:
        if "search_method" not in stored:
            raise LookupError("an external dataset stores no search method")
        return codec.decode(RetrievalModel, stored)
    if not quirks.merges_search or not row.retrieval_model:
        return body.retrieval_model
    sent: Any = codec.encode(body.retrieval_model)
    given = {name: value for name, value in sent.items() if value is not None}
    return codec.decode(RetrievalModel, stored | given)


def _within(context: Context, wanted: MetadataFilter | None) -> list[str] | None:
    """Return the ids of the documents to search; None for all that are in the index.

    Only conditions look at the documents themselves. Else what the index holds is found: the old
    content of a document that waits to be indexed again, and the content that an archived one was
    given (measured, all versions).
    """
    if wanted is None or not wanted.conditions:
        return None
    rows = context.store.documents.searched(context.dataset.id)
    apart = context.profile.quirks.texts_apart
    return [
        row.id for row in rows if meets(views.metadata.raw(row) or {}, wanted, texts_apart=apart)
    ]


def _require_vectors(context: Context, method: SearchMethod) -> None:
    """Refuse what needs vectors where there are none (recordings 750, 1044)."""
    row = context.dataset
    if not context.models:
        why = chosen.no_model(context.profile)
    elif not row.high_quality:
        table = f"embedding_vector_index_{row.id.replace('-', '_')}_nod"
        why = f'relation "{table}" does not exist'
    else:
        return
    # Both halves of a hybrid search fail (recording 760).
    raise invalid_param(f"{why};\n{why}" if method == SearchMethod.HYBRID else why)


def _search(
    context: Context, query: str, wanted: RetrievalModel, within: Sequence[str] | None
) -> Search:
    return Search(
        store=context.store,
        dataset_id=context.dataset.id,
        query=query,
        wanted=wanted,
        within=within,
        quirks=context.profile.quirks,
        invoke=context.invoke,
    )


def _found(search: Search) -> list[Candidate]:
    dataset = search.store.datasets.get(search.dataset_id)
    try:
        if dataset is not None and search.wanted.search_method != SearchMethod.KEYWORD:
            stand_ins.require_embedding(dataset.embedding_provider, dataset.embedding_model)
        return found(search)
    except ModelError as error:
        raise invalid_param(str(error)) from error


def _by_keywords(
    context: Context, query: str, top_k: int, within: Sequence[str] | None
) -> list[Record]:
    """Search an economy base, which knows no scores (measured)."""
    limit = top_k if top_k >= 0 else EVERYTHING
    hits = context.store.index.search(context.dataset.id, query, limit, within)[:top_k]
    score = context.profile.economy_score
    records = _records(context, [Candidate(hit.segment_id, "", hit.score) for hit in hits])
    return [attrs.evolve(record, score=score) for record in records]


def _records(context: Context, candidates: Sequence[Candidate]) -> list[Record]:
    """Show what was found; children with their parent, which is as good as the best of them."""
    store = context.store
    ids = [candidate.id for candidate in candidates]
    children = store.child_chunks.find(ids)
    owners = [children[id_].segment_id if id_ in children else id_ for id_ in ids]
    families: dict[object, list[Candidate]] = {}
    for number, (owner, candidate) in enumerate(zip(owners, candidates, strict=True)):
        # A chunk that was found twice is shown twice, unless it is a parent.
        key = owner if candidate.id in children else (owner, number)
        families.setdefault(key, []).append(candidate)
    rows = store.segments.find(owners)
    records = []
    for family in families.values():
        first = family[0].id
        row = rows.get(children[first].segment_id if first in children else first)
        document = store.documents.find(row.document_id) if row else None
        if row is None or document is None:
            continue
        records.append(
            Record(
                segment=views.found_segment(store, row, document),
                score=max(candidate.score for candidate in family),
                child_chunks=_shown(family, children) or context.profile.no_items,
                files=context.profile.no_items,
            )
        )
    return records


def _shown(family: Sequence[Candidate], children: Mapping[str, ChildChunkRow]) -> list[RecordChild]:
    return [
        RecordChild(
            id=candidate.id,
            content=candidate.text,
            position=children[candidate.id].position,
            score=candidate.score,
        )
        for candidate in family
        if candidate.id in children
    ]


HANDLERS = (retrieve,)
