"""A dataset with metadata fields, and helpers to assign and read values."""

from __future__ import annotations

from typing import Any

from emulator_client import UNKNOWN_ID, EmulatorClient, Response

BUILT_IN = ["document_name", "uploader", "upload_date", "last_update_date", "source"]


class MetadataDataset:
    """A dataset with a document m0 and the fields town, rank and seen."""

    def __init__(self, client: EmulatorClient, dataset: str) -> None:
        self.client = client
        self.path = f"/datasets/{dataset}"
        self.dataset = dataset
        self.fields: dict[str, str] = {}
        self.documents: dict[str, str] = {}

    async def create_field(self, name: str, kind: str = "string") -> Response:
        return await self.client.request(
            "POST", f"{self.path}/metadata", json={"type": kind, "name": name}
        )

    async def create_document(self, name: str) -> None:
        created = await self.client.create_by_text(self.dataset, name, f"a zebra of {name}")
        await self.client.wait_until_indexed(self.dataset, created)
        self.documents[name] = created.body["document"]["id"]

    async def assign(
        self, name: str, values: dict[str, Any], *, partial: bool | None = None
    ) -> Response:
        operation: dict[str, Any] = {
            "document_id": self.documents.get(name, UNKNOWN_ID),
            "metadata_list": [
                {"id": self.fields.get(field, UNKNOWN_ID), "name": field, "value": value}
                for field, value in values.items()
            ],
        }
        if partial is not None:
            operation["partial_update"] = partial
        body = {"operation_data": [operation]}
        return await self.client.request("POST", f"{self.path}/documents/metadata", json=body)

    async def get_values(self, name: str = "m0") -> Any:
        path = f"{self.path}/documents/{self.documents[name]}"
        response = await self.client.request("GET", path, params={"metadata": "only"})
        return response.body["doc_metadata"]

    async def get_own_values(self, name: str = "m0") -> dict[str, Any]:
        shown = await self.get_values(name) or []
        return {value["name"]: value["value"] for value in shown if value["id"] != "built-in"}

    async def get_counts(self) -> dict[str, int]:
        response = await self.client.request("GET", f"{self.path}/metadata")
        return {field["name"]: field["count"] for field in response.body["doc_metadata"]}


async def create_metadata_dataset(client: EmulatorClient, *documents: str) -> MetadataDataset:
    metadata_dataset = MetadataDataset(client, await client.create_dataset())
    for name, kind in {"town": "string", "rank": "number", "seen": "time"}.items():
        metadata_dataset.fields[name] = (await metadata_dataset.create_field(name, kind)).body["id"]
    for name in documents or ["m0"]:
        await metadata_dataset.create_document(name)
    return metadata_dataset
