"""Knowledge bases of our own, which are gone when the work is done, or fails, or is interrupted."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from dify_kb.errors import KnowledgeError, NotFoundError, OutcomeUnknownError
from dify_kb.models import UNSET, Dataset, ModelRef, ModelType, Unset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dify_kb.client import AsyncClient

PREFIX = "dify-kb-bench-"
"""What the names of our bases begin with, so that people know them, and `clean` finds them."""

TIMEOUT = 60.0
"""Seconds that making or deleting a base may take, repeats included."""


@asynccontextmanager
async def temporary_dataset(
    client: AsyncClient, technique: str, embedding: ModelRef | Unset = UNSET
) -> AsyncIterator[Dataset]:
    """Make a base for the time of a block, and delete it with all that it holds.

    It is deleted also when the block fails or is cancelled; only a process that is killed leaves
    it, and `find_leftover_datasets` finds it then. Two requests.

    Raises:
        KnowledgeError: it could not be made, or not be deleted; the text names it then.
    """
    name = f"{PREFIX}{datetime.now(UTC):%m%d-%H%M%S}-{secrets.token_hex(3)}"
    # An interrupt waits until it is known whether there is something to delete.
    dataset = None
    with anyio.move_on_after(TIMEOUT, shield=True):
        dataset = await _create_dataset(client, name, technique, embedding)
    if dataset is None:
        raise _leftover_error(name, f"no answer came within {TIMEOUT:g} s")
    try:
        await checkpoint()
        yield dataset
    finally:
        await delete_dataset(client, dataset.id, name)


async def delete_dataset(client: AsyncClient, dataset_id: str, name: str) -> None:
    """Delete a base, whoever is in a hurry. One request.

    Raises:
        KnowledgeError: it is still there.
    """
    with anyio.move_on_after(TIMEOUT, shield=True) as scope:
        try:
            await client.datasets.delete(dataset_id)
        except NotFoundError:
            return
        except KnowledgeError as error:
            raise _leftover_error(name, error.summary) from error
    if scope.cancelled_caught:
        raise _leftover_error(name, f"no answer came within {TIMEOUT:g} s")


async def find_leftover_datasets(client: AsyncClient) -> Sequence[Dataset]:
    """Find bases that runs left which were killed. One request per 100 of them.

    A run that is going on has its base among them.
    """
    rows = client.datasets.iter(keyword=PREFIX, include_all=True)
    return [row async for row in rows if row.name.startswith(PREFIX)]


async def list_models(client: AsyncClient, model_type: ModelType) -> Sequence[ModelRef]:
    """List the models of a kind that the workspace has. One request."""
    return [
        ref
        for provider in await client.workspace.models(model_type)
        for ref in provider.model_refs()
    ]


async def _create_dataset(
    client: AsyncClient, name: str, technique: str, embedding: ModelRef | Unset
) -> Dataset:
    try:
        return await client.datasets.create(name, indexing_technique=technique, embedding=embedding)
    except OutcomeUnknownError:
        existing = await client.datasets.find(name)
        if existing is None:
            raise
        return existing


def _leftover_error(name: str, why: str) -> KnowledgeError:
    return KnowledgeError(
        f"The dataset {name} of this benchmark may be left: {why}.",
        hint="`dify-kb bench clean` deletes what benchmarks left.",
    )
