"""Upload with dify-python-sdk by path: its blocking client in threads, and its async client."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import harness
from dify_client import AsyncKnowledgeBaseClient, KnowledgeBaseClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EXTRA = {**harness.REQUEST_DATA}


@contextmanager
def open_blocking_sender(job: harness.Job) -> Iterator[harness.SendFunction]:
    """Upload by one blocking client for all threads."""
    with KnowledgeBaseClient(job.key, job.url, job.dataset) as client:

        def send(file: Path) -> object:
            return client.create_document_by_file(str(file), extra_params=EXTRA).json()

        yield send


@asynccontextmanager
async def open_async_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload by the async client."""
    async with AsyncKnowledgeBaseClient(job.key, job.url, job.dataset) as client:

        async def send(file: Path) -> object:
            return (await client.create_document_by_file(str(file), extra_params=EXTRA)).json()

        yield send


if __name__ == "__main__":
    harness.main(
        {
            "dify-python-sdk": harness.run_in_threads(open_blocking_sender),
            "dify-python-sdk, async": harness.run_in_tasks(open_async_sender),
        }
    )
