"""Split texts into words, extract keywords, remove stop words."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

if TYPE_CHECKING:
    from collections.abc import Iterable

# Scripts written without spaces, and Korean, which joins particles to words: Han with 々〇,
# Hiragana, Katakana with ー, Hangul.
_UNSPACED_SCRIPTS = (
    "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"
)
# Characters inside words that `\w` does not match: accents, and the vowel signs of Hebrew,
# Arabic, the Indic scripts and Thai.
_COMBINING_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0d7f"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
)
_WORD_OR_RUN = re.compile(
    rf"([{_UNSPACED_SCRIPTS}]+)|(?:[^\W_{_UNSPACED_SCRIPTS}]|[{_COMBINING_MARKS}])+"
)


def tokenize(text: str) -> list[str]:
    """Return the words of `text` in searchable form, in order, with repetitions.

    Case and width are ignored (NFKC, casefold). A run of Chinese, Japanese or Korean characters is
    split into overlapping pairs, so that any two adjacent characters are found; a single character
    stays. Linear in the length of the text.
    """
    tokens: list[str] = []
    for run in _WORD_OR_RUN.finditer(normalize("NFKC", text).casefold()):
        tokens.extend(_bigrams(run[1]) if run[1] else [run[0]])
    return tokens


def _bigrams(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(max(1, len(run) - 1))]


def extract_keywords(text: str, limit: int = 10) -> list[str]:
    """Return the most frequent words of two or more characters; ties keep the order of the text.

    Dify lists such words as the `keywords` of economy segments. Unlike Dify, this function neither
    weights words by a dictionary nor drops common words.
    """
    counted = Counter(word for word in tokenize(text) if len(word) > 1)
    return [word for word, _ in counted.most_common(limit)]


def remove_stop_words(words: Iterable[str]) -> set[str]:
    """Return the distinct words without stop words; if all are stop words, return all."""
    unique_words = {*words}
    return unique_words - _STOP_WORDS or unique_words


_STOP_WORDS: Final = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "do", "does", "did", "for", "from",
    "has", "have", "how", "i", "in", "is", "it", "its", "me", "my", "of", "on", "or", "our",
    "so", "than", "that", "the", "their", "them", "they", "this", "to", "was", "we", "were",
    "what", "when", "where", "which", "who", "why", "will", "with", "you", "your",
})  # fmt: skip
"""Function words of English questions."""
