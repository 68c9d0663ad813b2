"""Metadata conditions as they are written in a shell: `year >= 2024`, `team contains infra`,
`due before 2024-12-31`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dify_kb import AsyncClient, Dataset
from dify_kb.errors import ConfigError
from dify_kb.models import ComparisonOperator, Condition, MetadataFilter
from dify_kb.resources.metadata_validation import BUILT_IN

from . import name_lookup, option_types

_ALSO = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}
_WORDS = sorted([*map(str, ComparisonOperator), *_ALSO], key=len, reverse=True)
_OPERATORS = "|".join(
    rf"(?<=\s){re.escape(word)}(?=\s|$)" if word[0].isalpha() else re.escape(word)
    for word in _WORDS
)
_CONDITION = re.compile(rf"(?P<name>[^<>=≠≥≤!]+?)\s*(?P<operator>{_OPERATORS})\s*(?P<value>.*)")
_LISTS = {ComparisonOperator.IN, ComparisonOperator.NOT_IN}
_TEXTS = {
    ComparisonOperator.CONTAINS,
    ComparisonOperator.NOT_CONTAINS,
    ComparisonOperator.START_WITH,
    ComparisonOperator.END_WITH,
    ComparisonOperator.IS,
    ComparisonOperator.IS_NOT,
}
_TEXTS_TOO = {ComparisonOperator.EQUAL, ComparisonOperator.NOT_EQUAL}


def parsed(texts: Sequence[str]) -> MetadataFilter | None:
    """Read conditions that must all be met; None where there are none.

    Raises:
        ConfigError: one that cannot be read.
    """
    return MetadataFilter.all_of(*map(_condition, texts)) if texts else None


async def check(client: AsyncClient, where: Dataset, conditions: MetadataFilter | None) -> None:
    """Make sure that the dataset has the fields, which the server does not. Costs one request.

    Raises:
        KnowledgeError: it has no such field.
    """
    if conditions is None:
        return
    fields = (await client.metadata.list(where)).doc_metadata
    for name in dict.fromkeys(condition.name for condition in conditions.conditions):
        if name not in BUILT_IN:
            name_lookup.field_of(fields, name, where)


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"--filter is {text!r}.",
            hint=f"Write NAME OPERATOR VALUE; operators are {', '.join(_WORDS)}.",
        )
    word = match["operator"]
    operator = ComparisonOperator(_ALSO.get(word, word))
    return Condition(
        name=match["name"].strip(),
        comparison_operator=operator,
        value=_value(operator, match["value"].strip()),
    )


def _value(operator: ComparisonOperator, text: str) -> str | float | Sequence[str] | None:
    if operator in {ComparisonOperator.EMPTY, ComparisonOperator.NOT_EMPTY}:
        return None
    if operator in _LISTS:
        return [part.strip() for part in text.split(",")]
    if operator in _TEXTS:
        return text
    number = option_types.number(text)
    if number is not None:
        return number
    if operator in _TEXTS_TOO:
        return text
    return option_types.moment(f"--filter {operator}", text).timestamp()
