"""Which words a folder is searched by, and how good what they find is. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dify_kb.corpus import telling, words

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST: Final = 10_000
"""Characters of a question that are looked at."""

_MOST: Final = 256
"""Words of a question that are looked at; each that was not asked for yet costs 0.1 ms."""

_POSTINGS: Final = 500
"""Passages that a search looks at, rare words first, unless even its rarest word has more. At some
1.5 us each (measured) common words would cost the most and say the least."""


def words_of(query: str) -> list[str]:
    """Take the words that tell what is asked for, each once; of a long text those of its start."""
    found = words(query[:_LONGEST])
    wanted = telling(found)
    return [word for word in dict.fromkeys(found) if word in wanted][:_MOST]


def rarest(frequencies: Mapping[str, int]) -> str:
    """Take the words to search by, the rare ones first, while they are not too many."""
    taken: list[str] = []
    left = _POSTINGS
    for frequency, word in sorted((frequency, word) for word, frequency in frequencies.items()):
        if taken and frequency > left:
            break
        if frequency:
            taken.append(word)
            left -= frequency
    return " ".join(taken)


def weights_of(frequencies: Mapping[str, int], size: int) -> dict[str, float]:
    """Weigh words as BM25 does, without its negative ones; they sum up to 1."""
    weights = {
        word: math.log(1 + (max(size, number) - number + 0.5) / (number + 0.5))
        for word, number in frequencies.items()
    }
    total = sum(weights.values())
    return {word: weight / total for word, weight in weights.items()}


def score_of(content: str, weights: Mapping[str, float]) -> float:
    """Sum up the weights of the words that a passage has."""
    there = _there(content)
    return min(1.0, sum(weight for word, weight in weights.items() if word in there))


@lru_cache(maxsize=4096)
def _there(content: str) -> frozenset[str]:
    return frozenset(words(content))
