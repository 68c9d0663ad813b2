"""Parameter and return types of the async client; only type-checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

from dify_kb import (
    AsyncClient,
    CreatedDocument,
    Dataset,
    Document,
    DocumentStatus,
    Field,
    FrontMatter,
    Item,
    ItemResult,
    LoadMetadata,
    LoadReport,
    MetadataFilter,
    ModelProvider,
    Page,
    Pager,
    PathPattern,
    RetrievalModel,
    RetrievalResult,
    ServerInfo,
    Sidecar,
    Table,
)

# pyright: reportUnnecessaryTypeIgnoreComment=error


async def calls(client: AsyncClient, dataset: Dataset, batch: str) -> None:
    assert_type(await client.ping(), ServerInfo)
    assert_type(client.server_version, str | None)
    assert_type(client.with_options(), AsyncClient)
    assert_type(await client.datasets.create("a", indexing_technique="economy"), Dataset)
    assert_type(await client.datasets.get("id"), Dataset)
    assert_type(await client.datasets.find("a"), Dataset | None)
    assert_type(await client.datasets.list(limit=10), Page[Dataset])
    assert_type(client.datasets.iter(keyword="a"), Pager[Dataset])
    assert_type(await client.datasets.retrieve(dataset, "how?"), RetrievalResult)
    assert_type((Field("a") == 1) & (Field("b") > 2) | (Field("c") == 3), MetadataFilter)
    await client.datasets.retrieve(dataset, "how?", method="hybrid", filter=Field("year") >= 2024)
    assert_type(await client.documents.create_by_text(dataset, "a", "text"), CreatedDocument)
    assert_type(await client.documents.create_by_file(dataset, Path("a.txt")), CreatedDocument)
    assert_type(client.documents.iter(dataset), Pager[Document])
    assert_type(await client.documents.indexing_status(dataset, batch), Sequence[DocumentStatus])
    assert_type(await client.workspace.models("rerank"), Sequence[ModelProvider])
    assert_type(await client.load(dataset, "docs", exclude=["*.tmp"]), LoadReport)
    assert_type(await client.load(dataset, "docs", checksum=True, replace="swap"), LoadReport)
    items = [Item("a.md", text="a"), Item("b.md", path="b", metadata={"year": 2024})]
    assert_type(await client.load(dataset, items, concurrency=(2, 8), rate="5/s"), LoadReport)
    sources: LoadMetadata = [PathPattern("{team}/**"), FrontMatter(keep=True), {"year": 2024}]
    assert_type(await client.load(dataset, "docs", metadata=sources), LoadReport)
    await client.load(dataset, "docs", metadata=[Sidecar(), lambda item: {"key": item.key}])
    assert_type(await client.load(dataset, "docs", metadata=Table("meta.csv")), LoadReport)
    async for result in client.load_iter(dataset, items, metadata=lambda item: {"k": item.key}):
        assert_type(result, ItemResult)
    async for each in client.datasets.iter():
        assert_type(each, Dataset)


async def mistakes(client: AsyncClient, dataset: Dataset) -> None:
    await client.datasets.get(1)  # type: ignore[arg-type]
    await client.datasets.list(10)  # type: ignore[call-arg]
    await client.datasets.list(size=10)  # type: ignore[call-arg]
    await client.datasets.retrieve(dataset)  # type: ignore[call-arg]
    await client.datasets.retrieve(dataset, "how?", method="vector")  # type: ignore[arg-type]
    await client.datasets.create("a", indexing_technique="econmy")  # type: ignore[arg-type]
    await client.datasets.create("a", permission="everybody")  # type: ignore[arg-type]
    await client.documents.list(dataset, status="done")  # type: ignore[arg-type]
    await client.metadata.create(dataset, "a", type="date")  # type: ignore[arg-type]
    await client.load(dataset, "docs", wait="for ever")  # type: ignore[arg-type]
    await client.load(dataset, "docs", replace="beside")  # type: ignore[arg-type]
    client.load_iter(dataset, "docs", dry_run=True)  # type: ignore[call-arg]
    Item("a.md", "b")  # type: ignore[call-arg]
    for each in client.datasets.iter():  # type: ignore[attr-defined]
        del each
    await client.load(None, "docs")  # type: ignore[arg-type]
    await client.load(dataset, None)  # type: ignore[arg-type]
    await client.load(dataset, "docs", concurrency="8")  # type: ignore[arg-type]
    await client.load(dataset, "docs", doc_form="text")  # type: ignore[arg-type]
    await client.load(dataset, "docs", include=5)  # type: ignore[arg-type]
    await client.load(dataset, "docs", journal=True)  # type: ignore[arg-type]
    await client.load(client.datasets.get("id"), "docs")  # type: ignore[arg-type]
    await client.datasets.retrieve(dataset, "how?", retrieval_model={})  # type: ignore[arg-type]
    RetrievalModel.keyword(top_k="3")  # type: ignore[arg-type]
    with client:  # type: ignore[attr-defined]
        pass
