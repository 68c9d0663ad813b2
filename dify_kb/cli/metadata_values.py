"""Metadata values as they are written in a shell: `year=2024`, with the type of their field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dify_kb
from dify_kb.errors import ConfigError

from . import name_lookup, option_types
from .bulk import Teller
from .name_lookup import Thing

if TYPE_CHECKING:
    from dify_kb import Dataset, MetadataField

Value = str | float | datetime


def parsed(texts: Sequence[str]) -> Mapping[str, str]:
    """Read `FIELD=VALUE`s.

    Raises:
        ConfigError: one that is none.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--set is {text!r}.", hint="Write FIELD=VALUE.")
        given[name.strip()] = value.strip()
    return given


def typed(
    given: Mapping[str, str], fields: Sequence[MetadataField], where: Dataset
) -> Mapping[str, Value]:
    """Give each value the type of its field: the server does not, and searches would not match.

    Raises:
        KnowledgeError: there is no such field.
        ConfigError: a value is not of its type.
    """
    values: dict[str, Value] = {}
    for name, text in given.items():
        field = field_of(fields, name, where)
        values[field.name] = _read(field, text)
    return values


def field_of(fields: Sequence[MetadataField], name_or_id: str, where: Dataset) -> MetadataField:
    """Choose a field by its name or its id.

    Raises:
        KnowledgeError: there is none.
    """
    by_id = {field.id: field for field in fields}
    if name_or_id in by_id:
        return by_id[name_or_id]
    return by_id[name_lookup.field_of(fields, name_or_id, where).id]


def told(
    teller: Teller,
    things: Sequence[Thing],
    done: Sequence[str],
    failed: Mapping[str, str],
    cause: BaseException | None,
) -> int:
    """Tell what became of each document, and give the exit code.

    Raises:
        KnowledgeError: what ended it before all were reached.
    """
    set_ = set(done)
    for thing in things:
        if thing.id in set_:
            teller.ok(thing)
        elif thing.id in failed:
            teller.refused(thing, dify_kb.KnowledgeError(failed[thing.id]))
    code = teller.end()
    if isinstance(cause, dify_kb.KnowledgeError):
        raise cause
    return code


def _read(field: MetadataField, text: str) -> Value:
    if field.type == dify_kb.MetadataType.STRING:
        return text
    number = option_types.number(text)
    if number is not None:
        return number
    if field.type == dify_kb.MetadataType.TIME:
        return option_types.moment(f"field {field.name!r} of type time", text)
    raise ConfigError(
        f"{field.name} is a field of type {field.type}; the value is {text!r}.",
        hint="Pass a number.",
    )
