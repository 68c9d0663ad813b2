from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from unicodedata import is_normalized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.corpus import Index
from dify_kb.corpus.index import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def index() -> Iterator[Index]:
    database = sqlite3.connect(":memory:")
    yield Index(database)
    database.close()


def fill(index: Index, *contents: str, dataset: str = "d", document: str = "doc") -> None:
    index.add(
        Row(f"{dataset}-{document}-{number}", dataset, document, content)
        for number, content in enumerate(contents)
    )


def found(index: Index, query: str, dataset: str = "d", limit: int = 10) -> list[str]:
    return [hit.segment_id for hit in index.search(dataset, query, limit)]


def test_a_question_finds_the_passage_that_answers_it(index: Index) -> None:
    fill(
        index,
        "The quick brown fox jumps over the lazy dog.",
        "Postgres stores relational data in tables.",
        "Redis keeps keys in memory.",
    )

    assert found(index, "Where does Redis keep its keys?")[0] == "d-doc-2"


def test_more_and_rarer_words_come_first_and_equals_in_order_of_insertion(index: Index) -> None:
    fill(
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

    assert found(index, "rare pear") == ["d-doc-3", "d-doc-1", "d-doc-0", "d-doc-2"]


def test_scores_fall(index: Index) -> None:
    fill(index, "one two three", "one two", "one", "four", "five")

    scores = [hit.score for hit in index.search("d", "one two", 10)]

    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_limit_is_kept(index: Index) -> None:
    fill(index, *["same words"] * 20)

    assert found(index, "same", limit=3) == ["d-doc-0", "d-doc-1", "d-doc-2"]
    assert found(index, "same", limit=0) == []


def test_search_stays_in_its_dataset(index: Index) -> None:
    fill(index, "shared word", dataset="a")
    fill(index, "shared word", "shared", dataset="b")

    assert found(index, "shared", dataset="a") == ["a-doc-0"]
    assert found(index, "shared", dataset="unknown") == []


def test_other_datasets_do_not_change_scores(index: Index) -> None:
    fill(index, "shared word", "another one", "third", dataset="a")
    before = index.search("a", "shared", 10)

    fill(index, *["shared word"] * 50, dataset="b")

    assert index.search("a", "shared", 10) == before


def test_search_can_be_limited_to_documents(index: Index) -> None:
    fill(index, "word", document="one")
    fill(index, "word", document="two")

    assert [hit.segment_id for hit in index.search("d", "word", 5, ["two", "x"])] == ["d-two-0"]
    assert index.search("d", "word", 5, []) == []


def test_adding_again_replaces(index: Index) -> None:
    fill(index, "old text", "kept")
    fill(index, "new text")
    index.add([("twice", "d", "doc", "first"), ("twice", "d", "doc", "second")])

    assert found(index, "old") == []
    assert found(index, "new text") == ["d-doc-0"]
    assert found(index, "kept first second") == ["d-doc-1", "twice"]


def test_removed_segments_are_gone(index: Index) -> None:
    fill(index, "word one", "word two")

    index.remove_segments(["d-doc-0", "unknown"])

    assert found(index, "word one") == ["d-doc-1"]


def test_removed_dataset_is_gone_and_may_come_back(index: Index) -> None:
    fill(index, "word", dataset="a")
    fill(index, "word", dataset="b")

    index.remove_dataset("a")
    index.remove_dataset("unknown")

    assert found(index, "word", dataset="a") == []
    assert found(index, "word", dataset="b") == ["b-doc-0"]
    fill(index, "again", dataset="a")
    assert found(index, "word again", dataset="a") == ["a-doc-0"]


@settings(deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=2, max_size=8),
    removed=st.sets(st.integers(0, 7)),
)
def test_removed_documents_are_never_found(texts: list[str], removed: set[int]) -> None:
    database = sqlite3.connect(":memory:")
    index = Index(database)
    for number, text in enumerate(texts):
        fill(index, text, document=str(number))
    for number in removed:
        index.remove(str(number))

    hits = {segment_id for text in texts for segment_id in found(index, text)}
    left = database.execute("SELECT count(*) FROM indexed_segment").fetchone()[0]

    database.close()
    assert hits.isdisjoint(f"d-{number}-0" for number in removed)
    assert left == len(set(range(len(texts))) - removed)


HOSTILE = ['"', "'", "*", "NEAR(", "AND", "OR NOT", "words:", "^a", "{", "-", "😀", "\x00", "据"]


@settings(deadline=None)
@given(query=st.one_of(st.text(), st.lists(st.sampled_from(HOSTILE)).map(" ".join)))
def test_search_never_raises(query: str) -> None:
    database = sqlite3.connect(":memory:")
    index = Index(database)
    fill(index, "some words", query)

    hits = index.search("d", query, 5)

    database.close()
    assert len(hits) <= 2


def test_a_query_of_thousands_of_words_is_answered(index: Index) -> None:
    fill(index, "word7 and more")

    assert found(index, " ".join(f"word{number}" for number in range(20_000))) == ["d-doc-0"]


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
    index = Index(database)
    fill(index, f"before {text} after", "other")

    pairs = [text[at : at + 2] for at in range(len(text) - 1)]
    hits = [found(index, pair) for pair in pairs]

    database.close()
    assert hits == [["d-doc-0"]] * len(pairs)


def test_nothing_is_committed_and_a_rollback_takes_all_of_it_back(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "emulator.db")
    index = Index(database)
    fill(index, "word")

    assert database.in_transaction
    database.rollback()

    assert found(index, "word") == []
    fill(index, "word")
    database.commit()
    database.close()


def test_index_survives_in_its_file(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "emulator.db") as database:
        fill(Index(database), "word")
    database.close()

    again = sqlite3.connect(tmp_path / "emulator.db")
    hits = found(Index(again), "word")

    again.close()
    assert hits == ["d-doc-0"]


def nearest(index: Index, query: str, limit: int = 10, **within: list[str]) -> list[str]:
    return [hit.segment_id for hit in index.nearest("d", query, limit, **within)]


def embed(index: Index, *contents: str, document: str = "doc") -> None:
    index.add(
        [Row(f"{document}-{number}", "d", document, text) for number, text in enumerate(contents)],
        vectors=True,
    )


def test_vectors_find_what_shares_parts_of_words(index: Index) -> None:
    embed(index, "the quokka smiles", "the wombat digs", "numbats nap")

    assert nearest(index, "wombats digging", 1) == ["doc-1"]
    assert index.search("d", "wombats digging", 1) == []


def test_there_are_always_as_many_as_there_are_vectors(index: Index) -> None:
    """A semantic search has top_k hits however bad they are; equals stand as they were added."""
    embed(index, "one", "two", "three", "")

    assert nearest(index, "axolotl") == ["doc-0", "doc-1", "doc-2", "doc-3"]
    assert nearest(index, "?!", 2) == ["doc-0", "doc-1"]
    assert nearest(index, "axolotl", 0) == []


def test_scores_of_vectors_are_cosines(index: Index) -> None:
    embed(index, "the wombat digs", "quokka")

    same, other = index.nearest("d", "The wombat digs!", 2)

    assert same.score == pytest.approx(1)
    assert 0 <= other.score < 0.1


def test_vectors_are_only_found_where_they_were_asked_for(index: Index) -> None:
    fill(index, "wombat")
    embed(index, "wombat", document="e")

    assert nearest(index, "wombat") == ["e-0"]
    assert found(index, "wombat") == ["d-doc-0", "e-0"]


def test_vectors_of_some_documents_are_found_alone(index: Index) -> None:
    embed(index, "wombat", document="a")
    embed(index, "quokka", document="b")

    assert nearest(index, "wombat", document_ids=["b", "unknown"]) == ["b-0"]
    assert nearest(index, "wombat", document_ids=[]) == []


def test_vectors_go_with_what_they_are_of(index: Index) -> None:
    embed(index, "one", "two", document="a")
    embed(index, "three", document="b")
    index.add([("a-1", "d", "a", "changed")], vectors=True)
    index.remove_segments(["a-0"])
    index.remove("b")

    assert nearest(index, "changed") == ["a-1"]
    index.remove_dataset("d")
    assert nearest(index, "changed") == []
    (left,) = index.database.execute("SELECT count(*) FROM indexed_vector").fetchone()
    assert left == 0
