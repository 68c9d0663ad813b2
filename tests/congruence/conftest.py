"""The servers that every scenario runs against, and what a scenario leaves behind: nothing.

`DIFY_KB_TEST_URL` and `DIFY_KB_TEST_KEY` add a real server. Helpers are plain functions.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import cache

import anyio
import pytest
from attrs import field, frozen

from dify_kb import (
    AsyncClient,
    BadRequestError,
    CreatedDocument,
    Dataset,
    Document,
    IndexingStatus,
    ModelRef,
    NotFoundError,
    Policy,
    ProcessRule,
    RetrievalResult,
    Segment,
)
from dify_kb.emulator import VERSIONS, Emulator, Settings
from dify_kb.wire.version_bugs import is_older

PREFIX = "dify-kb test "
"""What every base and tag of these tests begins with."""

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
"""An id that nothing has."""

INDEXING_TIMEOUT = 120.0
"""Seconds for a document: a default server indexes one in 2 s, its first in 4 s more."""

SERVER = "server"
"""The name of the real server among the targets."""

SERVER_LIMIT = 900
"""Seconds for a test on a real server, which is slow and may be busy with the tests before."""

RULE = ProcessRule.custom(max_tokens=100, chunk_overlap=0)
"""One chunk for each line."""

DatasetFactory = Callable[..., Awaitable[Dataset]]


@frozen
class Target:
    """A server to run against."""

    name: str
    url: str
    api_key: str = field(repr=False)

    @property
    def is_real(self) -> bool:
        return self.name == SERVER

    @property
    def policy(self) -> Policy:
        """The client's times: a hundredth of them on the emulator, which indexes at once."""
        return Policy() if self.is_real else Policy().scaled(0.01)

    def client(self) -> AsyncClient:
        return AsyncClient(self.url, self.api_key, policy=self.policy)


def _list_targets() -> list[object]:
    targets: list[object] = list(VERSIONS)
    if os.environ.get("DIFY_KB_TEST_URL") and os.environ.get("DIFY_KB_TEST_KEY"):
        targets.append(pytest.param(SERVER, marks=pytest.mark.timeout(SERVER_LIMIT)))
    return targets


def _start_target(name: str, stack: ExitStack) -> Target:
    if name == SERVER:
        return Target(name, os.environ["DIFY_KB_TEST_URL"], os.environ["DIFY_KB_TEST_KEY"])
    emulator = stack.enter_context(Emulator(version=name, settings=Settings(models=True)))
    return Target(name, emulator.url, emulator.api_key)


@cache
def _get_embedding_models(name: str) -> Sequence[ModelRef]:
    """Ask a target once which embedding models it offers."""

    async def ask(target: Target) -> Sequence[ModelRef]:
        async with target.client() as client:
            return await list_embedding_models(client)

    with ExitStack() as stack:
        return anyio.run(ask, _start_target(name, stack))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs an embedding model where there is none; it could only be skipped."""
    items[:] = [
        item
        for item in items
        if not isinstance(item, pytest.Function)
        or "embedding" not in item.fixturenames
        or "target" not in item.fixturenames
        or _get_embedding_models(item.callspec.params["target"])
    ]


@pytest.fixture(scope="session", params=_list_targets())
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A server of each version, and at the end a look whether something was left on it."""
    with ExitStack() as stack:
        started_target = _start_target(request.param, stack)
        yield started_target
        assert anyio.run(_list_leftovers, started_target) == []


async def _list_leftovers(target: Target) -> list[str]:
    async with target.client() as client:
        leftovers = [
            row.name async for row in client.datasets.iter(keyword=PREFIX, include_all=True)
        ]
        # 1.12.1 cannot list tags (measured), nor do these tests make any there.
        with suppress(BadRequestError):
            leftovers += [tag.name for tag in await client.tags.list()]
    return [name for name in leftovers if name.startswith(PREFIX)]


@pytest.fixture
async def client(target: Target) -> AsyncIterator[AsyncClient]:
    """A client of the target, which knows its version."""
    async with target.client() as open_client:
        await open_client.ping()
        yield open_client


@pytest.fixture
async def create_dataset(client: AsyncClient) -> AsyncIterator[DatasetFactory]:
    """Makes bases and deletes them at the end: `await create_dataset(name=…, **options)`."""
    async with AsyncExitStack() as stack:

        async def make(*, name: str | None = None, **options: object) -> Dataset:
            options.setdefault("indexing_technique", "economy")
            dataset = await client.datasets.create(name or unique_name(), **options)  # type: ignore[arg-type]  # passed on
            stack.push_async_callback(delete_if_exists, client.datasets.delete, dataset.id)
            return dataset

        yield make


@pytest.fixture
async def dataset(create_dataset: DatasetFactory) -> Dataset:
    """An economy base, which needs no model."""
    return await create_dataset()


@pytest.fixture
def embedding(target: Target) -> ModelRef:
    """An embedding model; where there is none, the test is left out."""
    return _get_embedding_models(target.name)[0]


async def delete_if_exists(delete: Callable[[str], Awaitable[None]], id_: str) -> None:
    """Delete what a test may have deleted itself."""
    with suppress(NotFoundError):
        await delete(id_)


def unique_name(suffix: str = "") -> str:
    """Make a name that nothing has."""
    return f"{PREFIX}{uuid.uuid4().hex[:8]}{suffix}"


def is_older_than(client: AsyncClient, version: str) -> bool:
    """Tell whether the server is older than a version."""
    return is_older(client.server_version, version)


def has_broken_tags(client: AsyncClient) -> bool:
    """Tell whether the server refuses its own tags (measured)."""
    return client.server_version in {"1.12.0", "1.12.1"}


def has_hanging_updates(client: AsyncClient) -> bool:
    """Tell whether an update would stop the server's indexing for ever (measured)."""
    return client.server_version in {"1.12.0", "1.12.1"}


async def list_embedding_models(client: AsyncClient) -> Sequence[ModelRef]:
    """Ask which embedding models the workspace has."""
    providers = await client.workspace.models("text-embedding")
    return [ref for provider in providers for ref in provider.model_refs()]


async def create_documents(
    client: AsyncClient, dataset: Dataset, *texts: str, rule: ProcessRule | None = None
) -> list[Document]:
    """Make a document of each text (`a.txt`, `b.txt`, …) and wait until they can be found."""
    created = [
        await client.documents.create_by_text(
            dataset, f"{chr(ord('a') + number)}.txt", text, process_rule=rule or RULE
        )
        for number, text in enumerate(texts)
    ]
    return await wait_until_indexed(client, dataset, *created)


async def wait_until_indexed(
    client: AsyncClient, dataset: Dataset, *created: CreatedDocument
) -> list[Document]:
    """Wait for documents, each of which must complete."""
    documents = await client.documents.wait(dataset, created, timeout=INDEXING_TIMEOUT)
    assert [row.error for row in documents] == [None] * len(created)
    assert {row.indexing_status for row in documents} <= {IndexingStatus.COMPLETED}
    return list(documents)


async def search_document_names(client: AsyncClient, dataset: Dataset, query: str) -> list[str]:
    """Search, and give the names of the documents that were found, each once."""
    return document_names(await client.datasets.retrieve(dataset, query))


def document_names(result: RetrievalResult) -> list[str]:
    """Name the documents of an answer, each once, in its order."""
    return list(dict.fromkeys(record.segment.document.name for record in result.records))


async def list_document_names(client: AsyncClient, dataset: Dataset) -> list[str]:
    """Name all documents of a base, sorted."""
    return sorted([row.name async for row in client.documents.iter(dataset)])


async def list_segments(client: AsyncClient, dataset: Dataset, document: Document) -> list[Segment]:
    """Give all chunks of a document."""
    return [row async for row in client.segments.iter(dataset, document.id)]


async def wait_until_true(check: Callable[[], Awaitable[bool]]) -> bool:
    """Ask until it is so: a server carries some changes out later, without saying when."""
    interval = 0.05
    with anyio.move_on_after(INDEXING_TIMEOUT):
        while not await check():
            await anyio.sleep(interval)
            interval = min(interval * 2, 2.0)
        return True
    return False


async def try_change(change: Awaitable[object]) -> bool:
    """Change something again; False while the server is still busy with the change before."""
    try:
        await change
    except BadRequestError as error:
        if "try again later" not in error.message:
            raise
        return False
    return True
