"""Select the documents of a command, by name or id or by conditions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from dify_kb import AsyncClient, Dataset, Document
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.models import (
    UNSET,
    ComparisonOperator,
    Condition,
    DisplayStatus,
    MetadataField,
    MetadataFilter,
    MetadataType,
    Unset,
)
from dify_kb.rag.filter_evaluation import matches_filter
from dify_kb.resources.metadata_validation import BUILT_IN

from . import name_lookup
from .name_lookup import ResourceRef


@frozen(kw_only=True)
class DocumentSelection:
    """Names and ids of documents, or the conditions that select them."""

    names: Sequence[str]
    pattern: str | None
    status: str | None
    conditions: Sequence[ParsedCondition]
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
    conditions = await resolve_conditions(client, target, selection.conditions)
    rows = client.documents.iter(
        target,
        keyword=longest_literal(selection.pattern or ""),
        status=DisplayStatus(selection.status) if selection.status else UNSET,
    )
    if not selection.names:
        async for row in rows:
            if is_selected(row, selection, conditions):
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


def is_selected(
    row: Document, selection: DocumentSelection, conditions: MetadataFilter | None
) -> bool:
    """Return whether a document meets the conditions of a selection."""
    if selection.status and row.display_status != selection.status:
        return False
    if selection.pattern and not fnmatchcase(row.name, selection.pattern):
        return False
    return conditions is None or matches_filter(row.metadata_values, conditions)


def longest_literal(pattern: str) -> str | Unset:
    """Return the longest text that every match of a glob contains, as the server's keyword."""
    # In the server's pattern a backslash escapes the next character.
    parts = re.split(r"\[[^\]]*\]|[*?\[\]\\]", pattern)
    return max(parts, key=len) or UNSET


_ALIASES = {
    ">=": "≥",
    "<=": "≤",
    "!=": "≠",
    "==": "=",
    "is empty": "empty",
    "is not empty": "not empty",
    "starts with": "start with",
    "ends with": "end with",
}
_NAMES = sorted([*map(str, ComparisonOperator), *_ALIASES], key=len, reverse=True)
_WORDS = "|".join(name.replace(" ", r"\s+") for name in _NAMES if name[0].isalpha())
_CONDITION = re.compile(
    r"""(?P<name>"[^"]+"|'[^']+'|[^<>=≠≥≤!~&|]+?)"""
    rf"(?:\s*(?P<sign>[<>=≠≥≤!~&|]+)\s*|\s+(?P<word>{_WORDS})(?:\s+|$))(?P<value>.*)",
    re.DOTALL,
)
_COMBINATION = re.compile(r"\s(and|or|&&|\|\|)\s", re.IGNORECASE)
_NULLS = {"null", "none", "nil"}
_VALUELESS = {ComparisonOperator.EMPTY, ComparisonOperator.NOT_EMPTY}
_LISTS = {ComparisonOperator.IN, ComparisonOperator.NOT_IN}
_PARTS = {
    ComparisonOperator.CONTAINS,
    ComparisonOperator.NOT_CONTAINS,
    ComparisonOperator.START_WITH,
    ComparisonOperator.END_WITH,
}
_ORDERS = {
    ComparisonOperator.GREATER,
    ComparisonOperator.LESS,
    ComparisonOperator.GREATER_EQUAL,
    ComparisonOperator.LESS_EQUAL,
}
_TIMES = {ComparisonOperator.BEFORE, ComparisonOperator.AFTER}
_UNSUPPORTED: Mapping[MetadataType, set[ComparisonOperator]] = {
    MetadataType.STRING: _ORDERS | _TIMES,
    MetadataType.NUMBER: _TIMES,
    MetadataType.TIME: _PARTS | _LISTS,
}
"""Operators that the server answers with an error, or that never match, by type of field."""

_BUILT_IN_TIMES = {"upload_date", "last_update_date"}
_EARLIEST_TIME = 100_000
"""Seconds since 1970 below which the number of a time is taken for a mistake, such as a year."""


@frozen(kw_only=True)
class ParsedCondition:
    """A condition of --filter, before the type of its field is known."""

    text: str
    name: str
    operator: ComparisonOperator
    values: Sequence[str]


def parse_conditions(texts: Sequence[str]) -> Sequence[ParsedCondition]:
    """Parse conditions that must all be met.

    Raises:
        ConfigError: a condition is invalid.
    """
    return [_parse_condition(text) for text in texts]


async def resolve_conditions(
    client: AsyncClient, target: Dataset, conditions: Sequence[ParsedCondition]
) -> MetadataFilter | None:
    """Return a filter whose values have the types of their fields. Costs one request.

    The server does not check: a condition on an unknown field, or a value of a wrong type, matches
    nothing or is an internal error. Built-in fields match only while they are enabled.

    Raises:
        ConfigError: the operator or the value does not fit the type of the field.
        KnowledgeError: the dataset does not have a field, or its built-in fields are disabled.
    """
    if not conditions:
        return None
    response = await client.metadata.list(target)
    resolved: list[Condition] = []
    for condition in conditions:
        if condition.name not in BUILT_IN:
            found = name_lookup.select_metadata_field(response.doc_metadata, condition.name, target)
            field = next(row for row in response.doc_metadata if row.id == found.id)
        elif response.built_in_field_enabled is False:
            raise KnowledgeError(
                f"The built-in field {condition.name!r} is disabled; filters on it match nothing.",
                hint=f"Run `dify-kb metadata built-in --dataset {target.id} enable` first.",
            )
        else:
            is_time = condition.name in _BUILT_IN_TIMES
            field = MetadataField(
                id="built-in",
                name=condition.name,
                type=MetadataType.TIME if is_time else MetadataType.STRING,
            )
        resolved.append(_resolve_condition(condition, field))
    return MetadataFilter.all_of(*resolved)


def _parse_condition(text: str) -> ParsedCondition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise _condition_error(text, "Pass FIELD OPERATOR VALUE.")
    word = match["sign"] or " ".join(match["word"].split())
    operator = ComparisonOperator(_ALIASES.get(word, word))
    if not operator.is_known:
        raise _condition_error(text, f"Unknown operator {word!r}.")
    return ParsedCondition(
        text=text,
        name=_strip_quotes(text, match["name"].strip()),
        operator=operator,
        values=_parse_values(text, operator, match["value"].strip()),
    )


def _parse_values(text: str, operator: ComparisonOperator, value: str) -> Sequence[str]:
    if operator in _VALUELESS:
        if value:
            raise _condition_error(text, f"Operator {str(operator)!r} takes no value.")
        return ()
    if value.lower() in _NULLS:
        raise _condition_error(
            text, f"Quote the text: \"{value}\", or use the operator 'empty'.", operators=False
        )
    parts = _COMBINATION.split(value) if value[:1] not in {"'", '"'} else []
    if any(_CONDITION.fullmatch(part.strip()) for part in parts[2::2]):
        raise _condition_error(
            text, "Pass a --filter for each condition: all must match.", operators=False
        )
    values = _split_list(value) if operator in _LISTS else [value]
    values = [_strip_quotes(text, each) for each in values]
    if not all(values) and (not value or operator in _LISTS | _PARTS):
        raise _condition_error(text, "Pass a value, or use the operator 'empty'.", operators=False)
    return values


def _split_list(text: str) -> Sequence[str]:
    """Split a text at its commas, except those in quotes."""
    parts, quote = [""], ""
    for letter in text:
        if letter == "," and not quote:
            parts.append("")
            continue
        if letter == quote:
            quote = ""
        elif letter in {"'", '"'} and not parts[-1].strip():
            quote = letter
        parts[-1] += letter
    return [part.strip() for part in parts]


def _strip_quotes(text: str, value: str) -> str:
    """Return a text without its quotes.

    Raises:
        ConfigError: a quote is not closed.
    """
    quote = value[:1]
    if quote not in {"'", '"'} or not value:
        return value
    if len(value) < 2 or not value.endswith(quote) or quote in value[1:-1]:  # noqa: PLR2004 -- two quotes
        raise _condition_error(text, f"Close the quote: {quote}…{quote}.", operators=False)
    return value[1:-1]


def _resolve_condition(condition: ParsedCondition, field: MetadataField) -> Condition:
    operator = condition.operator
    if operator in _UNSUPPORTED.get(field.type, ()):
        known = [str(each) for each in ComparisonOperator if each not in _UNSUPPORTED[field.type]]
        raise ConfigError(
            f"Operator {str(operator)!r} does not apply to field {field.name!r} of type"
            f" {field.type}.",
            hint=f"Operators of this type: {', '.join(known)}.",
        )
    value: str | float | Sequence[str] | None = None
    if operator in _PARTS:
        (value,) = condition.values
    elif operator in _LISTS:
        value = [_format_value(_convert_value(each, field)) for each in condition.values]
    elif condition.values:
        value = _convert_value(condition.values[0], field)
    return Condition(name=field.name, comparison_operator=operator, value=value)


def _convert_value(text: str, field: MetadataField) -> str | float:
    value = field.make_value(text).value
    if isinstance(value, str):
        return value
    if value is None or (field.type == MetadataType.TIME and value < _EARLIEST_TIME):
        raise ConfigError(
            f"Invalid time {text!r} for field {field.name!r}.",
            hint="Pass 2024-12-31, 2024-12-31T18:00+01:00 or seconds since 1970.",
        )
    return value


def _format_value(value: str | float) -> str:
    """Return a value as the server's text of it: 2024 for 2024.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _condition_error(text: str, hint: str, *, operators: bool = True) -> ConfigError:
    known = f" Operators: {', '.join(_NAMES)}." if operators else ""
    return ConfigError(f"Invalid condition {text!r} for --filter.", hint=f"{hint}{known}")
