"""Decide how the chunks of a document are created again exactly. No I/O."""

from __future__ import annotations

import enum
import re
import string
from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from dify_kb.errors import ConfigError
from dify_kb.models import (
    DOCUMENT_EXTENSIONS,
    MAX_CHUNK_LENGTH,
    UNSET,
    ChunkingRules,
    DocForm,
    ParentMode,
    PreProcessingRule,
    ProcessMode,
    ProcessRule,
    Segmentation,
)
from dify_kb.rag.chunk import SplitterVersion, build_leading_symbols, clean

from .read_dataset import is_full_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from .archived_document import ArchivedChunk, ArchivedDocument

SEPARATOR_LENGTH: Final = 24
_ALPHABET: Final = string.ascii_lowercase + string.digits
"""Servers do not split at a separator with other characters on every version (measured)."""

FEW_CHUNKS: Final = 20
"""Chunks up to which appending them is as fast as having the server split a text."""

MAX_HARD_SHARE: Final = 0.1
"""Share of chunks that may need an update of their own before appending is faster."""

MAX_JOINED: Final = 8 * 1024 * 1024
"""Characters of a joined text; proxies limit bodies to 15 MiB."""

MAX_NAME: Final = 200
"""Characters of a text document's name that the server keeps (measured)."""

FOREIGN_SOURCE: Final = "the source is "
"""Beginning of the reason why a document that was not created from a file has none."""

_TEXT_EXTENSIONS: Final = frozenset({"txt", "markdown", "md", "mdx"})
_INVALID_FILE_NAME: Final = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|%22|\s$')

_STRICTEST: Final = SplitterVersion(leading_symbols=build_leading_symbols(added="![]{}\\-"))
"""Strips what any measured version strips from the start of a chunk."""


class RestoreMethod(enum.StrEnum):
    """The way in which the chunks of a document were created."""

    FILE = "file"
    """The original file was split by the archived rule; differences were repaired."""

    JOINED = "joined"
    """One text was split at a separator; chunks that the server would clean were updated."""

    APPENDED = "appended"
    """The chunks were appended to an empty document, which a re-index in the console empties."""


def is_exact_when_split(content: str, *, is_parent: bool = False) -> bool:
    """Return whether every server keeps a chunk as it is when it splits a text.

    Servers strip leading symbols, three different sets of them, delete `ï`, `¿` and `¾` and control
    characters, shorten `<|` and `|>`, convert CRLF, and split chunks of more than 4,000 characters
    (measured on 1.4.3, 1.12.1 and 1.14.2). Of a parent chunk they only strip a leading full stop.
    """
    return (
        0 < len(content) <= MAX_CHUNK_LENGTH
        and "\r" not in content
        and clean(content) == content
        and (content[0] not in ".\u3002" if is_parent else _STRICTEST.strip(content) == content)
        and content.strip() == content
    )


def is_file_name(name: str, extensions: frozenset[str] = DOCUMENT_EXTENSIONS) -> bool:
    """Return whether a file can be uploaded under the name of a document."""
    stem, dot, extension = name.rpartition(".")
    return bool(dot and stem) and (
        extension.lower() in extensions and not _INVALID_FILE_NAME.search(name)
    )


def needs_upload(document: ArchivedDocument, *, is_duplicate: bool) -> bool:
    """Return whether only an upload can create a document: one of several with its name, or one
    with a long name.
    """
    return is_duplicate or len(document.name) > MAX_NAME


def can_upload_text(name: str) -> bool:
    """Return whether a text can be uploaded as a file under this name."""
    return is_file_name(name, _TEXT_EXTENSIONS)


def choose_method(document: ArchivedDocument, *, use_file: bool) -> RestoreMethod:
    """Return how to create the chunks of a document."""
    # A document created from a text has a file of the same name.
    has_file = document.file and (
        is_file_name(document.name) or document.file.name == document.name
    )
    if use_file and has_file and document.form != DocForm.QA:
        return RestoreMethod.FILE
    chunks = document.chunks
    if (
        len(chunks) <= FEW_CHUNKS
        or document.form not in {DocForm.TEXT, DocForm.HIERARCHICAL}
        or (document.form == DocForm.HIERARCHICAL and is_full_document(document.rule or {}))
        or sum(len(chunk.content) for chunk in chunks) > MAX_JOINED
    ):
        return RestoreMethod.APPENDED
    is_parent = document.form == DocForm.HIERARCHICAL
    hard = sum(not is_exact_when_split(chunk.content, is_parent=is_parent) for chunk in chunks)
    return RestoreMethod.APPENDED if hard > MAX_HARD_SHARE * len(chunks) else RestoreMethod.JOINED


@frozen(kw_only=True)
class JoinedText:
    """A text that the server splits into the chunks of a document, and the rule for that."""

    text: str
    rule: ProcessRule


def join_chunks(document: ArchivedDocument, random: Random) -> JoinedText:
    """Join the chunks of a document; a placeholder takes the place of those that would change."""
    is_parent = document.form == DocForm.HIERARCHICAL
    contents = [
        chunk.content
        if is_exact_when_split(chunk.content, is_parent=is_parent)
        else f"placeholder {create_token(random)}"
        for chunk in document.chunks
    ]
    separator = create_token(random)
    while (joined := separator.join(contents)).split(separator) != contents:
        separator = create_token(random)
    return JoinedText(text=joined, rule=_split_at(separator, document))


def create_token(random: Random) -> str:
    """Return random letters and digits that no chunk contains by chance."""
    return "".join(random.choices(_ALPHABET, k=SEPARATOR_LENGTH))


def _split_at(separator: str, document: ArchivedDocument) -> ProcessRule:
    if document.form != DocForm.HIERARCHICAL:
        return ProcessRule.custom(
            max_tokens=MAX_CHUNK_LENGTH,
            separator=separator,
            chunk_overlap=0,
            remove_extra_spaces=False,
        )
    children = read_rule(document.rule, document.form).rules
    subchunks = children.subchunk_segmentation if isinstance(children, ChunkingRules) else UNSET
    return ProcessRule(
        mode=ProcessMode.HIERARCHICAL,
        rules=ChunkingRules(
            pre_processing_rules=[
                PreProcessingRule(id=name, enabled=False)
                for name in ("remove_extra_spaces", "remove_urls_emails")
            ],
            segmentation=Segmentation(
                separator=separator, max_tokens=MAX_CHUNK_LENGTH, chunk_overlap=0
            ),
            parent_mode=ParentMode.PARAGRAPH,
            subchunk_segmentation=subchunks,
        ),
    )


def read_rule(rule: Mapping[str, Any] | None, form: str) -> ProcessRule:
    """Return an archived rule, or a default that fits the form of the document."""
    if rule is not None:
        try:
            read = ProcessRule.from_response(rule)
        except ConfigError:
            pass
        else:
            has_children = isinstance(read.rules, ChunkingRules) and read.rules.parent_mode
            if has_children or form != DocForm.HIERARCHICAL:
                return read
    if form == DocForm.HIERARCHICAL:
        return ProcessRule.parent_child()
    return ProcessRule.automatic()


def find_shared_names(names: Mapping[str, int]) -> frozenset[str]:
    """Return the names that several documents have, or would have after the server cuts them."""
    kept = Counter[str]()
    for name, count in names.items():
        kept[name[:MAX_NAME]] += count
    return frozenset(name for name in names if kept[name[:MAX_NAME]] > 1)


def remove_nul(document: ArchivedDocument) -> ArchivedDocument:
    """Return the document without NUL, which no server can store."""
    return evolve(
        document,
        chunks=[
            evolve(
                chunk,
                content=chunk.content.replace("\0", ""),
                answer=chunk.answer and chunk.answer.replace("\0", ""),
                children=[child.replace("\0", "") for child in chunk.children],
            )
            for chunk in document.chunks
        ],
    )


def is_repairable(document: ArchivedDocument, contents: Sequence[str]) -> bool:
    """Return whether few of the chunks that a server made of an original differ.

    Otherwise it is faster to create the document without the original.
    """
    pairs = zip_longest(contents, [chunk.content for chunk in document.chunks])
    differing = sum(bool(one != other) for one, other in pairs)
    return differing <= max(FEW_CHUNKS, len(document.chunks) // 2)


def count_losses(document: ArchivedDocument, *, keeps_keywords: bool) -> dict[str, int]:
    """Return what no server can be told, by kind."""
    losses: dict[str, int] = {}
    if any("\0" in text for chunk in document.chunks for text in _texts(chunk)):
        losses["NUL characters"] = 1
    if any(chunk.summary for chunk in document.chunks):
        losses["summaries"] = 1
    if any(chunk.attachments for chunk in document.chunks):
        losses["attachments"] = 1
    if (document.file_reason or "").startswith(FOREIGN_SOURCE):
        losses["sources other than files"] = 1
    if not keeps_keywords and any(chunk.keywords for chunk in document.chunks):
        losses["keywords of high-quality chunks"] = 1
    return losses


def _texts(chunk: ArchivedChunk) -> Sequence[str]:
    return (chunk.content, chunk.answer or "", *chunk.children)
