"""Split documents into parent chunks, which are returned, and child chunks, which are searched.

Sources: ParentChildIndexProcessor in api/core/rag/index_processor @1.12.1, recordings 1000 to 1040.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.models import ChunkingRules, ParentMode, ProcessMode, ProcessRule, Segmentation

from .chunk import (
    NEWEST_SPLITTER,
    ChunkError,
    SplitterVersion,
    check_segmentation,
    clean_by_rules,
    require_rules,
    split_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@frozen
class ParentChunk:
    """A chunk and its child chunks; a plain chunk has no children."""

    content: str
    children: Sequence[str] = ()
    source: str | None = None
    """The text before leading symbols were stripped, if it is known."""


def chunk_parents(
    texts: Sequence[str], rule: ProcessRule, version: SplitterVersion = NEWEST_SPLITTER
) -> list[ParentChunk]:
    """Split the texts of one document into parent chunks, in order.

    The automatic rule gives no chunks and no error (recording 1040), and so does any rule without a
    parent mode up to 1.12. With `full-doc` the whole uncleaned document is the only parent.

    Raises:
        ChunkError: the rule is invalid. The server detects this only while indexing; the message
            is the server's.
    """
    rules = rule.rules if isinstance(rule.rules, ChunkingRules) else None
    assumed = version.assumes_paragraphs and rule.mode == ProcessMode.HIERARCHICAL
    if rules is None or not (rules.parent_mode or assumed):
        return []
    if rules.parent_mode == ParentMode.FULL_DOC:
        full_text = "\n".join(texts)
        return (
            [ParentChunk(full_text, chunk_children(full_text, rule, version))]
            if full_text.strip()
            else []
        )
    rules = require_rules(rule)
    contents = (
        content
        for text in texts
        for content in _strip_leading_stops(
            split_text(clean_by_rules(text, rules), rules.segmentation, version)
        )
    )
    return [ParentChunk(content, chunk_children(content, rule, version)) for content in contents]


def chunk_children(
    text: str, rule: ProcessRule, version: SplitterVersion = NEWEST_SPLITTER
) -> list[str]:
    """Split a parent chunk into its child chunks.

    Raises:
        ChunkError: the rule has no subchunk segmentation, or its lengths are invalid.
    """
    segmentation = (
        rule.rules.subchunk_segmentation if isinstance(rule.rules, ChunkingRules) else None
    )
    if not isinstance(segmentation, Segmentation):
        raise ChunkError("No subchunk segmentation found in rules.")
    check_segmentation(segmentation)
    return [*_strip_leading_stops(split_text(text, segmentation, version))]


def _strip_leading_stops(pieces: Iterable[str]) -> Iterator[str]:
    """Drop empty pieces and a full stop left over at the start of a piece."""
    for piece in pieces:
        if not piece.strip():
            continue
        content = piece[1:].strip() if piece.startswith((".", "。")) else piece
        if content:
            yield content
