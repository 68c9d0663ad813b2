"""Clean texts and split them into chunks according to a process rule."""

from __future__ import annotations

import codecs
import re
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.models import (
    MAX_CHUNK_LENGTH,
    MIN_CHUNK_LENGTH,
    ChunkingRules,
    ProcessMode,
    ProcessRule,
    Segmentation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_SEPARATORS = ("\n\n", "。", ". ", " ", "")
_AUTOMATIC_SEGMENTATION = Segmentation(max_tokens=500, chunk_overlap=50)

_PUNCTUATION: Final = frozenset(
    map(chr, (*range(0x2000, 0x2070), *range(0x2E00, 0x2E80), *range(0x3000, 0x3040)))
)
"""General and ideographic punctuation, of which servers strip most at the start of a chunk."""

_MARKDOWN_LINK: Final = re.compile(r"\[[^\]]+\]\(https?://[^)]+\)")


def build_leading_symbols(*, added: str = "", kept: str = "") -> str:
    """Return the characters that a server strips from the start of a chunk.

    Args:
        added: ASCII symbols that are stripped in addition to the usual ones.
        kept: punctuation above U+2000 that is not stripped.
    """
    return "\"#$%&'()*+,./:;<=>?@^_`~" + added + "".join(sorted(_PUNCTUATION - {*kept}))


@frozen(kw_only=True)
class SplitterVersion:
    """Differences between the splitters of server versions; the default is 1.14.2 (measured)."""

    leading_symbols: str = build_leading_symbols(kept="\u2026\u3010\u3011")
    """Characters that are stripped from the start of a chunk, unless it starts with a link."""

    escapes_separator: bool = True
    """Whether a separator is decoded by `unicode_escape`. That garbles characters above U+007F, so
    such a separator splits nothing, and a backslash at its end fails."""

    assumes_paragraphs: bool = True
    """Whether a hierarchical rule without a parent mode means paragraphs; otherwise there are no
    chunks (2091)."""

    def strip(self, text: str) -> str:
        """Strip the leading symbols of a chunk, then the spaces at both ends."""
        if _MARKDOWN_LINK.match(text):
            return text.strip()
        return text.lstrip(self.leading_symbols).strip()

    def decode_separator(self, separator: str) -> str:
        """Return the text to split at.

        Raises:
            ChunkError: the separator cannot be decoded.
        """
        separator = separator.replace("\\n", "\n")
        if not self.escapes_separator:
            return separator
        try:
            return codecs.decode(separator, "unicode_escape")
        except ValueError as error:
            raise ChunkError(str(error)) from error


NEWEST_SPLITTER: Final = SplitterVersion()


# The server mistakes U+00EF, U+00BF and U+00BE for the bytes of a byte order mark and deletes these
# letters from every text (measured, 1.4.3 to 1.14.2).
_REMOVED_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ef\u00bf\u00be\ufffe]")

_NEWLINES = re.compile(r"\n{3,}")
_SPACES = re.compile("[\t\f\r \u00a0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000]{2,}")

# The lookbehind keeps the time linear in a long run of letters: a match starts only with the run.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[a-z\d-]++\.[a-z\d.-]+", re.ASCII | re.IGNORECASE)
_URL = re.compile(r"(!?\[[^\[\]\n]*\]\(https?://[^\s)]+\))|https?://[^\s)]+")


class ChunkError(Exception):
    """Raised if a rule cannot split a document; the message becomes the document's error."""


def chunk(
    texts: Sequence[str], rule: ProcessRule, version: SplitterVersion = NEWEST_SPLITTER
) -> list[str]:
    """Split the texts of one document into the contents of its segments, in order.

    Lengths are in characters. Custom mode splits at the separator and does not join short pieces;
    automatic mode joins lines up to 500 characters. Longer pieces are split at empty lines, then
    at sentence ends, at spaces, and finally at any character. Checked against segments of Dify
    1.12.1. For a plain document, hierarchical mode equals custom mode (server source); parent-child
    documents are split by `chunk_parents`.

    Raises:
        ChunkError: the rule is invalid. The server detects this only while indexing; the message
            is the server's.
    """
    return [content for content, _ in chunk_with_sources(texts, rule, version)]


def chunk_with_sources(
    texts: Sequence[str], rule: ProcessRule, version: SplitterVersion = NEWEST_SPLITTER
) -> list[tuple[str, str]]:
    """Split like `chunk`; return each content with the text that it had before stripping.

    Raises:
        ChunkError: the rule is invalid.
    """
    match rule.mode:
        case ProcessMode.AUTOMATIC:
            pieces = _split_automatic(clean(text, ["remove_extra_spaces"]) for text in texts)
        case _:
            pieces = _split_custom(texts, require_rules(rule), version)
    stripped = ((version.strip(piece), piece) for piece in pieces)
    return [(content, source) for content, source in stripped if content]


def require_rules(rule: ProcessRule) -> ChunkingRules:
    """Return the chunking rules of a process rule after checking their lengths.

    Raises:
        ChunkError: the process rule has no chunking rules, or their lengths are invalid.
    """
    if not isinstance(rule.rules, ChunkingRules):
        raise ChunkError("No rules found in process rule.")
    check_segmentation(rule.rules.segmentation)
    return rule.rules


def check_segmentation(segmentation: Segmentation) -> None:
    """Check chunk length and overlap as the server does while indexing.

    Raises:
        ChunkError: the length is out of range, or the overlap exceeds it.
    """
    size, overlap = segmentation.max_tokens, segmentation.chunk_overlap
    if not MIN_CHUNK_LENGTH <= size <= MAX_CHUNK_LENGTH:
        raise ChunkError(
            f"Custom segment length should be between {MIN_CHUNK_LENGTH} and {MAX_CHUNK_LENGTH}."
        )
    if overlap > size:
        raise ChunkError(
            f"Got a larger chunk overlap ({overlap}) than chunk size ({size}), should be smaller."
        )


def _split_automatic(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _split_recursively(text, _AUTOMATIC_SEGMENTATION)


def _split_custom(
    texts: Iterable[str], rules: ChunkingRules, version: SplitterVersion
) -> Iterator[str]:
    for text in texts:
        yield from split_text(clean_by_rules(text, rules), rules.segmentation, version)


def clean_by_rules(text: str, rules: ChunkingRules) -> str:
    """Clean a text with the enabled pre-processing rules."""
    return clean(text, [step.id for step in rules.pre_processing_rules if step.enabled])


def split_text(text: str, segmentation: Segmentation, version: SplitterVersion) -> Iterator[str]:
    """Split at the separator, then split longer parts at the default separators."""
    separator = version.decode_separator(segmentation.separator)
    for part in text.split(separator) if separator else [text]:
        if len(part) <= segmentation.max_tokens:
            yield part
        else:
            yield from _split_recursively(part, segmentation, cut=_split_dropping_spaces)


def _split_keeping_separator(text: str, separator: str) -> list[str]:
    *heads, last = text.split(separator)
    return [*(head + separator for head in heads), last]


def _split_dropping_spaces(text: str, separator: str) -> list[str]:
    """Split as the server does on the first level of custom mode.

    On that level, the server drops the spaces it splits at: "a long line" is stored as "alongline"
    (measured, 1.4.3 to 1.12.1). It also drops a newline between two spaces (server source).
    Fixed upstream by langgenius/dify#39498, after 1.15; remove this when the emulated version
    contains the fix.
    """
    if separator != " ":
        return _split_keeping_separator(text, separator)
    return [word for word in text.split(" ") if word != "\n"]


def _split_recursively(
    text: str,
    segmentation: Segmentation,
    *,
    separators: Sequence[str] = _SEPARATORS,
    cut: Callable[[str, str], list[str]] = _split_keeping_separator,
) -> Iterator[str]:
    """Split `text` at the first separator it contains; join short pieces, split long ones again."""
    level = next(level for level, separator in enumerate(separators) if separator in text)
    if not separators[level]:
        yield from _split_by_length(text, segmentation)
        return
    short: list[str] = []
    for piece in cut(text, separators[level]):
        if len(piece) < segmentation.max_tokens:
            short.append(piece)
            continue
        yield from _merge_pieces(short, segmentation)
        short.clear()
        yield from _split_recursively(piece, segmentation, separators=separators[level + 1 :])
    yield from _merge_pieces(short, segmentation)


def _merge_pieces(pieces: Iterable[str], segmentation: Segmentation) -> Iterator[str]:
    """Join pieces into chunks; a chunk starts with the previous chunk's last pieces (overlap)."""
    window: deque[str] = deque()
    length = 0
    for piece in pieces:
        if length + len(piece) > segmentation.max_tokens:
            yield "".join(window).strip()
            while window and (
                length > segmentation.chunk_overlap or length + len(piece) > segmentation.max_tokens
            ):
                length -= len(window.popleft())
        window.append(piece)
        length += len(piece)
    yield "".join(window).strip()


def _split_by_length(text: str, segmentation: Segmentation) -> Iterator[str]:
    """Split into chunks of the maximum length. Newlines are removed, as on the server."""
    text = text.replace("\n", "")
    step = max(1, segmentation.max_tokens - max(0, segmentation.chunk_overlap))
    for start in range(0, max(1, len(text) - segmentation.max_tokens + step), step):
        yield text[start : start + segmentation.max_tokens].strip()


def clean(text: str, steps: Iterable[str] = ()) -> str:
    """Return `text` cleaned as the server does before splitting.

    Control characters and a few letters are always removed. `steps` are the ids of the enabled
    pre-processing rules, in order; unknown ids are ignored, as on the server.
    """
    text = _REMOVED_CHARACTERS.sub("", text.replace("<|", "<").replace("|>", ">"))
    for step in steps:
        match step:
            case "remove_extra_spaces":
                text = _remove_extra_spaces(text)
            case "remove_urls_emails":
                text = _remove_urls_and_emails(text)
            case _:
                pass
    return text


def _remove_extra_spaces(text: str) -> str:
    """Collapse empty lines to one and runs of spaces to one space; keep a single tab."""
    return _SPACES.sub(" ", _NEWLINES.sub("\n\n", text))


def _remove_urls_and_emails(text: str) -> str:
    """Remove URLs and e-mail addresses; keep the targets of Markdown links and images."""
    return _URL.sub(r"\1", _EMAIL.sub("", text))
