from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from unicodedata import is_normalized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.rag import SearchIndex
from dify_kb.rag.search_index import IndexedSegment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def index() -> Iterator[SearchIndex]:
    database = sqlite3.connect(":memory:")
    yield SearchIndex(database)
    database.close()


def add_segments(
    index: SearchIndex, *contents: str, dataset: str = "d", document: str = "doc"
) -> None:
    index.add(
        IndexedSegment(f"{dataset}-{document}-{number}", dataset, document, content)
        for number, content in enumerate(contents)
    )


def find_segments(index: SearchIndex, query: str, dataset: str = "d", limit: int = 10) -> list[str]:
    return [hit.segment_id for hit in index.search(dataset, query, limit)]


def test_query_finds_the_relevant_passage(index: SearchIndex) -> None:
    add_segments(
        index,
        "The quick brown fox jumps over the lazy dog.",
        "Postgres stores relational data in tables.",
        "Redis keeps keys in memory.",
    )

    assert find_segments(index, "Where does Redis keep its keys?")[0] == "d-doc-2"


def test_rarer_words_rank_first_and_equal_scores_keep_insertion_order(
    index: SearchIndex,
) -> None:
    add_segments(
        index,
        "apple pear plum",
        "apple rare plum",
        "apple pear plum",
        "apple rare pear",
        "nothing to see",
        "nothing to hear",
        "nothing to do",
        "nothing to add",
    )

    assert find_segments(index, "rare pear") == ["d-doc-3", "d-doc-1", "d-doc-0", "d-doc-2"]


def test_scores_are_in_descending_order(index: SearchIndex) -> None:
    add_segments(index, "one two three", "one two", "one", "four", "five")

    scores = [hit.score for hit in index.search("d", "one two", 10)]

    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_search_returns_at_most_limit_hits(index: SearchIndex) -> None:
    add_segments(index, *["same words"] * 20)

    assert find_segments(index, "same", limit=3) == ["d-doc-0", "d-doc-1", "d-doc-2"]
    assert find_segments(index, "same", limit=0) == []


def test_search_finds_only_segments_of_its_dataset(index: SearchIndex) -> None:
    add_segments(index, "shared word", dataset="a")
    add_segments(index, "shared word", "shared", dataset="b")

    assert find_segments(index, "shared", dataset="a") == ["a-doc-0"]
    assert find_segments(index, "shared", dataset="unknown") == []


def test_other_datasets_do_not_change_scores(index: SearchIndex) -> None:
    add_segments(index, "shared word", "another one", "third", dataset="a")
    before = index.search("a", "shared", 10)

    add_segments(index, *["shared word"] * 50, dataset="b")

    assert index.search("a", "shared", 10) == before


def test_search_can_be_limited_to_documents(index: SearchIndex) -> None:
    add_segments(index, "word", document="one")
    add_segments(index, "word", document="two")

    assert [hit.segment_id for hit in index.search("d", "word", 5, ["two", "x"])] == ["d-two-0"]
    assert index.search("d", "word", 5, []) == []


def test_adding_again_replaces(index: SearchIndex) -> None:
    add_segments(index, "old text", "kept")
    add_segments(index, "new text")
    index.add([("twice", "d", "doc", "first"), ("twice", "d", "doc", "second")])

    assert find_segments(index, "old") == []
    assert find_segments(index, "new text") == ["d-doc-0"]
    assert find_segments(index, "kept first second") == ["d-doc-1", "twice"]


def test_removed_segments_are_not_found(index: SearchIndex) -> None:
    add_segments(index, "word one", "word two")

    index.remove_segments(["d-doc-0", "unknown"])

    assert find_segments(index, "word one") == ["d-doc-1"]


def test_removed_dataset_can_be_added_again(index: SearchIndex) -> None:
    add_segments(index, "word", dataset="a")
    add_segments(index, "word", dataset="b")

    index.remove_dataset("a")
    index.remove_dataset("unknown")

    assert find_segments(index, "word", dataset="a") == []
    assert find_segments(index, "word", dataset="b") == ["b-doc-0"]
    add_segments(index, "again", dataset="a")
    assert find_segments(index, "word again", dataset="a") == ["a-doc-0"]


@settings(deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=2, max_size=8),
    removed_numbers=st.sets(st.integers(0, 7)),
)
def test_removed_documents_are_never_found(texts: list[str], removed_numbers: set[int]) -> None:
    database = sqlite3.connect(":memory:")
    index = SearchIndex(database)
    for number, text in enumerate(texts):
        add_segments(index, text, document=str(number))
    for number in removed_numbers:
        index.remove_document(str(number))

    hits = {segment_id for text in texts for segment_id in find_segments(index, text)}
    remaining = database.execute("SELECT count(*) FROM indexed_segment").fetchone()[0]

    database.close()
    assert hits.isdisjoint(f"d-{number}-0" for number in removed_numbers)
    assert remaining == len(set(range(len(texts))) - removed_numbers)


QUERY_SYNTAX = [
    '"',
    "'",
    "*",
    "NEAR(",
    "AND",
    "OR NOT",
    "words:",
    "^a",
    "{",
    "-",
    "😀",
    "\x00",
    "据",
]


@settings(deadline=None)
@given(query=st.one_of(st.text(), st.lists(st.sampled_from(QUERY_SYNTAX)).map(" ".join)))
def test_search_never_raises(query: str) -> None:
    database = sqlite3.connect(":memory:")
    index = SearchIndex(database)
    add_segments(index, "some words", query)

    hits = index.search("d", query, 5)

    database.close()
    assert len(hits) <= 2


def test_query_of_thousands_of_words_is_accepted(index: SearchIndex) -> None:
    add_segments(index, "word7 and more")

    assert find_segments(index, " ".join(f"word{number}" for number in range(20_000))) == [
        "d-doc-0"
    ]


@settings(deadline=None)
@given(
    text=st.text(
        st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
        | st.characters(min_codepoint=0x3041, max_codepoint=0x3096)
        | st.characters(min_codepoint=0x30A1, max_codepoint=0x30FA)
        | st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
        min_size=2,
        max_size=20,
    ).filter(lambda text: is_normalized("NFKC", text))
)
def test_any_two_characters_of_chinese_japanese_or_korean_are_found(text: str) -> None:
    database = sqlite3.connect(":memory:")
    index = SearchIndex(database)
    add_segments(index, f"before {text} after", "other")

    pairs = [text[at : at + 2] for at in range(len(text) - 1)]
    hits = [find_segments(index, pair) for pair in pairs]

    database.close()
    assert hits == [["d-doc-0"]] * len(pairs)


def test_nothing_is_committed_and_rollback_undoes_all_changes(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "emulator.db")
    index = SearchIndex(database)
    add_segments(index, "word")

    assert database.in_transaction
    database.rollback()

    assert find_segments(index, "word") == []
    add_segments(index, "word")
    database.commit()
    database.close()


def test_index_persists_in_its_file(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "emulator.db") as database:
        add_segments(SearchIndex(database), "word")
    database.close()

    reopened = sqlite3.connect(tmp_path / "emulator.db")
    hits = find_segments(SearchIndex(reopened), "word")

    reopened.close()
    assert hits == ["d-doc-0"]


def find_nearest(
    index: SearchIndex, query: str, limit: int = 10, **filters: list[str]
) -> list[str]:
    return [hit.segment_id for hit in index.search_vectors("d", query, limit, **filters)]


def add_vectors(index: SearchIndex, *contents: str, document: str = "doc") -> None:
    index.add(
        [
            IndexedSegment(f"{document}-{number}", "d", document, text)
            for number, text in enumerate(contents)
        ],
        vectors=True,
    )


def test_vector_search_finds_texts_with_shared_word_parts(index: SearchIndex) -> None:
    add_vectors(index, "the quokka smiles", "the wombat digs", "numbats nap")

    assert find_nearest(index, "wombats digging", 1) == ["doc-1"]
    assert index.search("d", "wombats digging", 1) == []


def test_vector_search_has_no_minimum_similarity(index: SearchIndex) -> None:
    """A semantic search returns top_k hits however bad; equal scores keep insertion order."""
    add_vectors(index, "one", "two", "three", "")

    assert find_nearest(index, "axolotl") == ["doc-0", "doc-1", "doc-2", "doc-3"]
    assert find_nearest(index, "?!", 2) == ["doc-0", "doc-1"]
    assert find_nearest(index, "axolotl", 0) == []


def test_scores_of_vector_search_are_cosine_similarities(index: SearchIndex) -> None:
    add_vectors(index, "the wombat digs", "quokka")

    same, other = index.search_vectors("d", "The wombat digs!", 2)

    assert same.score == pytest.approx(1)
    assert 0 <= other.score < 0.1


def test_segments_added_without_vectors_are_not_found_by_vector_search(index: SearchIndex) -> None:
    add_segments(index, "wombat")
    add_vectors(index, "wombat", document="e")

    assert find_nearest(index, "wombat") == ["e-0"]
    assert find_segments(index, "wombat") == ["d-doc-0", "e-0"]


def test_vector_search_can_be_limited_to_documents(index: SearchIndex) -> None:
    add_vectors(index, "wombat", document="a")
    add_vectors(index, "quokka", document="b")

    assert find_nearest(index, "wombat", document_ids=["b", "unknown"]) == ["b-0"]
    assert find_nearest(index, "wombat", document_ids=[]) == []


def test_vectors_are_removed_with_their_segments(index: SearchIndex) -> None:
    add_vectors(index, "one", "two", document="a")
    add_vectors(index, "three", document="b")
    index.add([("a-1", "d", "a", "changed")], vectors=True)
    index.remove_segments(["a-0"])
    index.remove_document("b")

    assert find_nearest(index, "changed") == ["a-1"]
    index.remove_dataset("d")
    assert find_nearest(index, "changed") == []
    (remaining,) = index.database.execute("SELECT count(*) FROM indexed_vector").fetchone()
    assert remaining == 0
