"""Count the characters that Dify deletes from texts: `ï`, `¿`, `¾`, and the bar of `<|` and `|>`.

All versions from 1.4.3 to 1.12.1 delete them before chunking (measured): "naïve ¿Qué?" is stored as
"nave Qué?".
"""

from __future__ import annotations

from attrs import define

# The second byte of these letters is rare in most texts, so that searching for it is a fast test.
_LETTERS = tuple(
    (letter, letter[:1], letter[1:]) for letter in (b"\xc3\xaf", b"\xc2\xbf", b"\xc2\xbe")
)
_SEQUENCES = frozenset({b"<|", b"|>", b"\xc3\xaf", b"\xc2\xbf", b"\xc2\xbe"})


def count_deleted(data: bytes) -> int:
    """Return the number of affected sequences in a UTF-8 text."""
    count = 0
    if b"|" in data:
        count += data.count(b"<|") if b"<" in data else 0
        count += data.count(b"|>") if b">" in data else 0
    if data.isascii():
        return count
    for letter, first, second in _LETTERS:
        if second in data and first in data:
            count += data.count(letter)
    return count


@define
class DeletedCounter:
    """Incremental `count_deleted` for a text in blocks, which may split a sequence."""

    count: int = 0
    _last: bytes = b""

    def add(self, block: bytes) -> None:
        """Count the sequences in a block, including one that ends with its first byte."""
        self.count += count_deleted(block) + (self._last + block[:1] in _SEQUENCES)
        self._last = block[-1:]
