"""Cutting a document into parents, which are answered, and their children, by which they are found.

By `ParentChildIndexProcessor` of api/core/rag/index_processor @1.12.1 and recordings 1000 to 1040.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.models import ParentMode, ProcessRule, Rules, Segmentation

from .chunk import ChunkError, check, cleaned, pieces_of, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@frozen
class Parent:
    """A chunk and its children; a plain chunk has none."""

    content: str
    children: Sequence[str] = ()


def parents(texts: Sequence[str], rule: ProcessRule) -> list[Parent]:
    """Cut the texts of one document into parents, in order.

    A rule without a parent mode, the automatic one too, gives none, and no error (recording 1040).
    With `full-doc` the whole document is the only parent, as it is, uncleaned.

    Raises:
        ChunkError: what the server finds out only while indexing, in its words.
    """
    rules = rule.rules if isinstance(rule.rules, Rules) else None
    if rules is None or not rules.parent_mode:
        return []
    if rules.parent_mode == ParentMode.FULL_DOC:
        whole = "\n".join(texts)
        return [Parent(whole, children(whole, rule))] if whole.strip() else []
    rules = rules_of(rule)
    contents = (
        content
        for text in texts
        for content in _without_stops(pieces_of(cleaned(text, rules), rules.segmentation))
    )
    return [Parent(content, children(content, rule)) for content in contents]


def children(text: str, rule: ProcessRule) -> list[str]:
    """Cut a parent into its children.

    Raises:
        ChunkError: the rule does not say how, or asks for lengths that are not possible.
    """
    to = rule.rules.subchunk_segmentation if isinstance(rule.rules, Rules) else None
    if not isinstance(to, Segmentation):
        raise ChunkError("No subchunk segmentation found in rules.")
    check(to)
    return [*_without_stops(pieces_of(text, to))]


def _without_stops(pieces: Iterable[str]) -> Iterator[str]:
    """Leave out what is empty; of a sentence's end left over in front, only that is taken off."""
    for piece in pieces:
        if not piece.strip():
            continue
        content = piece[1:].strip() if piece.startswith((".", "。")) else piece
        if content:
            yield content
