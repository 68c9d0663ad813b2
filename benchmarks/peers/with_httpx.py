"""Upload with the async client of httpx, as in its documentation."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import harness
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def open_form_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload a form, with `at_once` keep-alive connections."""
    headers = {"Authorization": f"Bearer {job.key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=job.at_once)
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60) as client:

        async def send(file: Path) -> object:
            with job.open_source(file) as source:
                response = await client.post(
                    job.upload_url,
                    data={"data": json.dumps(harness.REQUEST_DATA)},
                    files={"file": (file.name, source)},
                )
            return response.raise_for_status().json()

        yield send


if __name__ == "__main__":
    harness.main({"httpx": harness.run_in_tasks(open_form_sender)})
