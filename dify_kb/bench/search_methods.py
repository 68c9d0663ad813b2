"""List the search methods that a dataset and the models of the workspace allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dify_kb.models import ModelRef, RetrievalModel

SearchFactory = Callable[[int], RetrievalModel]
"""Returns the search for `top_k` chunks."""

DEFAULT_VECTOR_WEIGHT = 0.7
"""Default of the console for weighted searches (web/app/components, 1.12.1)."""


COMPARED_VECTOR_WEIGHTS = (0.3, 0.5, 0.7)
"""Vector weights that an evaluation compares."""

MAX_COMPARED_METHODS = 4 + len(COMPARED_VECTOR_WEIGHTS)
"""Maximum number of search methods of a dataset in an evaluation."""


def list_search_methods(
    *,
    embedding: ModelRef | None,
    rerank: ModelRef | None,
    weights: Sequence[float] = (DEFAULT_VECTOR_WEIGHT,),
) -> Mapping[str, SearchFactory]:
    """Return the search methods of a dataset, by name.

    Args:
        embedding: embedding model of a high-quality dataset; None is an economy dataset, which
            has keyword search only.
        rerank: a reranking model of the workspace, if it has one.
        weights: vector weights of hybrid searches; the keyword weight is the rest to 1.
    """
    if embedding is None:
        return {"keyword": lambda top_k: RetrievalModel.keyword(top_k=top_k)}
    factories: dict[str, SearchFactory] = {
        "semantic": lambda top_k: RetrievalModel.semantic(top_k=top_k),
        "full text": lambda top_k: RetrievalModel.full_text(top_k=top_k),
    }
    for weight in weights:
        factories[f"hybrid {weight:g}"] = partial(_hybrid_weighted, embedding, weight)
    if rerank is not None:
        factories["semantic, reranked"] = partial(_semantic_reranked, rerank)
        factories["hybrid, reranked"] = partial(_hybrid_reranked, rerank)
    return factories


def _hybrid_weighted(embedding: ModelRef, weight: float, top_k: int) -> RetrievalModel:
    return RetrievalModel.hybrid_weighted(embedding=embedding, vector_weight=weight, top_k=top_k)


def _semantic_reranked(rerank: ModelRef, top_k: int) -> RetrievalModel:
    return RetrievalModel.semantic(rerank=rerank, top_k=top_k)


def _hybrid_reranked(rerank: ModelRef, top_k: int) -> RetrievalModel:
    return RetrievalModel.hybrid_reranked(rerank=rerank, top_k=top_k)
