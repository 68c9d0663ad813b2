"""Taking a dataset by its name or its id."""

from __future__ import annotations

from uuid import UUID

from dify_kb import AsyncClient, Dataset
from dify_kb.errors import KnowledgeError


async def dataset(client: AsyncClient, name_or_id: str) -> Dataset:
    """Fetch a dataset. An id costs one request and never a list, which a key may not be allowed.

    Raises:
        KnowledgeError: there is none.
    """
    found = await maybe_dataset(client, name_or_id)
    if found is None:
        raise KnowledgeError(
            f"No dataset is called {name_or_id!r}.",
            hint="`dify-kb datasets list` shows those there are; `load --create` makes one.",
        )
    return found


async def maybe_dataset(client: AsyncClient, name_or_id: str) -> Dataset | None:
    """Fetch a dataset by its id, or look for one by its name."""
    try:
        UUID(name_or_id)
    except ValueError:
        return await client.datasets.find(name_or_id)
    return await client.datasets.get(name_or_id)
