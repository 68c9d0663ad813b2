"""The stub embedding model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb.rag import cosine_similarity, embed
from dify_kb.rag.embedding import DIMENSIONS

TEXTS = st.text(max_size=200)


def similarity(left: str, right: str) -> float:
    return cosine_similarity(embed(left), embed(right))


def test_vector_of_a_text_never_changes() -> None:
    """Vectors are stored in files, so every version of the package must create the same vectors."""
    bits = [position for position, bit in enumerate(to_bits(embed("a burrow"))) if bit]

    assert bits == [657, 1755, 1941, 2253, 2416, 3071, 3546]


def to_bits(vector: bytes) -> list[int]:
    return [vector[position >> 3] >> (position & 7) & 1 for position in range(DIMENSIONS)]


@pytest.mark.parametrize(
    ("query", "near", "far"),
    [
        ("relational database", "postgres is a relational database", "redis keeps keys"),
        ("databases", "postgres is a relational database", "celery runs background jobs"),
        ("wombats digging", "the wombat digs", "the quokka smiles"),
        ("数据库", "关系数据库", "消息队列"),
        ("ÉTUDE", "étude", "prelude"),
    ],
)
def test_query_is_most_similar_to_texts_with_shared_words_or_parts(
    query: str, near: str, far: str
) -> None:
    assert similarity(query, near) > 2 * similarity(query, far)


def test_long_unrelated_texts_are_hardly_similar() -> None:
    chunk = " ".join(f"paragraph{number} about topic{number}" for number in range(30))

    assert similarity("wombat burrow quokka", chunk) < 0.1


def test_text_without_words_is_not_similar_to_anything() -> None:
    assert similarity("?!", "?!") == 0
    assert similarity("", "wombat") == 0


@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_from_0_to_1(left: str, right: str) -> None:
    assert 0 <= similarity(left, right) <= 1.0000001
    assert similarity(left, right) == similarity(right, left)
    assert similarity(left, left) == pytest.approx(1) or not any(embed(left))


def test_stop_words_count_only_in_texts_without_other_words() -> None:
    assert similarity("how do I reset it?", "reset") == 1
    assert similarity("to be or", "or to be") == 1
    assert similarity("the wombat", "the quokka") < 0.1
