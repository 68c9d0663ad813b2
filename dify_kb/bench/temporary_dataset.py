"""Temporary datasets, deleted when the work ends, fails or is interrupted."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from dify_kb.errors import KnowledgeError, NotFoundError, OutcomeUnknownError
from dify_kb.models import UNSET, Dataset, IndexingTechnique, ModelRef, ModelType, Unset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dify_kb.client import AsyncClient

PREFIX = "dify-kb-bench-"
"""Prefix of the names of temporary datasets, by which `bench clean` finds them."""

TIMEOUT = 60.0
"""Seconds that creating or deleting a dataset may take, retries included."""


@asynccontextmanager
async def temporary_dataset(
    client: AsyncClient, technique: str, embedding: ModelRef | Unset = UNSET
) -> AsyncIterator[Dataset]:
    """Create a dataset for the time of a block, and delete it with its documents.

    The dataset is also deleted when the block fails or is cancelled; only a killed process leaves
    it, and `find_leftover_datasets` finds it then. Two requests.

    Raises:
        KnowledgeError: the dataset could not be created or deleted; the message has its name.
    """
    name = f"{PREFIX}{datetime.now(UTC):%m%d-%H%M%S}-{secrets.token_hex(3)}"
    # Shielded: an interrupt waits until it is known whether there is a dataset to delete.
    dataset = None
    with anyio.move_on_after(TIMEOUT, shield=True):
        dataset = await _create_dataset(client, name, technique, embedding)
    if dataset is None:
        raise _leftover_error(name, f"no response within {TIMEOUT:g} s")
    try:
        await checkpoint()
        yield dataset
    finally:
        await delete_dataset(client, dataset.id, name)


async def delete_dataset(client: AsyncClient, dataset_id: str, name: str) -> None:
    """Delete a dataset, even when cancelled. One request.

    Raises:
        KnowledgeError: the dataset may still exist.
    """
    with anyio.move_on_after(TIMEOUT, shield=True) as scope:
        try:
            await client.datasets.delete(dataset_id)
        except NotFoundError:
            return
        except KnowledgeError as error:
            raise _leftover_error(name, error.summary) from error
    if scope.cancelled_caught:
        raise _leftover_error(name, f"no response within {TIMEOUT:g} s")


async def find_leftover_datasets(client: AsyncClient) -> Sequence[Dataset]:
    """Return the datasets left by killed runs. One request per 100 of them.

    Includes the datasets of benchmarks that are running.
    """
    rows = client.datasets.iter(keyword=PREFIX, include_all=True)
    return [row async for row in rows if row.name.startswith(PREFIX)]


async def list_models(client: AsyncClient, model_type: ModelType) -> Sequence[ModelRef]:
    """Return the models of one type in the workspace. One request."""
    return [
        ref
        for provider in await client.workspace.models(model_type)
        for ref in provider.model_refs()
    ]


async def _create_dataset(
    client: AsyncClient, name: str, technique: str, embedding: ModelRef | Unset
) -> Dataset:
    try:
        return await client.datasets.create(
            name, indexing_technique=IndexingTechnique(technique), embedding=embedding
        )
    except OutcomeUnknownError:
        existing = await client.datasets.find(name)
        if existing is None:
            raise
        return existing


def _leftover_error(name: str, why: str) -> KnowledgeError:
    return KnowledgeError(
        f"The temporary dataset {name} may still exist: {why}.",
        hint="Delete it with `dify-kb bench clean`.",
    )
