"""Helpers that create documents and list their names."""

from __future__ import annotations

from emulator_client import EmulatorClient

CREATE_BY_FILE = "documents.create_by_file"
LARGE_CONTENT = b"0123456789abcdef" * 32_768
"""512 KiB."""


def stored_names(client: EmulatorClient, dataset: str) -> list[str]:
    return [document.name for document in client.emulator.documents(dataset)]


async def list_document_names(client: EmulatorClient, dataset: str, **query: object) -> list[str]:
    path = f"/datasets/{dataset}/documents"
    params = {name: str(value) for name, value in query.items()}
    response = await client.request("GET", path, params=params)
    return [document["name"] for document in response.body["data"]]


async def create_chunked_document(
    client: EmulatorClient, text: str = "the quick fox", **fields: object
) -> tuple[str, str]:
    """Create a dataset with a document; return the dataset id and the path of its segments."""
    dataset = await client.create_dataset()
    created = await client.create_by_text(dataset, "a.txt", text, **fields)
    await client.wait_until_indexed(dataset, created)
    document = created.body["document"]["id"]
    return dataset, f"/datasets/{dataset}/documents/{document}/segments"
