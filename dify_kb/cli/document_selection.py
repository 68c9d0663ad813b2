"""Which documents a command is about: those that were named, or all that fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from dify_kb import AsyncClient, Dataset, Document
from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, ComparisonOperator, Condition, MetadataFilter, Unset
from dify_kb.rag.filter_evaluation import matches_filter
from dify_kb.resources.metadata_validation import BUILT_IN

from . import name_lookup, option_types
from .name_lookup import ResourceRef


@frozen(kw_only=True)
class DocumentSelection:
    """What was asked for: names and ids, or what the documents must be like."""

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
    """Take the options of a command.

    Raises:
        ConfigError: nothing was asked for, or names and conditions, or a condition is none.
    """
    selection = DocumentSelection(
        names=named or (),
        pattern=pattern,
        status=status,
        conditions=parse_conditions(conditions or ()),
        everything=everything,
    )
    fitting = bool(pattern or status or conditions or everything)
    if bool(selection.names) == fitting:
        raise ConfigError(
            "Both names and conditions are given." if fitting else "No document is named.",
            hint="Pass names or ids, or choose by --name, --status, --filter or --all.",
        )
    return selection


async def select_documents(
    client: AsyncClient, target: Dataset, selection: DocumentSelection
) -> Sequence[ResourceRef]:
    """Find the documents, each once. Ids cost nothing, conditions a request per 100 documents.

    Raises:
        KnowledgeError: no such document, or no such field.
    """
    if selection.names:
        named = [await name_lookup.find_document(client, target, name) for name in selection.names]
        return list({thing.id: thing for thing in named}.values())
    await check_fields(client, target, selection.conditions)
    rows = client.documents.iter(
        target, keyword=longest_literal(selection.pattern or ""), status=selection.status or UNSET
    )
    return [ResourceRef(row.id, row.name) async for row in rows if is_selected(row, selection)]


def is_selected(row: Document, selection: DocumentSelection) -> bool:
    """Tell whether a document is one of those that were asked for."""
    if selection.status and row.display_status != selection.status:
        return False
    if selection.pattern and not fnmatchcase(row.name, selection.pattern):
        return False
    return selection.conditions is None or matches_filter(
        metadata_by_name(row), selection.conditions
    )


def metadata_by_name(row: Document) -> dict[str, object]:
    """Give the metadata of a document by the names of the fields, as texts, as lists tell it."""
    return {str(entry["name"]): entry.get("value") for entry in row.doc_metadata or ()}


def longest_literal(pattern: str) -> str | Unset:
    """Give the longest part of a glob that each match holds, for the server to look for."""
    # In the server's pattern a backslash takes the meaning from what follows it.
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
    """Read conditions that must all be met; None where there are none.

    Raises:
        ConfigError: one that cannot be read.
    """
    return MetadataFilter.all_of(*map(_parse_condition, texts)) if texts else None


async def check_fields(
    client: AsyncClient, target: Dataset, conditions: MetadataFilter | None
) -> None:
    """Make sure that the dataset has the fields, which the server does not. Costs one request.

    Raises:
        KnowledgeError: it has no such field.
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
            f"--filter is {text!r}.",
            hint=f"Write NAME OPERATOR VALUE; operators are {', '.join(_OPERATOR_NAMES)}.",
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
