"""Queries with known answers, one a line of a JSONL file. Pure, but for reading the file.

    {"query": "How do I reset it?", "relevant": ["reset.md", {"text": "hold the red button"}]}

`query` is 1 to 250 characters. Each entry of `relevant` is one thing to find:

* `{"document": "reset.md"}`: any passage of the document of this name, of the file at this path
  as `load` names it, or of this id.
* `{"text": "hold the red button"}`: a passage that holds this text, in any case and however it is
  spaced.
* a plain text is a document if it is an id or ends like the name of one (.md, .pdf, …), and else
  a text.

Other fields of a line are left alone; empty lines are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.ingest.sources.document_names import extension_of, name_of
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_QUERY, Record

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = '{"query": "How do I reset it?", "relevant": ["reset.md"]}'


@frozen(kw_only=True)
class Target:
    """One thing to find: a document by its names and id, or a text."""

    document: str | None = None
    text: str | None = None

    def found_in(self, record: Record) -> bool:
        """Tell whether a passage is it."""
        segment = record.segment
        if self.document is not None:
            known = {segment.document.name, segment.document.id}
            return self.document in known or name_of(self.document) in known
        children = (child.content for child in record.child_chunks or ())
        passages = (segment.content, segment.answer or "", *children)
        return any(folded(self.text or "") in folded(passage) for passage in passages)

    def __str__(self) -> str:
        return self.document or self.text or ""


@frozen(kw_only=True)
class Asked:
    """A query and all that is relevant to it."""

    query: str
    relevant: Sequence[Target]


def folded(text: str) -> str:
    """Take case and space away: servers drop the spaces of long paragraphs (recording 500)."""
    return re.sub(r"\s+", "", text).casefold()


def read(file: Path) -> Sequence[Asked]:
    """Read the queries of a file.

    Raises:
        ConfigError: it cannot be read, holds no query, or a line is none; the text names the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}).", hint=f"Name a UTF-8 file of lines like {EXAMPLE}"
        ) from error
    lines = enumerate(text.split("\n"), 1)
    asked = [parsed(line, f"{file}:{number}") for number, line in lines if line.strip()]
    if not asked:
        raise ConfigError(f"{file} holds no query.", hint=f"Write lines like {EXAMPLE}")
    return asked


def parsed(line: str, place: str) -> Asked:
    """Read one line; `place` is named where it is wrong.

    Raises:
        ConfigError: it is no query with known answers.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise _wrong(place, f"no JSON ({error})") from error
    if not isinstance(value, dict):
        raise _wrong(place, "no object")
    query, relevant = value.get("query"), value.get("relevant")
    if not isinstance(query, str) or not len(query.strip()) >= 1 or len(query) > MAX_QUERY:
        raise _wrong(place, f'"query" is no text of 1 to {MAX_QUERY} characters')
    if not isinstance(relevant, list) or not relevant:
        raise _wrong(place, '"relevant" is no list with one entry at least')
    return Asked(query=query, relevant=[_target(entry, place) for entry in relevant])


def _target(entry: object, place: str) -> Target:
    match entry:
        case str() if entry.strip():
            return Target(document=entry) if _is_document(entry) else Target(text=entry)
        case {"document": str() as document, **rest} if document.strip() and not rest:
            return Target(document=document)
        case {"text": str() as text, **rest} if text.strip() and not rest:
            return Target(text=text)
        case _:
            shown = json.dumps(entry, ensure_ascii=False)
            raise _wrong(
                place, f'the relevant {shown} is no text, {{"document": …}}, {{"text": …}}'
            )


def _is_document(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return "\n" not in text and extension_of(text) in DOCUMENT_EXTENSIONS
    return True


def _wrong(place: str, what: str) -> ConfigError:
    return ConfigError(f"{place}: {what}.", hint=f"A line looks like {EXAMPLE}")


def as_line(asked: Asked) -> Mapping[str, object]:
    """Write a query as a line of such a file has it."""
    relevant = [
        {"text": target.text} if target.document is None else {"document": target.document}
        for target in asked.relevant
    ]
    return {"query": asked.query, "relevant": relevant}
