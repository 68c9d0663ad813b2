"""Which documents a command is about: those that were named, or all that fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from dify_kb import AsyncClient, Dataset, Document
from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, MetadataFilter, Unset
from dify_kb.rag.metadata_filter import matches_filter

from . import filters, name_lookup
from .name_lookup import Thing


@frozen(kw_only=True)
class Wanted:
    """What was asked for: names and ids, or what the documents must be like."""

    named: Sequence[str]
    pattern: str | None
    status: str | None
    conditions: MetadataFilter | None
    everything: bool


def wanted(
    named: Sequence[str] | None,
    pattern: str | None,
    status: str | None,
    conditions: Sequence[str] | None,
    *,
    everything: bool,
) -> Wanted:
    """Take the options of a command.

    Raises:
        ConfigError: nothing was asked for, or names and conditions, or a condition is none.
    """
    asked = Wanted(
        named=named or (),
        pattern=pattern,
        status=status,
        conditions=filters.parsed(conditions or ()),
        everything=everything,
    )
    fitting = bool(pattern or status or conditions or everything)
    if bool(asked.named) == fitting:
        raise ConfigError(
            "Both names and conditions are given." if fitting else "No document is named.",
            hint="Pass names or ids, or choose by --name, --status, --filter or --all.",
        )
    return asked


async def documents(client: AsyncClient, where: Dataset, asked: Wanted) -> Sequence[Thing]:
    """Find the documents, each once. Ids cost nothing, conditions a request per 100 documents.

    Raises:
        KnowledgeError: no such document, or no such field.
    """
    if asked.named:
        named = [await name_lookup.document(client, where, name) for name in asked.named]
        return list({thing.id: thing for thing in named}.values())
    await filters.check(client, where, asked.conditions)
    rows = client.documents.iter(
        where, keyword=literal(asked.pattern or ""), status=asked.status or UNSET
    )
    return [Thing(row.id, row.name) async for row in rows if fits(row, asked)]


def fits(row: Document, asked: Wanted) -> bool:
    """Tell whether a document is one of those that were asked for."""
    if asked.status and row.display_status != asked.status:
        return False
    if asked.pattern and not fnmatchcase(row.name, asked.pattern):
        return False
    return asked.conditions is None or matches_filter(values(row), asked.conditions)


def values(row: Document) -> dict[str, object]:
    """Give the metadata of a document by the names of the fields, as texts, as lists tell it."""
    return {str(entry["name"]): entry.get("value") for entry in row.doc_metadata or ()}


def literal(pattern: str) -> str | Unset:
    """Give the longest part of a glob that each match holds, for the server to look for."""
    # In the server's pattern a backslash takes the meaning from what follows it.
    parts = re.split(r"\[[^\]]*\]|[*?\[\]\\]", pattern)
    return max(parts, key=len) or UNSET
