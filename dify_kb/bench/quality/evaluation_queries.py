"""Parse queries with known answers from a JSONL file. Pure, except for reading the file.

    {"query": "How do I reset it?", "relevant": ["reset.md", {"text": "hold the red button"}]}

`query` has 1 to 250 characters. Each entry of `relevant` is one item to find:

* `{"document": "reset.md"}`: any chunk of the document with this name, this path (as `load` names
  the file) or this id.
* `{"text": "hold the red button"}`: a chunk that contains this text; case and whitespace are
  ignored.
* a plain string is a document if it is an id or has a document extension (.md, .pdf, …), else a
  text.

A `draft` is a query that `eval draft` proposed: it counts like others, and reports say that nobody
has reviewed it. Other fields of a line are ignored; empty lines are skipped. Queries about the
generated corpus are part of the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from dify_kb.bench.corpus import FORMAT_SHARES, Question, Sample, generate_documents
from dify_kb.bench.corpus.random_text import StableRandom
from dify_kb.bench.corpus.sample_documents import SEED
from dify_kb.errors import ConfigError
from dify_kb.ingest.sources.document_names import document_name, file_extension
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_QUERY_LENGTH, Record

if TYPE_CHECKING:
    from pathlib import Path

    from dify_kb.bench.metrics import Ranks

DOCUMENT_COUNT, DEFAULT_QUERY_COUNT = 60, 100

COMMON_FORMATS = {
    name: share for name, share in FORMAT_SHARES.items() if name in {"md", "html", "txt"}
}
"""Formats that every server extracts in the same way, so that only retrieval is compared."""

EXAMPLE = '{"query": "How do I reset it?", "relevant": ["reset.md"]}'


@frozen(kw_only=True)
class RelevantItem:
    """An item to find: a document, by name, path or id, or a text."""

    document: str | None = None
    text: str | None = None

    def is_in(self, record: Record) -> bool:
        """Return whether a chunk is of this document or contains this text."""
        segment = record.segment
        if self.document is not None:
            return self.names_one_of({segment.document.name, segment.document.id})
        children = (child.content for child in record.child_chunks or ())
        passages = (segment.content, segment.answer or "", *children)
        return any(fold_text(self.text or "") in fold_text(passage) for passage in passages)

    def names_one_of(self, known: Collection[str]) -> bool:
        """Return whether the document is one of these names or ids."""
        document = self.document or ""
        return document in known or document_name(document) in known

    def __str__(self) -> str:
        return self.document or self.text or ""


@frozen(kw_only=True)
class EvaluationQuery:
    """A query and the items that are relevant to it."""

    query: str
    relevant: Sequence[RelevantItem]
    draft: str = ""
    """How `eval draft` made it; empty if a person wrote or reviewed it."""


def find_ranks(query: EvaluationQuery, records: Sequence[Record]) -> Ranks:
    """Return the best rank of each relevant item, or None if it was not found."""
    unique = unique_records(records)
    return [
        next((rank for rank, record in enumerate(unique, 1) if target.is_in(record)), None)
        for target in query.relevant
    ]


def unique_records(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records without chunks that are listed twice, as by servers up to 1.8."""
    return list({record.segment.id: record for record in records}.values())  # recording 933


def fold_text(text: str) -> str:
    """Remove case and whitespace: servers drop spaces of long paragraphs (recording 500)."""
    return re.sub(r"\s+", "", text).casefold()


def read_queries(file: Path) -> Sequence[EvaluationQuery]:
    """Read the queries of a file.

    Raises:
        ConfigError: the file cannot be read, contains no query or an invalid line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"Cannot read {file}: {reason}.", hint=f"Pass a UTF-8 file with lines like {EXAMPLE}"
        ) from error
    lines = enumerate(text.split("\n"), 1)
    queries = [parse_query(line, f"{file}:{number}") for number, line in lines if line.strip()]
    if not queries:
        raise ConfigError(f"{file} contains no queries.", hint=f"Write lines like {EXAMPLE}")
    return queries


def parse_query(line: str, place: str) -> EvaluationQuery:
    """Parse one line. `place` is the file and line number, for error messages.

    Raises:
        ConfigError: the line is not a query with known answers.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise _invalid_line(place, f"invalid JSON ({error})") from error
    if not isinstance(value, dict):
        raise _invalid_line(place, "not an object")
    query, relevant = value.get("query"), value.get("relevant")
    if not isinstance(query, str) or not len(query.strip()) >= 1 or len(query) > MAX_QUERY_LENGTH:
        raise _invalid_line(place, f'"query" must have 1 to {MAX_QUERY_LENGTH} characters')
    if not isinstance(relevant, list) or not relevant:
        raise _invalid_line(place, '"relevant" must be a list with at least one entry')
    return EvaluationQuery(
        query=query,
        relevant=[_parse_relevant_item(entry, place) for entry in relevant],
        draft=str(value.get("draft") or ""),
    )


def _parse_relevant_item(entry: object, place: str) -> RelevantItem:
    match entry:
        case str() if entry.strip():
            return RelevantItem(document=entry) if _is_document(entry) else RelevantItem(text=entry)
        case {"document": str() as document, **rest} if document.strip() and not rest:
            return RelevantItem(document=document)
        case {"text": str() as text, **rest} if text.strip() and not rest:
            return RelevantItem(text=text)
        case _:
            shown = json.dumps(entry, ensure_ascii=False)
            raise _invalid_line(
                place,
                f'invalid entry in "relevant": {shown}; expected a string, {{"document": …}} or'
                ' {"text": …}',
            )


def _is_document(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return "\n" not in text and file_extension(text) in DOCUMENT_EXTENSIONS
    return True


def _invalid_line(place: str, what: str) -> ConfigError:
    return ConfigError(f"{place}: {what}.", hint=f"Write lines like {EXAMPLE}")


def query_to_json(query: EvaluationQuery) -> Mapping[str, object]:
    """Return a query as the JSON value of its line."""
    relevant = [
        {"text": target.text} if target.document is None else {"document": target.document}
        for target in query.relevant
    ]
    marks = {"draft": query.draft} if query.draft else {}
    return {"query": query.query, "relevant": relevant, **marks}


def default_documents(count: int = DOCUMENT_COUNT) -> Sequence[Sample]:
    """Generate the documents of the default queries."""
    return list(generate_documents(count, formats=COMMON_FORMATS))


def default_queries(
    samples: Sequence[Sample], count: int = DEFAULT_QUERY_COUNT
) -> Sequence[EvaluationQuery]:
    """Return random queries. The chunk with the answering sentence is relevant."""
    rng, remaining = (
        StableRandom(SEED),
        [question for sample in samples for question in sample.questions],
    )
    chosen = [
        remaining.pop(rng.integer_below(len(remaining))) for _ in range(min(count, len(remaining)))
    ]
    return [_query_from_question(question) for question in chosen]


def _query_from_question(question: Question) -> EvaluationQuery:
    return EvaluationQuery(query=question.query, relevant=[RelevantItem(text=question.answer)])
