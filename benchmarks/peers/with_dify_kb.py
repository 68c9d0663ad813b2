"""Upload with dify-kb: single calls, blocking calls from threads, and loads."""

from __future__ import annotations

import tempfile
import uuid
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import harness

from dify_kb import AsyncClient, Client, Document, Page
from dify_kb.wire import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dify_kb.ingest import Wait


@asynccontextmanager
async def open_path_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload by path; the file is read during the upload."""
    async with AsyncClient(job.url, job.key, concurrency=job.at_once) as client:

        async def send(file: Path) -> object:
            return await client.documents.create_by_file(
                job.dataset, file, indexing_technique="economy", doc_form="text_model"
            )

        yield send


@asynccontextmanager
async def open_bytes_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload bytes."""
    async with AsyncClient(job.url, job.key, concurrency=job.at_once) as client:

        async def send(file: Path) -> object:
            return await client.documents.create_by_file(
                job.dataset,
                job.read_content(file),
                name=file.name,
                indexing_technique="economy",
                doc_form="text_model",
            )

        yield send


@contextmanager
def open_blocking_sender(job: harness.Job) -> Iterator[harness.SendFunction]:
    """Upload by path, by one blocking client for all threads."""
    with Client(job.url, job.key, concurrency=job.at_once) as client:

        def send(file: Path) -> object:
            return client.documents.create_by_file(
                job.dataset, file, indexing_technique="economy", doc_form="text_model"
            )

        yield send


def load_folder(wait: Wait, *, own_pace: bool = False) -> harness.UploadFunction:
    """Return a function that loads the folder into a new dataset, with a new journal.

    With `own_pace`, the load tunes its concurrency and stops at the time limit.
    """

    async def run(job: harness.Job) -> harness.JobCost:
        async with AsyncClient(job.url, job.key, concurrency=job.at_once) as client:

            async def load(folder: str, journal: Path) -> int:
                report = await client.load(
                    str(uuid.uuid4()),
                    folder,
                    wait=wait,
                    concurrency=None if own_pace else job.at_once,
                    deadline=job.seconds if own_pace else None,
                    journal=journal,
                )
                return report.added

            with tempfile.TemporaryDirectory() as temporary:
                await load(job.warm_up, Path(temporary) / "warm-up.db")
                meter = harness.Meter(job)
                async with harness.measure_lag(job) as lags:
                    added = await load(job.folder, Path(temporary) / "journal.db")
                if not own_pace and added != len(job.list_files(job.folder)):
                    raise RuntimeError(f"Only {added} files were loaded.")
                return meter.finish(lags, added)

    def run_load(job: harness.Job) -> harness.JobCost:
        spent: harness.JobCost = harness.run_loop(job, run)
        return spent

    return run_load


def create_decoder() -> harness.DecodeFunction:
    """Return the decoder of list responses."""
    return lambda body: codec.from_json(Page[Document], body)


if __name__ == "__main__":
    harness.main(
        {
            "by_path": harness.run_in_tasks(open_path_sender),
            "by_bytes": harness.run_in_tasks(open_bytes_sender),
            "blocking": harness.run_in_threads(open_blocking_sender),
            "load": load_folder("indexed"),
            "load accepted": load_folder("accepted"),
            "load own pace": load_folder("accepted", own_pace=True),
        },
        {"dify-kb": create_decoder},
    )
