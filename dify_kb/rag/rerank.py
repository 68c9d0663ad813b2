"""Rerank search results with a stub reranking model or with weighted scores."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from .tokenize import extract_keywords, tokenize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@frozen
class Candidate:
    """A search result to rerank; a higher score is better."""

    id: str
    text: str
    score: float


def rerank(query: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort candidates by the share of the query's words that they contain, best first.

    A stub for a reranking model. Duplicate ids are dropped; equal scores keep their order.
    """
    query_words = {*tokenize(query)}
    scored = [
        evolve(
            candidate,
            score=len(query_words.intersection(tokenize(candidate.text)))
            / max(1, len(query_words)),
        )
        for candidate in deduplicate(candidates)
    ]
    return sorted(scored, key=lambda candidate: -candidate.score)


def rerank_by_weights(
    query: str, candidates: Sequence[Candidate], *, vector_weight: float, keyword_weight: float
) -> list[Candidate]:
    """Sort candidates by the weighted sum of their scores and their keyword scores, best first.

    Keyword scores are calculated as on the server (rag/rerank/weight_rerank.py, 1.12.1): the
    cosine similarity of tf-idf vectors, with the candidates as the corpus.
    """
    keyword_scores = _keyword_scores(query, [candidate.text for candidate in candidates])
    scored = [
        evolve(candidate, score=vector_weight * candidate.score + keyword_weight * keyword_score)
        for candidate, keyword_score in zip(candidates, keyword_scores, strict=True)
    ]
    return sorted(scored, key=lambda candidate: -candidate.score)


def deduplicate(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return each id once, with its best score, at its first position."""
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        previous = best.get(candidate.id)
        if previous is None or candidate.score > previous.score:
            best[candidate.id] = candidate
    return [*best.values()]


def _keyword_scores(query: str, texts: Sequence[str]) -> list[float]:
    counts = [Counter(extract_keywords(text)) for text in texts]
    frequency = Counter(word for count in counts for word in count)
    rarity = {
        word: math.log((1 + len(texts)) / (1 + number)) + 1 for word, number in frequency.items()
    }
    query_words = _tf_idf(Counter(extract_keywords(query)), rarity)
    return [_sparse_cosine_similarity(query_words, _tf_idf(count, rarity)) for count in counts]


def _tf_idf(count: Mapping[str, int], rarity: Mapping[str, float]) -> dict[str, float]:
    return {word: number * rarity.get(word, 0.0) for word, number in count.items()}


def _sparse_cosine_similarity(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    norms = math.hypot(*left.values()) * math.hypot(*right.values())
    shared = left.keys() & right.keys()
    return sum(left[word] * right[word] for word in shared) / norms if norms else 0.0
