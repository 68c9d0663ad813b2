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

PATIENCE = 60.0
"""Seconds that making or deleting a base may take, repeats included."""


@asynccontextmanager
async def own_dataset(
    client: AsyncClient, technique: str, embedding: ModelRef | Unset = UNSET
) -> AsyncIterator[Dataset]:
    """Make a base for the time of a block, and delete it with all that it holds.

    It is deleted also when the block fails or is cancelled; only a process that is killed leaves
    it, and `leftovers` finds it then. Two requests.

    Raises:
        KnowledgeError: it could not be made, or not be deleted; the text names it then.
    """
    name = f"{PREFIX}{datetime.now(UTC):%m%d-%H%M%S}-{secrets.token_hex(3)}"
    # An interrupt waits until it is known whether there is something to delete.
    dataset = None
    with anyio.move_on_after(PATIENCE, shield=True):
        dataset = await _made(client, name, technique, embedding)
    if dataset is None:
        raise _left(name, f"no answer came within {PATIENCE:g} s")
    try:
        await checkpoint()
        yield dataset
    finally:
        await delete(client, dataset.id, name)


async def delete(client: AsyncClient, dataset_id: str, name: str) -> None:
    """Delete a base, whoever is in a hurry. One request.

    Raises:
        KnowledgeError: it is still there.
    """
    with anyio.move_on_after(PATIENCE, shield=True) as scope:
        try:
            await client.datasets.delete(dataset_id)
        except NotFoundError:
            return
        except KnowledgeError as error:
            raise _left(name, error.summary) from error
    if scope.cancelled_caught:
        raise _left(name, f"no answer came within {PATIENCE:g} s")


async def leftovers(client: AsyncClient) -> Sequence[Dataset]:
    """Find bases that runs left which were killed. One request per 100 of them.

    A run that is going on has its base among them.
    """
    rows = client.datasets.iter(keyword=PREFIX, include_all=True)
    return [row async for row in rows if row.name.startswith(PREFIX)]


async def models(client: AsyncClient, kind: ModelType) -> Sequence[ModelRef]:
    """List the models of a kind that the workspace has. One request."""
    return [ref for provider in await client.workspace.models(kind) for ref in provider.refs()]


async def _made(
    client: AsyncClient, name: str, technique: str, embedding: ModelRef | Unset
) -> Dataset:
    try:
        return await client.datasets.create(name, indexing_technique=technique, embedding=embedding)
    except OutcomeUnknownError:
        found = await client.datasets.find(name)
        if found is None:
            raise
        return found


def _left(name: str, why: str) -> KnowledgeError:
    return KnowledgeError(
        f"The dataset {name} of this benchmark may be left: {why}.",
        hint="`dify-kb bench clean` deletes what benchmarks left.",
    )
