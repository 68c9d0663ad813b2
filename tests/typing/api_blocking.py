"""Parameter and return types of the blocking client; only type-checked, never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import assert_type, overload

from dify_kb import (
    Client,
    CreatedDocument,
    Dataset,
    Document,
    DocumentStatus,
    ItemResult,
    LoadReport,
    ModelProvider,
    Page,
    RetrievalResult,
    ServerInfo,
)
from dify_kb.blocking._loop_thread import LoopThread
from dify_kb.blocking._make_blocking import make_blocking

# pyright: reportUnnecessaryTypeIgnoreComment=error


def calls(client: Client, dataset: Dataset, batch: str) -> None:
    assert_type(client.ping(), ServerInfo)
    assert_type(client.server_version, str | None)
    assert_type(client.with_options(), Client)
    assert_type(client.datasets.create("a", indexing_technique="economy"), Dataset)
    assert_type(client.datasets.get("id"), Dataset)
    assert_type(client.datasets.find("a"), Dataset | None)
    assert_type(client.datasets.list(limit=10), Page[Dataset])
    assert_type(client.datasets.iter(keyword="a"), Iterator[Dataset])
    assert_type(client.datasets.retrieve(dataset, "how?"), RetrievalResult)
    assert_type(client.documents.create_by_text(dataset, "a", "text"), CreatedDocument)
    assert_type(client.documents.create_by_file(dataset, Path("a.txt")), CreatedDocument)
    assert_type(client.documents.iter(dataset), Iterator[Document])
    assert_type(client.documents.indexing_status(dataset, batch), Sequence[DocumentStatus])
    assert_type(client.workspace.models("rerank"), Sequence[ModelProvider])
    assert_type(client.load(dataset, "docs", exclude=["*.tmp"]), LoadReport)
    for result in client.load_iter(dataset, "docs", overwrite_archived=True):
        assert_type(result, ItemResult)
    assert_type(client.sync_iter(dataset, "docs").report, LoadReport | None)
    for each in client.datasets.iter():
        assert_type(each, Dataset)
    with Client("emulator:") as opened:
        assert_type(opened, Client)
    ping: Callable[[], ServerInfo] = client.ping
    ping()


def mistakes(client: Client, dataset: Dataset) -> None:
    client.datasets.get(1)  # type: ignore[arg-type]
    client.datasets.list(10)  # type: ignore[call-arg]
    client.datasets.list(size=10)  # type: ignore[call-arg]
    client.datasets.retrieve(dataset)  # type: ignore[call-arg]
    client.load(dataset, "docs", wait="for ever")  # type: ignore[arg-type]
    client.ping().nothing  # type: ignore[attr-defined]  # noqa: B018
    Client(session=None)  # type: ignore[call-arg]


async def no_coroutines(client: Client) -> None:
    await client.ping()  # type: ignore[misc]
    async for each in client.datasets.iter():  # type: ignore[attr-defined]
        del each


class Source:
    @overload
    async def get(self, key: str) -> str: ...
    @overload
    async def get(self, key: int, *, exact: bool = True) -> int: ...
    async def get(self, key: str | int, *, exact: bool = True) -> str | int:
        return key if exact else 0


class Sink:
    get = make_blocking(Source.get)

    def __init__(self, loop: LoopThread, target: Source) -> None:
        self._loop = loop
        self._target = target


def overloads(sink: Sink) -> None:
    assert_type(sink.get("a"), str)
    assert_type(sink.get(1, exact=False), int)
    sink.get(1.5)  # type: ignore[call-overload]
