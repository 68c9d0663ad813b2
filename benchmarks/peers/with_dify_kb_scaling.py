"""Measure dify-kb on a growing dataset: a load, a second load, and listing all documents."""

from __future__ import annotations

import harness

from dify_kb import AsyncClient


async def load(job: harness.Job) -> harness.JobCost:
    """Load the folder, follow its indexing, and count the finished files."""
    async with AsyncClient(job.url, job.key, concurrency=job.at_once) as client:
        meter = harness.Meter(job)
        report = await client.load(
            job.dataset, job.folder, concurrency=job.at_once, journal=job.journal
        )
        report.raise_for_failures()
        done = report.added + report.unchanged
        return meter.finish(uploads=done, requests=report.requests)


async def walk(job: harness.Job) -> harness.JobCost:
    """List all documents."""
    requests = count = 0

    def note(_: object) -> None:
        nonlocal requests
        requests += 1

    async with AsyncClient(job.url, job.key, on_event=note) as client:
        meter = harness.Meter(job)
        async for _ in client.documents.iter(job.dataset):
            count += 1
        return meter.finish(uploads=count, requests=requests)


if __name__ == "__main__":
    harness.main(
        {
            "load": lambda job: harness.run_loop(job, load),
            "list": lambda job: harness.run_loop(job, walk),
        }
    )
