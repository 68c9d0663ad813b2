"""Search a high-quality dataset by vectors, by words or by both.

Follows api/core/rag/datasource/retrieval_service.py @1.12.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.models import RerankingMode, RetrievalModel, SearchMethod, Weights
from dify_kb.rag import Candidate, deduplicate, rerank, rerank_by_weights

from . import stub_models
from .request_context import InvokeModel
from .server_profile import Quirks
from .store import Store
from .stub_models import ModelError

if TYPE_CHECKING:
    from dify_kb.rag import SearchHit


UNLIMITED: Final = 10_000
"""Number of hits to find for a negative top_k, which then slices them as in Python."""


@frozen
class Search:
    """A search in one dataset, limited to `document_ids` unless that is None."""

    store: Store
    dataset_id: str
    query: str
    settings: RetrievalModel
    document_ids: Sequence[str] | None
    quirks: Quirks
    invoke: InvokeModel

    @property
    def limit(self) -> int:
        """Maximum number of hits of each half of the search."""
        return self.settings.top_k if self.settings.top_k >= 0 else UNLIMITED

    @property
    def threshold(self) -> float:
        """Minimum score of a hit."""
        if not self.settings.score_threshold_enabled:
            return 0.0
        return self.settings.score_threshold or 0.0


def search_chunks(search: Search) -> list[Candidate]:
    """Return matching segments and child chunks, best first.

    Raises:
        ModelError: the search names an unknown model, or a model fails.
    """
    match search.settings.search_method:
        case SearchMethod.SEMANTIC:
            return _rerank_by_model(search, _search_by_vectors(search))
        case SearchMethod.FULL_TEXT:
            return _rerank_by_model(search, _search_by_words(search))
        case SearchMethod.HYBRID:
            return _search_hybrid(search)
        case _:
            # Since 1.8 high-quality datasets have no keywords to search (recording 934).
            return []


def _search_by_vectors(search: Search) -> list[Candidate]:
    search.invoke(stub_models.EMBEDDING_MODEL)
    hits = search.store.index.search_vectors(
        search.dataset_id, search.query, search.limit, search.document_ids
    )[: search.settings.top_k]
    return _to_candidates(search.store, [hit for hit in hits if hit.score >= search.threshold])


def _search_by_words(search: Search) -> list[Candidate]:
    """Search by words; the score threshold does not apply (1816)."""
    hits = search.store.index.search(
        search.dataset_id,
        search.query,
        search.limit,
        search.document_ids,
        all_words=search.quirks.needs_all_words,
    )[: search.settings.top_k]
    return [_normalize_score(candidate) for candidate in _to_candidates(search.store, hits)]


def _normalize_score(candidate: Candidate) -> Candidate:
    """Map a BM25 score, which is unbounded, below 1, like the scores of PostgreSQL."""
    return Candidate(candidate.id, candidate.text, candidate.score / (1 + candidate.score))


def _to_candidates(store: Store, hits: Sequence[SearchHit]) -> list[Candidate]:
    texts = _load_texts(store, [hit.segment_id for hit in hits])
    return [Candidate(hit.segment_id, texts[hit.segment_id], hit.score) for hit in hits]


def _load_texts(store: Store, ids: Sequence[str]) -> Mapping[str, str]:
    texts = {row.id: row.content for row in store.segments.get_many(ids).values()}
    return texts | {row.id: row.content for row in store.child_chunks.get_many(ids).values()}


def _rerank_by_model(search: Search, candidates: list[Candidate]) -> list[Candidate]:
    model = _get_reranking_model(search.settings)
    if model is None or not candidates:
        return candidates
    stub_models.require_reranking_model(*model)
    search.invoke(stub_models.RERANKING_MODEL)
    return _filter_by_threshold(search, rerank(search.query, candidates))


def _get_reranking_model(settings: RetrievalModel) -> tuple[str, str] | None:
    """Return provider and name of the reranking model; None if disabled or incomplete."""
    model = settings.reranking_model if settings.reranking_enable else None
    if not model or not model.reranking_provider_name or not model.reranking_model_name:
        return None
    return model.reranking_provider_name, model.reranking_model_name


def _search_hybrid(search: Search) -> list[Candidate]:
    """Combine both searches; up to 1.8, hits of both appear twice (recordings 937, 1022).

    The result is cut to top_k only if it is reranked (server source).
    """
    settings, quirks = search.settings, search.quirks
    both = [*_search_by_words(search), *_search_by_vectors(search)]
    if settings.reranking_mode == RerankingMode.WEIGHTED_SCORE and settings.weights:
        unique = both if "weighted" in quirks.duplicate_hit_orders else deduplicate(both)
        return _rerank_by_weights(search, unique, settings.weights)[: search.limit]
    if settings.reranking_mode != RerankingMode.WEIGHTED_SCORE and _get_reranking_model(settings):
        try:
            return _rerank_by_model(search, both)[: search.limit]
        except ModelError:
            if quirks.drops_failed_hybrid:
                return []
            raise
    return both if "plain" in quirks.duplicate_hit_orders else _sort_by_score(deduplicate(both))


def _rerank_by_weights(
    search: Search, candidates: list[Candidate], weights: Weights
) -> list[Candidate]:
    if not weights.vector_setting or not weights.keyword_setting:
        if search.quirks.incomplete_weights == "crash":
            raise LookupError("weights require vector_setting and keyword_setting")
        return (
            []
            if search.quirks.incomplete_weights == "nothing"
            else _sort_by_score(deduplicate(candidates))
        )
    reranked = rerank_by_weights(
        search.query,
        candidates,
        vector_weight=weights.vector_setting.vector_weight,
        keyword_weight=weights.keyword_setting.keyword_weight,
    )
    return _filter_by_threshold(search, reranked)


def _filter_by_threshold(search: Search, candidates: list[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.score >= search.threshold]


def _sort_by_score(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: -candidate.score)
