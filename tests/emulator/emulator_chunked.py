"""Documents of a few chunks."""

from __future__ import annotations

from emulator_calls import Calls


async def chunked(calls: Calls, text: str = "the quick fox", **fields: object) -> tuple[str, str]:
    """Make a dataset and a document in it; return the paths of dataset and chunks."""
    dataset = await calls.dataset()
    created = await calls.write(dataset, "a.txt", text, **fields)
    await calls.done(dataset, created)
    document = created.body["document"]["id"]
    return dataset, f"/datasets/{dataset}/documents/{document}/segments"
