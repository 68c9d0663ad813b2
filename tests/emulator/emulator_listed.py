"""The names that a list gives."""

from __future__ import annotations

from emulator_calls import Calls


async def names(calls: Calls, dataset: str, **query: object) -> list[str]:
    path = f"/datasets/{dataset}/documents"
    params = {name: str(value) for name, value in query.items()}
    reply = await calls.call("GET", path, params=params)
    return [document["name"] for document in reply.body["data"]]
