"""Select the documents of a command, by name or id or by conditions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from dify_kb import AsyncClient, Dataset, Document
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.models import (
    UNSET,
    ComparisonOperator,
    Condition,
    DisplayStatus,
    MetadataFilter,
    Unset,
)
from dify_kb.rag.filter_evaluation import matches_filter
from dify_kb.resources.metadata_validation import BUILT_IN

from . import name_lookup, option_types
from .name_lookup import ResourceRef


@frozen(kw_only=True)
class DocumentSelection:
    """Names and ids of documents, or the conditions that select them."""

    names: Sequence[str]
    pattern: str | None
    status: str | None
    conditions: MetadataFilter | None
    everything: bool


def parse_selection(
    named: Sequence[str] | None,
    pattern: str | None,
    status: str | None,
    conditions: Sequence[str] | None,
    *,
    everything: bool,
) -> DocumentSelection:
    """Parse the selection options of a command.

    Raises:
        ConfigError: neither names nor conditions are given, or both, or a condition is invalid.
    """
    selection = DocumentSelection(
        names=named or (),
        pattern=pattern,
        status=status,
        conditions=parse_conditions(conditions or ()),
        everything=everything,
    )
    by_condition = bool(pattern or status or conditions or everything)
    if bool(selection.names) == by_condition:
        raise ConfigError(
            "Names and conditions cannot be combined."
            if by_condition
            else "No documents selected.",
            hint="Pass names or ids of documents, or --name, --status, --filter or --all.",
        )
    return selection


async def select_documents(
    client: AsyncClient, target: Dataset, selection: DocumentSelection
) -> Sequence[ResourceRef]:
    """Find the selected documents, each once.

    Ids cost no request, conditions one per 100 documents.

    Raises:
        KnowledgeError: a document or a metadata field does not exist.
    """
    if selection.names:
        named = [await name_lookup.find_document(client, target, name) for name in selection.names]
        return list({thing.id: thing for thing in named}.values())
    rows = iterate_documents(client, target, selection)
    return [ResourceRef(row.id, row.name) async for row in rows]


async def iterate_documents(
    client: AsyncClient, target: Dataset, selection: DocumentSelection
) -> AsyncIterator[Document]:
    """Iterate over the selected documents as the server lists them, at 100 per request.

    Raises:
        KnowledgeError: a document or a metadata field does not exist.
    """
    await check_fields(client, target, selection.conditions)
    rows = client.documents.iter(
        target,
        keyword=longest_literal(selection.pattern or ""),
        status=DisplayStatus(selection.status) if selection.status else UNSET,
    )
    if not selection.names:
        async for row in rows:
            if is_selected(row, selection):
                yield row
        return
    named = [await name_lookup.find_document(client, target, name) for name in selection.names]
    missing = {thing.id for thing in named}
    async for row in rows:
        if row.id in missing:
            missing.remove(row.id)
            yield row
        if not missing:
            return
    raise KnowledgeError(
        f"Document not found: {', '.join(sorted(missing))}.",
        hint="Check the id: it must belong to this dataset.",
    )


def is_selected(row: Document, selection: DocumentSelection) -> bool:
    """Return whether a document meets the conditions of a selection."""
    if selection.status and row.display_status != selection.status:
        return False
    if selection.pattern and not fnmatchcase(row.name, selection.pattern):
        return False
    return selection.conditions is None or matches_filter(row.metadata_values, selection.conditions)


def longest_literal(pattern: str) -> str | Unset:
    """Return the longest text that every match of a glob contains, as the server's keyword."""
    # In the server's pattern a backslash escapes the next character.
    parts = re.split(r"\[[^\]]*\]|[*?\[\]\\]", pattern)
    return max(parts, key=len) or UNSET


_ALIASES = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}
_OPERATOR_NAMES = sorted([*map(str, ComparisonOperator), *_ALIASES], key=len, reverse=True)
_OPERATORS = "|".join(
    rf"(?<=\s){re.escape(word)}(?=\s|$)" if word[0].isalpha() else re.escape(word)
    for word in _OPERATOR_NAMES
)
_CONDITION = re.compile(rf"(?P<name>[^<>=≠≥≤!]+?)\s*(?P<operator>{_OPERATORS})\s*(?P<value>.*)")
_LIST_OPERATORS = {ComparisonOperator.IN, ComparisonOperator.NOT_IN}
_TEXT_OPERATORS = {
    ComparisonOperator.CONTAINS,
    ComparisonOperator.NOT_CONTAINS,
    ComparisonOperator.START_WITH,
    ComparisonOperator.END_WITH,
    ComparisonOperator.IS,
    ComparisonOperator.IS_NOT,
}
_TEXT_OR_NUMBER_OPERATORS = {ComparisonOperator.EQUAL, ComparisonOperator.NOT_EQUAL}


def parse_conditions(texts: Sequence[str]) -> MetadataFilter | None:
    """Parse conditions that must all be met; None for an empty list.

    Raises:
        ConfigError: a condition is invalid.
    """
    return MetadataFilter.all_of(*map(_parse_condition, texts)) if texts else None


async def check_fields(
    client: AsyncClient, target: Dataset, conditions: MetadataFilter | None
) -> None:
    """Check that the dataset has the fields of the conditions. Costs one request.

    The server does not check: a condition on an unknown field matches nothing.

    Raises:
        KnowledgeError: the dataset does not have a field.
    """
    if conditions is None:
        return
    fields = (await client.metadata.list(target)).doc_metadata
    for name in dict.fromkeys(condition.name for condition in conditions.conditions):
        if name not in BUILT_IN:
            name_lookup.select_metadata_field(fields, name, target)


def _parse_condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"Invalid condition {text!r} for --filter.",
            hint=f"Expected FIELD OPERATOR VALUE. Operators: {', '.join(_OPERATOR_NAMES)}.",
        )
    word = match["operator"]
    operator = ComparisonOperator(_ALIASES.get(word, word))
    return Condition(
        name=match["name"].strip(),
        comparison_operator=operator,
        value=_parse_value(operator, match["value"].strip()),
    )


def _parse_value(operator: ComparisonOperator, text: str) -> str | float | Sequence[str] | None:
    if operator in {ComparisonOperator.EMPTY, ComparisonOperator.NOT_EMPTY}:
        return None
    if operator in _LIST_OPERATORS:
        return [part.strip() for part in text.split(",")]
    if operator in _TEXT_OPERATORS:
        return text
    number = option_types.parse_number(text)
    if number is not None:
        return number
    if operator in _TEXT_OR_NUMBER_OPERATORS:
        return text
    return option_types.parse_time(f"--filter {operator}", text).timestamp()
