"""A stub embedding model: hashed n-grams, identical on every machine.

Texts are similar if they share words, or words that share letters ("databases" and "database").
Meaning is ignored: "car" and "automobile" have nothing in common.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final
from zlib import crc32

from .tokenize import remove_stop_words, tokenize

DIMENSIONS: Final = 4096
"""Bits per vector. A chunk of 500 characters sets about 270 of them, so unrelated chunks have a
similarity of 0.03 on average and 0.07 at most (measured). Twice as many bits found no more."""

_NGRAM_LENGTH: Final = 3
"""Characters per n-gram; a shorter word is only hashed as a whole."""


def embed(text: str) -> bytes:
    """Return the embedding of a text: a little-endian bit vector with one bit per n-gram.

    Stop words are ignored unless the text has no other words.
    """
    bits = bytearray(DIMENSIONS // 8)
    for word in remove_stop_words(tokenize(text)):
        for position in _bit_positions(word):
            bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def cosine_similarity(left: bytes, right: bytes) -> float:
    """Return the cosine similarity of two bit vectors, from 0 (no common bit) to 1 (equal)."""
    left_bits, right_bits = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    norms = math.sqrt(left_bits.bit_count() * right_bits.bit_count())
    return (left_bits & right_bits).bit_count() / norms if norms else 0.0


@lru_cache(maxsize=16_384)
def _bit_positions(word: str) -> tuple[int, ...]:
    """Return the bits of a word and of its n-grams, with the ends of the word marked."""
    marked_word = f"<{word}>"
    parts = {marked_word}
    if len(word) >= _NGRAM_LENGTH:
        parts |= {
            marked_word[start : start + _NGRAM_LENGTH]
            for start in range(len(marked_word) - _NGRAM_LENGTH + 1)
        }
    elif not word.isascii():
        # A pair of Chinese, Japanese or Korean characters is similar to each of the two.
        parts |= {*word}
    return tuple(crc32(part.encode(errors="replace")) % DIMENSIONS for part in sorted(parts))
