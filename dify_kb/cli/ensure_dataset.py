"""Fetch the dataset of a load, or create it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dify_kb import AsyncClient, Dataset, ModelRef, ModelType
from dify_kb.errors import ConfigError, ConflictError
from dify_kb.ingest.journal import read_journal
from dify_kb.ingest.journal.journal_database import require_journal
from dify_kb.models import UNSET, Unset

from . import name_lookup, output
from .option_types import Technique


async def ensure_dataset(
    client: AsyncClient,
    name: str,
    technique: Technique | None,
    *,
    create: bool,
    dry_run: bool,
    check: Callable[[], Awaitable[None]] | None = None,
) -> Dataset | None:
    """Return the dataset to load into, created with `create`; None if a dry run would create it.

    `check` is called before the dataset is created, and raises if nothing could be loaded.

    Servers do not keep names unique when datasets are created at the same time (measured on
    1.14.2: 8 parallel creates made 1 to 4 datasets). With `create`, the oldest dataset of the name
    is returned, so that parallel loads agree on one, and a warning names all of them.

    Raises:
        KnowledgeError: the dataset does not exist, or its name is not unique, without `create`.
        OutcomeUnknownError: the response to the create was lost, and the dataset does not exist.
    """
    if not create or name_lookup.is_id(name):
        return await name_lookup.find_dataset(
            client, name, alternative=", or pass --create to create it"
        )
    if existing := await _find_by_name(client, name):
        return _select_oldest(existing)
    if dry_run:
        output.note(f"The dataset {output.escape(name)} would be created.")
        return None
    if check is not None:
        await check()
    created = await _create_dataset(client, name, technique)
    same_name = await _find_by_name(client, name)
    if all(dataset.id != created.id for dataset in same_name):  # a list may lag behind
        same_name = [*same_name, created]
    return _select_oldest(same_name)


async def ensure_series(
    client: AsyncClient,
    template: str,
    technique: Technique | None,
    number: int,
    *,
    create: bool,
    dry_run: bool,
) -> Sequence[Dataset]:
    """Return the datasets of a series such as `Docs {n}`; with `create`, at least `number`.

    Without `create`, and in a dry run, the existing ones; in a dry run there may be none.

    Raises:
        KnowledgeError: there is none, without `create`.
    """
    if create:
        found = await name_lookup.find_series(client, template)
    else:
        found = await name_lookup.require_series(
            client, template, alternative=", or pass --create to create them"
        )
        if len(found) < number:
            output.note(
                f"--per-dataset requires {number} datasets, {len(found)} exist; pass --create to"
                " create the others."
            )
        return [*found.values()]
    datasets = [*found.values()]
    missing = (place for place in itertools.count(1) if place not in found)
    for place in itertools.islice(missing, max(number - len(found), 0)):
        name = template.replace(name_lookup.SERIES, str(place), 1)
        created = await ensure_dataset(client, name, technique, create=True, dry_run=dry_run)
        if created is not None:
            datasets.append(created)
    return datasets


def require_new_journal(journal: Path) -> None:
    """Check that a journal is not that of another dataset. Blocking.

    Raises:
        ConfigError: it belongs to a dataset.
        JournalError: the file is not a journal.
    """
    require_journal(journal)
    if journal.exists() and journal.stat().st_size:
        overview = read_journal.read_overview(journal)
        raise ConfigError(
            f"Journal {journal} belongs to dataset {overview.dataset_name or overview.dataset},"
            " not to a new one.",
            hint="Pass another --journal, or omit it. Nothing was created.",
        )


async def _create_dataset(client: AsyncClient, name: str, technique: Technique | None) -> Dataset:
    """Create the dataset, or return it if another process created it."""
    embedding: ModelRef | Unset = UNSET
    if technique is None:
        technique, embedding = await _choose_technique(client)
    model = f" with {embedding.provider}:{embedding.model}" if embedding else ""
    label = f"{output.escape(name)} ({technique}{model})"
    try:
        created = await client.datasets.create(
            name, indexing_technique=technique, embedding=embedding
        )
    except ConflictError:
        matches = await _find_by_name(client, name)
        if not matches:
            raise
        output.note(
            f"Using the existing dataset {output.escape(name)}: another process created it."
        )
        return min(matches, key=_creation_key)
    output.note(f"Created the dataset {label}.")
    return created


async def _find_by_name(client: AsyncClient, name: str) -> Sequence[Dataset]:
    rows = client.datasets.iter(keyword=name, include_all=True)
    return [dataset async for dataset in rows if dataset.name == name]


def _select_oldest(datasets: Sequence[Dataset]) -> Dataset:
    """Return the dataset that was created first, with a warning if there are several."""
    oldest, *others = sorted(datasets, key=_creation_key)
    if others:
        ids = ", ".join(dataset.id for dataset in others)
        output.err.print(
            f"warning: {len(datasets)} datasets are named {output.escape(oldest.name)}; loading"
            f" into the oldest, {oldest.id}. Delete the others if they are not needed: {ids}."
        )
    return oldest


def _creation_key(dataset: Dataset) -> tuple[datetime, str]:
    return dataset.created_at or datetime.max.replace(tzinfo=UTC), dataset.id


async def _choose_technique(client: AsyncClient) -> tuple[Technique, ModelRef | Unset]:
    """Choose high_quality if the server has an embedding model, else economy."""
    providers = await client.workspace.models(ModelType.TEXT_EMBEDDING)
    refs = [ref for provider in providers for ref in provider.model_refs()]
    return ("high_quality", refs[0]) if refs else ("economy", UNSET)
