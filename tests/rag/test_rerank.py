"""Reranking of search results."""

from __future__ import annotations

import math

import pytest

from dify_kb.rag import Candidate, deduplicate, rerank, rerank_by_weights


def candidates(*texts: str, score: float = 0.5) -> list[Candidate]:
    return [Candidate(str(number), text, score) for number, text in enumerate(texts)]


def candidate_ids(ranked: list[Candidate]) -> list[str]:
    return [candidate.id for candidate in ranked]


def test_score_is_the_share_of_query_words_in_the_text() -> None:
    ranked = rerank(
        "relational database now",
        candidates("bamboo", "a database", "a relational database", "now: Relational, Database!"),
    )

    assert candidate_ids(ranked) == ["3", "2", "1", "0"]
    assert [candidate.score for candidate in ranked] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_equal_scores_keep_their_order_and_duplicates_are_dropped() -> None:
    ranked = rerank("x", [*candidates("a", "b", "c"), Candidate("1", "b", 0.9)])

    assert candidate_ids(ranked) == ["0", "1", "2"]


def test_duplicates_keep_the_best_score() -> None:
    twins = [Candidate("a", "", 0.1), Candidate("b", "", 0.2), Candidate("a", "", 0.3)]

    assert [(candidate.id, candidate.score) for candidate in deduplicate(twins)] == [
        ("a", 0.3),
        ("b", 0.2),
    ]


def test_query_without_words_scores_zero() -> None:
    assert [candidate.score for candidate in rerank("?", candidates("a", ""))] == [0, 0]


def test_weighted_score_adds_vector_and_keyword_scores() -> None:
    """As in recording 937: 0.7 of 0.46575889 and 0.3 of the cosine of 2 words and 5 is 0.51576788.

    The 5 words are the keywords that the recorded server extracted from its text.
    """
    ranked = rerank_by_weights(
        "relational database",
        [
            Candidate("0", "bamboo eaten pandas", 0.0),
            Candidate("1", "section postgres relational database indexes", 0.46575889),
        ],
        vector_weight=0.7,
        keyword_weight=0.3,
    )

    assert candidate_ids(ranked) == ["1", "0"]
    assert ranked[0].score == pytest.approx(0.51576788)
    assert ranked[0].score == pytest.approx(0.7 * 0.46575889 + 0.3 * 2 / math.sqrt(2 * 5))


@pytest.mark.parametrize(("vector", "first"), [(1.0, "0"), (0.0, "1")])
def test_the_greater_weight_determines_the_order(vector: float, first: str) -> None:
    ranked = rerank_by_weights(
        "wombat",
        [Candidate("0", "quokka", 0.9), Candidate("1", "wombat", 0.1)],
        vector_weight=vector,
        keyword_weight=1 - vector,
    )

    assert ranked[0].id == first
    assert len(ranked) == 2
