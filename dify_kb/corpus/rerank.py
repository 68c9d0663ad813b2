"""Putting what was found into another order: by a stand-in for a reranking model, or by weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from .words import keywords, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@frozen
class Candidate:
    """A text that was found, and how good it is; greater is better."""

    id: str
    text: str
    score: float


def rerank(query: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Order by the part of the question's words that a text has, the best first.

    A stand-in for a reranking model. Each id is taken once; equals keep their order.
    """
    asked = {*words(query)}
    scored = [
        evolve(candidate, score=len(asked.intersection(words(candidate.text))) / max(1, len(asked)))
        for candidate in distinct(candidates)
    ]
    return sorted(scored, key=lambda candidate: -candidate.score)


def weigh(
    query: str, candidates: Sequence[Candidate], *, vector_weight: float, keyword_weight: float
) -> list[Candidate]:
    """Add the scores that candidates have to those of their keywords, by weights, the best first.

    Keywords are compared as the server does (rag/rerank/weight_rerank.py, 1.12.1): by the cosine
    of their tf-idf, with the candidates as the whole of the texts.
    """
    likeness = _keyword_scores(query, [candidate.text for candidate in candidates])
    scored = [
        evolve(candidate, score=vector_weight * candidate.score + keyword_weight * like)
        for candidate, like in zip(candidates, likeness, strict=True)
    ]
    return sorted(scored, key=lambda candidate: -candidate.score)


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Take each id once, with its best score, where it stands first."""
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        known = best.get(candidate.id)
        if known is None or candidate.score > known.score:
            best[candidate.id] = candidate
    return [*best.values()]


def _keyword_scores(query: str, texts: Sequence[str]) -> list[float]:
    counts = [Counter(keywords(text)) for text in texts]
    frequency = Counter(word for count in counts for word in count)
    rarity = {
        word: math.log((1 + len(texts)) / (1 + number)) + 1 for word, number in frequency.items()
    }
    asked = _weighted(Counter(keywords(query)), rarity)
    return [_cosine(asked, _weighted(count, rarity)) for count in counts]


def _weighted(count: Mapping[str, int], rarity: Mapping[str, float]) -> dict[str, float]:
    return {word: number * rarity.get(word, 0.0) for word, number in count.items()}


def _cosine(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    both = math.hypot(*left.values()) * math.hypot(*right.values())
    shared = left.keys() & right.keys()
    return sum(left[word] * right[word] for word in shared) / both if both else 0.0
