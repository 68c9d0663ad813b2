"""The server's part of the time of an upload."""

from __future__ import annotations

from pathlib import Path

from scripted_server import (
    D1,
    Request,
    ScriptedServer,
    answer_created,
    create_sparse_file,
    open_client,
)

from dify_kb import Policy
from dify_kb.transport import AttemptEvent


async def test_server_seconds_exclude_upload_time(tmp_path: Path) -> None:
    """A slow network must not look like an overloaded server."""
    seen: list[AttemptEvent] = []

    async def slow(request: Request) -> None:
        await request.drain(rate=16e6)
        request.length = 0
        await answer_created([])(request)

    file = create_sparse_file(tmp_path / "a.txt", 8 * 1024 * 1024)
    async with open_client(
        ScriptedServer(slow), on_event=seen.append, policy=Policy().scaled(0.001)
    ) as client:
        await client.documents.create_by_file(D1, file, name="a.txt")

    assert seen[0].server_seconds is not None
    assert seen[0].seconds > 0.4
    assert seen[0].server_seconds < 0.9 * seen[0].seconds
