"""The part of an upload's time that is the server's."""

from __future__ import annotations

from pathlib import Path

from test_transport_sockets import D1, Request, Server, created, serving, sparse

from dify_kb import Policy
from dify_kb.transport import Attempted


async def test_the_servers_time_does_not_hold_the_uploads(tmp_path: Path) -> None:
    """A slow line is no sign of a server that has too much to do."""
    seen: list[Attempted] = []

    async def slow(request: Request) -> None:
        await request.drain(rate=16e6)
        request.length = 0
        await created([])(request)

    file = sparse(tmp_path / "a.txt", 8 * 1024 * 1024)
    async with serving(Server(slow), on_event=seen.append, policy=Policy().scaled(0.001)) as client:
        await client.documents.create_by_file(D1, file, name="a.txt")

    assert seen[0].waited is not None
    assert seen[0].seconds > 0.4
    assert seen[0].waited < 0.9 * seen[0].seconds
