"""Fetch the dataset of a load, or create it."""

from __future__ import annotations

from dify_kb import AsyncClient, Dataset, ModelRef, ModelType
from dify_kb.models import UNSET, Unset

from . import find, show
from .datasets import Technique


async def ensure_dataset(
    client: AsyncClient,
    name: str,
    technique: Technique | None,
    *,
    create: bool,
    dry_run: bool,
) -> Dataset | None:
    """Fetch the dataset to load into, or make it; None where a dry run would have made it."""
    if not create:
        return await find.dataset(client, name)
    found = await find.maybe_dataset(client, name)
    if found is not None:
        return found
    if dry_run:
        show.err.print(f"The dataset {show.printable(name)} would be created.")
        return None
    embedding: ModelRef | Unset = UNSET
    if technique is None:
        technique, embedding = await _best(client)
    made = await client.datasets.create(name, indexing_technique=technique, embedding=embedding)
    model = f" with {embedding.provider}:{embedding.model}" if embedding else ""
    show.err.print(f"Created the dataset {show.printable(name)} ({technique}{model}).")
    return made


async def _best(client: AsyncClient) -> tuple[Technique, ModelRef | Unset]:
    """Choose high quality where the server has an embedding model."""
    providers = await client.workspace.models(ModelType.TEXT_EMBEDDING)
    refs = [ref for provider in providers for ref in provider.refs()]
    return ("high_quality", refs[0]) if refs else ("economy", UNSET)
