"""Where a load goes, and how documents are cut there."""

from __future__ import annotations

from typing import Literal

from dify_kb import AsyncClient, Dataset, ModelRef, ModelType, ProcessRule
from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, Unset

from . import find, show
from .datasets import Technique

Mode = Literal["automatic", "custom"]


async def dataset(
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


def rule(
    mode: Mode | None, size: int | None, overlap: int | None, separator: str | None
) -> ProcessRule | None:
    """Say how documents are cut; None leaves it to the dataset.

    Raises:
        ConfigError: the options do not go together, or are out of range.
    """
    given = {"--chunk-size": size, "--chunk-overlap": overlap, "--separator": separator}
    custom = [option for option, value in given.items() if value is not None]
    if mode == "automatic":
        if custom:
            raise ConfigError(
                f"{custom[0]} does not go with --mode automatic.", hint="Leave one of them out."
            )
        return ProcessRule.automatic()
    if mode is None and not custom:
        return None
    size = 500 if size is None else size
    return ProcessRule.custom(
        max_tokens=size,
        chunk_overlap=min(50, size // 10) if overlap is None else overlap,
        separator="\n" if separator is None else _unescaped(separator),
    )


def _unescaped(separator: str) -> str:
    return separator.replace("\\n", "\n").replace("\\t", "\t")
