"""Find datasets, documents, tags and metadata fields by name or id.

An id is never searched in a list: a key may not be allowed to list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import UUID

from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset

MAX_SUGGESTIONS = 3
"""The number of suggested names."""

MAX_SEARCHED_NAMES = 1000
"""Names that are compared for suggestions: ten requests at most."""

MAX_SHOWN_IDS = 5
"""The number of ids shown for an ambiguous name."""


class NamedResource(Protocol):
    """An item of a server's list, with a name and an id."""

    @property
    def id(self) -> str:
        """A UUID."""
        ...

    @property
    def name(self) -> str:
        """The name, perhaps not unique."""
        ...


T = TypeVar("T", bound=NamedResource)


@frozen
class ResourceRef:
    """A resource that a command works on. The name is None if an id was given."""

    id: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.id})" if self.name else self.id


def is_id(text: str) -> bool:
    """Return whether a text is an id; servers accept only UUIDs with dashes."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def parse_ids(noun: str, ids: Sequence[str]) -> Sequence[ResourceRef]:
    """Return the resources with these ids, each once.

    Raises:
        ConfigError: a text is not an id.
    """
    for text in ids:
        if not is_id(text):
            raise ConfigError(
                f"Invalid {noun} id: {text!r}.",
                hint=f"Pass the UUID that the list of {noun}s shows.",
            )
    return [ResourceRef(text) for text in dict.fromkeys(ids)]


async def find_dataset(client: AsyncClient, name_or_id: str, *, alternative: str = "") -> Dataset:
    """Fetch a dataset by name or id. An id costs one request.

    Args:
        alternative: what else to do if the dataset does not exist, for the hint.

    Raises:
        KnowledgeError: the dataset does not exist, or its name is not unique.
    """
    matches = await find_dataset_or_none(client, name_or_id)
    if matches is None:
        raise _not_found_error(
            "dataset",
            name_or_id,
            await _collect_names(client.datasets.iter(include_all=True)),
            f"Run `dify-kb datasets list` to see all datasets{alternative}.",
        )
    return matches


async def find_dataset_or_none(client: AsyncClient, name_or_id: str) -> Dataset | None:
    """Fetch a dataset by id, or by name; None if no dataset has the name.

    Raises:
        KnowledgeError: the name is not unique, as servers before 1.11 allow.
    """
    if is_id(name_or_id):
        return await client.datasets.get(name_or_id)
    rows = client.datasets.iter(keyword=name_or_id, include_all=True)
    matches = [row async for row in rows if row.name == name_or_id]
    return _single("dataset", name_or_id, matches)


SERIES = "{n}"
"""The number in the name of a series of datasets, such as `Docs {n}`."""


async def find_series(client: AsyncClient, template: str) -> dict[int, Dataset]:
    """Fetch the datasets of a series by their numbers, in this order. Of equal names, the oldest.

    Costs one request per 100 datasets whose name contains the longest part of the name.
    """
    parts = template.split(SERIES, 1)
    pattern = re.compile("([1-9][0-9]*)".join(map(re.escape, parts)))
    found: dict[int, Dataset] = {}
    async for row in client.datasets.iter(keyword=max(parts, key=len), include_all=True):
        if (match := pattern.fullmatch(row.name)) is not None:
            found[int(match[1])] = row  # the newest is listed first
    return dict(sorted(found.items()))


async def require_series(
    client: AsyncClient, template: str, *, alternative: str = ""
) -> dict[int, Dataset]:
    """Fetch the datasets of a series as `find_series` does.

    Raises:
        KnowledgeError: there is none.
    """
    if found := await find_series(client, template):
        return found
    raise KnowledgeError(
        f"No dataset is named like {template!r}.",
        hint=f"Run `dify-kb datasets list` to see all datasets{alternative}.",
    )


async def find_document(client: AsyncClient, target: Dataset, name_or_id: str) -> ResourceRef:
    """Find a document of a dataset by name or id.

    An id costs no request, a name one per 100 documents whose name contains it.

    Raises:
        KnowledgeError: the document does not exist, or its name is not unique.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    # In the server's pattern a backslash escapes the next character.
    part = max(name_or_id.split("\\"), key=len)
    rows = client.documents.iter(target, keyword=part)
    matches = _single("document", name_or_id, [row async for row in rows if row.name == name_or_id])
    if matches is None:
        listing = f"Run `dify-kb documents list --dataset {target.id}` to see all documents."
        names = await _collect_names(client.documents.iter(target))
        raise _not_found_error("document", name_or_id, names, listing)
    return ResourceRef(matches.id, matches.name)


async def find_metadata_field(client: AsyncClient, target: Dataset, name_or_id: str) -> ResourceRef:
    """Find a metadata field of a dataset by name or id. A name costs one request.

    Raises:
        KnowledgeError: the field does not exist.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    return select_metadata_field(
        (await client.metadata.list(target)).doc_metadata, name_or_id, target
    )


def select_metadata_field(
    fields: Sequence[NamedResource], name: str, target: Dataset
) -> ResourceRef:
    """Return the field of a dataset with this name.

    Raises:
        KnowledgeError: the field does not exist.
    """
    listing = f"Run `dify-kb metadata list --dataset {target.id}` to see all fields."
    return select_by_name("metadata field", name, fields, listing)


async def find_tag(client: AsyncClient, name_or_id: str) -> ResourceRef:
    """Find a tag by name or id. A name costs one request.

    Raises:
        KnowledgeError: the tag does not exist.
    """
    if is_id(name_or_id):
        return ResourceRef(name_or_id)
    tags = await client.tags.list()
    return select_by_name("tag", name_or_id, tags, "Run `dify-kb tags list` to see all tags.")


def select_by_name(
    noun: str, name: str, rows: Sequence[NamedResource], listing: str
) -> ResourceRef:
    """Return the row with this name; `listing` is the hint if there is none.

    Raises:
        KnowledgeError: no row has the name, or several do.
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
        f"{len(matches)} {noun}s are named {name!r}.", hint=f"Pass an id: {ids}{more}."
    )


def _not_found_error(noun: str, name: str, names: Sequence[str], listing: str) -> KnowledgeError:
    suggestions = suggest_names(name, names)
    suggestion = f"Did you mean {' or '.join(map(repr, suggestions))}? " if suggestions else ""
    return KnowledgeError(
        f"{noun.capitalize()} not found: {name!r}.", hint=f"{suggestion}{listing}"
    )


def suggest_names(name: str, names: Sequence[str]) -> Sequence[str]:
    """Return the most similar names, closest first; case does not matter."""
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
