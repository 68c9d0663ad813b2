"""Upload with aiohttp: with its `FormData`, and with joined bytes, its minimum cost.

Responses are parsed as JSON, since clients need the document id.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import harness
from with_sockets import END, FRONT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def open_session(job: harness.Job) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session without a connection limit; the workers limit it."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {job.key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as opened:
        yield opened


@asynccontextmanager
async def open_form_data_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload with `FormData`, as in the documentation of aiohttp."""
    async with open_session(job) as opened:

        async def send(file: Path) -> object:
            form = aiohttp.FormData()
            form.add_field("data", json.dumps(harness.REQUEST_DATA))
            with job.open_source(file) as source:
                form.add_field("file", source, filename=file.name)
                async with opened.post(job.upload_url, data=form) as response:
                    response.raise_for_status()
                    return await response.json()

        yield send


@asynccontextmanager
async def open_joined_bytes_sender(job: harness.Job) -> AsyncIterator[harness.SendFunction]:
    """Upload a form that is joined by hand."""
    async with open_session(job) as opened:
        headers = {"Content-Type": "multipart/form-data; boundary=0a1b"}

        async def send(file: Path) -> object:
            front = FRONT % (json.dumps(harness.REQUEST_DATA).encode(), file.name.encode())
            body = b"".join((front, job.read_content(file), END))
            async with opened.post(job.upload_url, data=body, headers=headers) as response:
                response.raise_for_status()
                return json.loads(await response.read())

        yield send


if __name__ == "__main__":
    harness.main(
        {
            "form_data": harness.run_in_tasks(open_form_data_sender),
            "joined": harness.run_in_tasks(open_joined_bytes_sender),
        }
    )
