"""A base with metadata fields."""

from __future__ import annotations

from typing import Any

from emulator_calls import NOBODY, Calls, Reply

BUILT_IN = ["document_name", "uploader", "upload_date", "last_update_date", "source"]


class Base:
    """A dataset with a document m0 and the fields town, rank and seen."""

    def __init__(self, calls: Calls, dataset: str) -> None:
        self.calls = calls
        self.path = f"/datasets/{dataset}"
        self.dataset = dataset
        self.fields: dict[str, str] = {}
        self.documents: dict[str, str] = {}

    async def field(self, name: str, kind: str = "string") -> Reply:
        return await self.calls.call(
            "POST", f"{self.path}/metadata", json={"type": kind, "name": name}
        )

    async def document(self, name: str) -> None:
        created = await self.calls.write(self.dataset, name, f"a zebra of {name}")
        await self.calls.done(self.dataset, created)
        self.documents[name] = created.body["document"]["id"]

    async def assign(
        self, name: str, values: dict[str, Any], *, partial: bool | None = None
    ) -> Reply:
        operation: dict[str, Any] = {
            "document_id": self.documents.get(name, NOBODY),
            "metadata_list": [
                {"id": self.fields.get(field, NOBODY), "name": field, "value": value}
                for field, value in values.items()
            ],
        }
        if partial is not None:
            operation["partial_update"] = partial
        body = {"operation_data": [operation]}
        return await self.calls.call("POST", f"{self.path}/documents/metadata", json=body)

    async def values(self, name: str = "m0") -> Any:
        path = f"{self.path}/documents/{self.documents[name]}"
        reply = await self.calls.call("GET", path, params={"metadata": "only"})
        return reply.body["doc_metadata"]

    async def own(self, name: str = "m0") -> dict[str, Any]:
        shown = await self.values(name) or []
        return {value["name"]: value["value"] for value in shown if value["id"] != "built-in"}

    async def counts(self) -> dict[str, int]:
        reply = await self.calls.call("GET", f"{self.path}/metadata")
        return {field["name"]: field["count"] for field in reply.body["doc_metadata"]}


async def base(calls: Calls, *documents: str) -> Base:
    made = Base(calls, await calls.dataset())
    for name, kind in {"town": "string", "rank": "number", "seen": "time"}.items():
        made.fields[name] = (await made.field(name, kind)).body["id"]
    for name in documents or ["m0"]:
        await made.document(name)
    return made
