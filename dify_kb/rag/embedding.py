"""A stand-in for an embedding model: hashed n-grams, the same on every machine and for ever.

Texts are near each other when they share words, or words share their letters ("databases" and
"database"). It knows nothing of meaning: "car" and "automobile" are strangers to it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final
from zlib import crc32

from .tokenize import remove_stop_words, tokenize

DIMENSIONS: Final = 4096
"""Bits of a vector. A chunk of 500 characters sets some 270 of them, so that chance alone makes a
likeness of 0.03 in the mean and 0.07 at most (measured); twice as many bits found no more."""

_NGRAM_LENGTH: Final = 3
"""Letters of the n-grams; a shorter word is only taken whole."""


def embed(text: str) -> bytes:
    """Return the vector of a text, little-endian, one bit for each n-gram that it has.

    Common words count only in a text that has no others.
    """
    bits = bytearray(DIMENSIONS // 8)
    for word in remove_stop_words(tokenize(text)):
        for position in _bit_positions(word):
            bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def cosine_similarity(left: bytes, right: bytes) -> float:
    """Tell how alike two vectors are: 0 for nothing in common, 1 for all."""
    left_bits, right_bits = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    norms = math.sqrt(left_bits.bit_count() * right_bits.bit_count())
    return (left_bits & right_bits).bit_count() / norms if norms else 0.0


@lru_cache(maxsize=16_384)
def _bit_positions(word: str) -> tuple[int, ...]:
    """Tell the bits of a word: of itself, and of its n-grams with its ends marked."""
    marked_word = f"<{word}>"
    parts = {marked_word}
    if len(word) >= _NGRAM_LENGTH:
        parts |= {
            marked_word[start : start + _NGRAM_LENGTH]
            for start in range(len(marked_word) - _NGRAM_LENGTH + 1)
        }
    elif not word.isascii():
        # A pair of Chinese, Japanese or Korean characters is near to each of them.
        parts |= {*word}
    return tuple(crc32(part.encode(errors="replace")) % DIMENSIONS for part in sorted(parts))
