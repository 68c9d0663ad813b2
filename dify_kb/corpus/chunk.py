from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dify_kb.models import MAX_CHUNK, MIN_CHUNK, ProcessMode, ProcessRule, Rules, Segmentation

from .clean import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_SEPARATORS = ("\n\n", "。", ". ", " ", "")
_AUTOMATIC = Segmentation(max_tokens=500, chunk_overlap=50)

# What the server strips from the head of a chunk: general punctuation (U+2000 to U+206F and
# U+2E00 to U+2E7F), ideographic punctuation (U+3000 to U+303F) and these ASCII symbols.
_LEADING = "\"#$%&'()*+,./:;<=>?@^_`~" + "".join(
    map(chr, (*range(0x2000, 0x2070), *range(0x2E00, 0x2E80), *range(0x3000, 0x3040)))
)


class ChunkError(Exception):
    """The document cannot be cut by its rule; the text becomes the document's error."""


def chunk(texts: Sequence[str], rule: ProcessRule) -> list[str]:
    """Cut the texts of one document into the contents of its segments, in order.

    Lengths are characters. Custom mode cuts at the separator first and leaves short pieces alone;
    automatic mode joins lines to 500 characters. What is left too long is cut at empty lines,
    sentence ends, spaces, and then anywhere. Checked against segments of Dify 1.12.1. For a plain
    document, hierarchical mode is custom mode (server source); `parents` cuts for the other form.

    Raises:
        ChunkError: what the server finds out only while indexing, in its words.
    """
    match rule.mode:
        case ProcessMode.AUTOMATIC:
            pieces = _automatic(clean(text, ["remove_extra_spaces"]) for text in texts)
        case _:
            pieces = _custom(texts, rules_of(rule))
    stripped = (piece.lstrip(_LEADING).strip() for piece in pieces)
    return [piece for piece in stripped if piece]


def rules_of(rule: ProcessRule) -> Rules:
    """Take the rules of a mode that has some, with lengths that can be cut to.

    Raises:
        ChunkError: there are none, or their lengths are not possible.
    """
    if not isinstance(rule.rules, Rules):
        raise ChunkError("No rules found in process rule.")
    check(rule.rules.segmentation)
    return rule.rules


def check(to: Segmentation) -> None:
    """Refuse lengths as the server does while it indexes.

    Raises:
        ChunkError: a chunk that is too long or too short, or overlaps by more than it is long.
    """
    size, overlap = to.max_tokens, to.chunk_overlap
    if not MIN_CHUNK <= size <= MAX_CHUNK:
        raise ChunkError(f"Custom segment length should be between {MIN_CHUNK} and {MAX_CHUNK}.")
    if overlap > size:
        raise ChunkError(
            f"Got a larger chunk overlap ({overlap}) than chunk size ({size}), should be smaller."
        )


def _automatic(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _split(text, _AUTOMATIC)


def _custom(texts: Iterable[str], rules: Rules) -> Iterator[str]:
    for text in texts:
        yield from pieces_of(cleaned(text, rules), rules.segmentation)


def cleaned(text: str, rules: Rules) -> str:
    """Clean a text by the enabled steps of the rules."""
    return clean(text, [step.id for step in rules.pre_processing_rules if step.enabled])


def pieces_of(text: str, to: Segmentation) -> Iterator[str]:
    """Cut at the separator, and what is then too long at the next best place."""
    separator = to.separator.replace("\\n", "\n")
    for part in text.split(separator) if separator else [text]:
        if len(part) <= to.max_tokens:
            yield part
        else:
            yield from _split(part, to, cut=_cut_losing_spaces)


def _cut(text: str, separator: str) -> list[str]:
    *heads, last = text.split(separator)
    return [*(head + separator for head in heads), last]


def _cut_losing_spaces(text: str, separator: str) -> list[str]:
    """Cut as the server does on the first level of custom mode.

    There it forgets the spaces it cuts at, so "a long line" is stored as "alongline" (measured,
    1.4.3 to 1.12.1), and by its source a line end alone between two spaces. Fixed upstream by
    langgenius/dify#39498, after 1.15; remove this when such a server is the pattern.
    """
    if separator != " ":
        return _cut(text, separator)
    return [word for word in text.split(" ") if word != "\n"]


def _split(
    text: str,
    to: Segmentation,
    *,
    separators: Sequence[str] = _SEPARATORS,
    cut: Callable[[str, str], list[str]] = _cut,
) -> Iterator[str]:
    """Cut `text` at the first separator it contains; join short pieces, cut long ones further."""
    level = next(level for level, separator in enumerate(separators) if separator in text)
    if not separators[level]:
        yield from _slide(text, to)
        return
    short: list[str] = []
    for piece in cut(text, separators[level]):
        if len(piece) < to.max_tokens:
            short.append(piece)
            continue
        yield from _join(short, to)
        short.clear()
        yield from _split(piece, to, separators=separators[level + 1 :])
    yield from _join(short, to)


def _join(pieces: Iterable[str], to: Segmentation) -> Iterator[str]:
    """Join as many as fit; a chunk begins with the last pieces of the one before, up to overlap."""
    window: deque[str] = deque()
    length = 0
    for piece in pieces:
        if length + len(piece) > to.max_tokens:
            yield "".join(window).strip()
            while window and (length > to.chunk_overlap or length + len(piece) > to.max_tokens):
                length -= len(window.popleft())
        window.append(piece)
        length += len(piece)
    yield "".join(window).strip()


def _slide(text: str, to: Segmentation) -> Iterator[str]:
    """Cut anywhere. Line ends vanish here, as on the server."""
    text = text.replace("\n", "")
    step = max(1, to.max_tokens - max(0, to.chunk_overlap))
    for start in range(0, max(1, len(text) - to.max_tokens + step), step):
        yield text[start : start + to.max_tokens].strip()
