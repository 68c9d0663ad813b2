from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.rag import extract_keywords, tokenize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The QUICK, brown_fox!", ["the", "quick", "brown", "fox"]),
        ("Straße \uff21\uff22\uff11", ["strasse", "ab1"]),
        ("数据库", ["数据", "据库"]),
        ("用 Postgres 数据库14", ["用", "postgres", "数据", "据库", "14"]),
        ("ﾃﾞｰﾀ 検索する", ["デー", "ータ", "検索", "索す", "する"]),
        ("데이터베이스 는", ["데이", "이터", "터베", "베이", "이스", "는"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("İstanbul", ["i̇stanbul"]),
        ("😀 -- *** \x00", []),
    ],
)
def test_tokenize_splits_texts_into_words(text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected


@settings(deadline=None)
@given(text=st.text())
def test_tokenize_is_idempotent(text: str) -> None:
    """The index stores words joined by spaces; tokenizing them again must change nothing."""
    words = tokenize(text)

    assert all(tokenize(word) == [word] for word in words)


def test_keywords_are_the_most_frequent_words() -> None:
    text = "Redis keeps keys. redis and postgres; a a a a 数据库"

    assert extract_keywords(text, limit=4) == ["redis", "keeps", "keys", "and"]
