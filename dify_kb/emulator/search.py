"""Searching a high-quality base by vectors, by words or by both (api/core/rag/datasource
/retrieval_service.py @1.12.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.corpus import Candidate, distinct, rerank, weigh
from dify_kb.models import RerankingMode, RetrievalModel, SearchMethod, Weights

from . import stand_ins
from .quirks import Quirks
from .stand_ins import Invoke, ModelError
from .store import Store

if TYPE_CHECKING:
    from dify_kb.corpus import Hit


EVERYTHING: Final = 10_000
"""Hits that a negative top_k is counted from the end of."""


@frozen
class Search:
    """A search in one base, and the documents it is within; None for all."""

    store: Store
    dataset_id: str
    query: str
    wanted: RetrievalModel
    within: Sequence[str] | None
    quirks: Quirks
    invoke: Invoke

    @property
    def limit(self) -> int:
        """How many hits each half of the search finds."""
        return self.wanted.top_k if self.wanted.top_k >= 0 else EVERYTHING

    @property
    def threshold(self) -> float:
        """The score that a hit needs."""
        if not self.wanted.score_threshold_enabled:
            return 0.0
        return self.wanted.score_threshold or 0.0


def found(search: Search) -> list[Candidate]:
    """Find chunks and children of chunks, the best first.

    Raises:
        ModelError: the search names a model that nobody offers, or one fails.
    """
    match search.wanted.search_method:
        case SearchMethod.SEMANTIC:
            return _ranked(search, _by_vectors(search))
        case SearchMethod.FULL_TEXT:
            return _ranked(search, _by_words(search))
        case SearchMethod.HYBRID:
            return _hybrid(search)
        case _:
            # Since 1.8 there are no keywords to search by (recording 934).
            return []


def _by_vectors(search: Search) -> list[Candidate]:
    search.invoke(stand_ins.EMBEDDING)
    hits = search.store.index.nearest(search.dataset_id, search.query, search.limit, search.within)[
        : search.wanted.top_k
    ]
    return _candidates(search.store, [hit for hit in hits if hit.score >= search.threshold])


def _by_words(search: Search) -> list[Candidate]:
    """Find by words; no threshold holds for them (server source)."""
    hits = search.store.index.search(search.dataset_id, search.query, search.limit, search.within)[
        : search.wanted.top_k
    ]
    return [_bounded(one) for one in _candidates(search.store, hits)]


def _bounded(candidate: Candidate) -> Candidate:
    """Bring BM25, which has no upper end, below 1, as PostgreSQL's scores are."""
    return Candidate(candidate.id, candidate.text, candidate.score / (1 + candidate.score))


def _candidates(store: Store, hits: Sequence[Hit]) -> list[Candidate]:
    texts = _texts(store, [hit.segment_id for hit in hits])
    return [Candidate(hit.segment_id, texts[hit.segment_id], hit.score) for hit in hits]


def _texts(store: Store, ids: Sequence[str]) -> Mapping[str, str]:
    texts = {row.id: row.content for row in store.segments.find(ids).values()}
    return texts | {row.id: row.content for row in store.child_chunks.find(ids).values()}


def _ranked(search: Search, candidates: list[Candidate]) -> list[Candidate]:
    model = _model(search.wanted)
    if model is None or not candidates:
        return candidates
    stand_ins.require_reranking(*model)
    search.invoke(stand_ins.RERANKING)
    return _good(search, rerank(search.query, candidates))


def _model(wanted: RetrievalModel) -> tuple[str, str] | None:
    """Tell the reranking model that a search names in full."""
    model = wanted.reranking_model if wanted.reranking_enable else None
    if not model or not model.reranking_provider_name or not model.reranking_model_name:
        return None
    return model.reranking_provider_name, model.reranking_model_name


def _hybrid(search: Search) -> list[Candidate]:
    """Join both halves; what both find is there twice up to 1.8 (recordings 937, 1022).

    Nothing cuts them to top_k unless they are put into another order (server source).
    """
    wanted, quirks = search.wanted, search.quirks
    both = [*_by_words(search), *_by_vectors(search)]
    if wanted.reranking_mode == RerankingMode.WEIGHTED_SCORE and wanted.weights:
        once = both if "weighted" in quirks.twice else distinct(both)
        return _weighed(search, once, wanted.weights)[: search.limit]
    if wanted.reranking_mode != RerankingMode.WEIGHTED_SCORE and _model(wanted):
        try:
            return _ranked(search, both)[: search.limit]
        except ModelError:
            if quirks.drops_failed_hybrid:
                return []
            raise
    return both if "plain" in quirks.twice else _sorted(distinct(both))


def _weighed(search: Search, candidates: list[Candidate], weights: Weights) -> list[Candidate]:
    if not weights.vector_setting or not weights.keyword_setting:
        if search.quirks.wrong_weights == "crash":
            raise LookupError("weights need both of their settings")
        return [] if search.quirks.wrong_weights == "nothing" else _sorted(distinct(candidates))
    weighed = weigh(
        search.query,
        candidates,
        vector_weight=weights.vector_setting.vector_weight,
        keyword_weight=weights.keyword_setting.keyword_weight,
    )
    return _good(search, weighed)


def _good(search: Search, candidates: list[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.score >= search.threshold]


def _sorted(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: -candidate.score)
