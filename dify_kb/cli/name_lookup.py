"""Taking things by their name or their id; an id is never looked for in a list, which a key may
not be allowed to see.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import UUID

from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset

MAX_SUGGESTIONS = 3
"""Names that are suggested."""

MAX_SEARCHED_NAMES = 1000
"""Names that are looked through for suggestions: ten requests at most."""

MAX_SHOWN_IDS = 5
"""Ids that are shown of things with the same name."""


class NamedResource(Protocol):
    """What a list of the server consists of."""

    @property
    def id(self) -> str:
        """A UUID."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...


T = TypeVar("T", bound=NamedResource)


@frozen
class ResourceRef:
    """What a command is about. The name is not known where an id was given."""

    id: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.id})" if self.name else self.id


def is_id(text: str) -> bool:
    """Tell an id from a name; servers take ids with their dashes only."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def parse_ids(noun: str, ids: Sequence[str]) -> Sequence[ResourceRef]:
    """Take things that have no names, each once.

    Raises:
        ConfigError: what was given is no id.
    """
    for text in ids:
        if not is_id(text):
            raise ConfigError(
                f"{text!r} is no id of a {noun}.", hint=f"Lists show the ids of {noun}s."
            )
    return [ResourceRef(text) for text in dict.fromkeys(ids)]


async def find_dataset(client: AsyncClient, name_or_id: str) -> Dataset:
    """Fetch a dataset. An id costs one request.

    Raises:
        KnowledgeError: there is none, or there are several of the name.
    """
    matches = await find_dataset_or_none(client, name_or_id)
    if matches is None:
        raise _not_found_error(
            "dataset",
            name_or_id,
            await _collect_names(client.datasets.iter(include_all=True)),
            "`dify-kb datasets list` shows those there are; `load --create` makes one.",
        )
    return matches


async def find_dataset_or_none(client: AsyncClient, name_or_id: str) -> Dataset | None:
    """Fetch a dataset by its id, or look for one by its name.

    Raises:
        KnowledgeError: there are several of the name, as servers before 1.11 allow.
    """
    if is_id(name_or_id):
        return await client.datasets.get(name_or_id)
    rows = client.datasets.iter(keyword=name_or_id, include_all=True)
    matches = [row async for row in rows if row.name == name_or_id]
    return _single("dataset", name_or_id, matches)


async def find_document(client: AsyncClient, target: Dataset, name_or_id: str) -> ResourceRef:
    """Take a document of a dataset. A name costs one request per 100 that contain it.

    Raises:
        KnowledgeError: there is none, or there are several of the name.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    # In the server's pattern a backslash takes the meaning from what follows it.
    part = max(name_or_id.split("\\"), key=len)
    rows = client.documents.iter(target, keyword=part)
    matches = _single("document", name_or_id, [row async for row in rows if row.name == name_or_id])
    if matches is None:
        listing = f"`dify-kb documents list --dataset {target.id}` shows those there are."
        names = await _collect_names(client.documents.iter(target))
        raise _not_found_error("document", name_or_id, names, listing)
    return ResourceRef(matches.id, matches.name)


async def find_metadata_field(client: AsyncClient, target: Dataset, name_or_id: str) -> ResourceRef:
    """Take a metadata field of a dataset. A name costs one request.

    Raises:
        KnowledgeError: there is none.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    return select_metadata_field(
        (await client.metadata.list(target)).doc_metadata, name_or_id, target
    )


def select_metadata_field(
    fields: Sequence[NamedResource], name: str, target: Dataset
) -> ResourceRef:
    """Choose among the fields of a dataset by name.

    Raises:
        KnowledgeError: there is none.
    """
    listing = f"`dify-kb metadata list --dataset {target.id}` shows those there are."
    return select_by_name("metadata field", name, fields, listing)


async def find_tag(client: AsyncClient, name_or_id: str) -> ResourceRef:
    """Take a tag. A name costs one request.

    Raises:
        KnowledgeError: there is none.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    tags = await client.tags.list()
    return select_by_name("tag", name_or_id, tags, "`dify-kb tags list` shows those there are.")


def select_by_name(
    noun: str, name: str, rows: Sequence[NamedResource], listing: str
) -> ResourceRef:
    """Choose by name.

    Raises:
        KnowledgeError: there is none, or there are several of the name.
    """
    matches = _single(noun, name, [row for row in rows if row.name == name])
    if matches is None:
        raise _not_found_error(noun, name, [row.name for row in rows], listing)
    return ResourceRef(matches.id, matches.name)


def _single(noun: str, name: str, matches: Sequence[T]) -> T | None:
    if not matches or len(matches) == 1:
        return next(iter(matches), None)
    ids = ", ".join(row.id for row in matches[:MAX_SHOWN_IDS])
    more = f" and {len(matches) - MAX_SHOWN_IDS} more" if len(matches) > MAX_SHOWN_IDS else ""
    raise KnowledgeError(
        f"{len(matches)} {noun}s are called {name!r}.", hint=f"Pass one of the ids: {ids}{more}."
    )


def _not_found_error(noun: str, name: str, names: Sequence[str], listing: str) -> KnowledgeError:
    suggestions = suggest_names(name, names)
    suggestion = f"Did you mean {' or '.join(map(repr, suggestions))}? " if suggestions else ""
    return KnowledgeError(f"No {noun} is called {name!r}.", hint=f"{suggestion}{listing}")


def suggest_names(name: str, names: Sequence[str]) -> Sequence[str]:
    """Give the names that are most alike, whatever their case; the nearest first."""
    spellings = {folded.casefold(): folded for folded in names}
    suggestions = difflib.get_close_matches(name.casefold(), spellings, MAX_SUGGESTIONS)
    return [spellings[folded] for folded in suggestions]


async def _collect_names(rows: AsyncIterable[NamedResource]) -> Sequence[str]:
    names: list[str] = []
    async for row in rows:
        names.append(row.name)
        if len(names) == MAX_SEARCHED_NAMES:
            break
    return names
