"""Target servers, fixtures and helpers for the same scenarios on emulated and real servers.

`DIFY_KB_TEST_URL` and `DIFY_KB_TEST_KEY` add a real server. No test may leave anything behind.
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
"""Prefix of the names of all datasets and tags that these tests create."""

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
"""An id that does not exist."""

INDEXING_TIMEOUT = 120.0
"""Seconds per document: a default server indexes one in 2 s, and needs 4 s more for the first."""

SERVER = "server"
"""The name of the real server target."""

SERVER_LIMIT = 900
"""Seconds for a test on a real server, which is slow and may be busy with previous tests."""

RULE = ProcessRule.custom(max_tokens=100, chunk_overlap=0)
"""One chunk for each line."""

DatasetFactory = Callable[..., Awaitable[Dataset]]


@frozen
class Target:
    """A server to test."""

    name: str
    url: str
    api_key: str = field(repr=False)

    @property
    def is_real(self) -> bool:
        return self.name == SERVER

    @property
    def policy(self) -> Policy:
        """The client's policy; delays are one hundredth on the emulator, which indexes fast."""
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
    """Return the embedding models of a target, requested only once."""

    async def request_models(target: Target) -> Sequence[ModelRef]:
        async with target.client() as client:
            return await list_embedding_models(client)

    with ExitStack() as stack:
        return anyio.run(request_models, _start_target(name, stack))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deselect tests that need an embedding model on targets without one."""
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
    """A server of each version; fails at the end if tests left datasets or tags behind."""
    with ExitStack() as stack:
        started_target = _start_target(request.param, stack)
        yield started_target
        assert anyio.run(_list_leftovers, started_target) == []


async def _list_leftovers(target: Target) -> list[str]:
    async with target.client() as client:
        leftovers = [
            row.name async for row in client.datasets.iter(keyword=PREFIX, include_all=True)
        ]
        # 1.12.1 cannot list tags (measured); these tests do not create any there.
        with suppress(BadRequestError):
            leftovers += [tag.name for tag in await client.tags.list()]
    return [name for name in leftovers if name.startswith(PREFIX)]


@pytest.fixture
async def client(target: Target) -> AsyncIterator[AsyncClient]:
    """A client of the target that has detected the server version."""
    async with target.client() as open_client:
        await open_client.ping()
        yield open_client


@pytest.fixture
async def create_dataset(client: AsyncClient) -> AsyncIterator[DatasetFactory]:
    """A function that creates datasets, deleted at the end: `await create_dataset(name=…)`."""
    async with AsyncExitStack() as stack:

        async def make(*, name: str | None = None, **options: object) -> Dataset:
            options.setdefault("indexing_technique", "economy")
            dataset = await client.datasets.create(name or unique_name(), **options)  # type: ignore[arg-type]  # passed on
            stack.push_async_callback(delete_if_exists, client.datasets.delete, dataset.id)
            return dataset

        yield make


@pytest.fixture
async def dataset(create_dataset: DatasetFactory) -> Dataset:
    """An economy dataset, which needs no model."""
    return await create_dataset()


@pytest.fixture
def embedding(target: Target) -> ModelRef:
    """An embedding model; tests that use it are deselected on targets without one."""
    return _get_embedding_models(target.name)[0]


async def delete_if_exists(delete: Callable[[str], Awaitable[None]], id_: str) -> None:
    """Delete an object, unless the test has already deleted it."""
    with suppress(NotFoundError):
        await delete(id_)


def unique_name(suffix: str = "") -> str:
    """Return a new unique name."""
    return f"{PREFIX}{uuid.uuid4().hex[:8]}{suffix}"


def is_older_than(client: AsyncClient, version: str) -> bool:
    """Return whether the server is older than a version."""
    return is_older(client.server_version, version)


def has_broken_tags(client: AsyncClient) -> bool:
    """Return whether the server's responses with tags are errors (measured)."""
    return client.server_version in {"1.12.0", "1.12.1"}


def has_hanging_updates(client: AsyncClient) -> bool:
    """Return whether an update would block the server's indexing forever (measured)."""
    return client.server_version in {"1.12.0", "1.12.1"}


async def list_embedding_models(client: AsyncClient) -> Sequence[ModelRef]:
    """Return the embedding models of the workspace."""
    providers = await client.workspace.models("text-embedding")
    return [ref for provider in providers for ref in provider.model_refs()]


async def create_documents(
    client: AsyncClient, dataset: Dataset, *texts: str, rule: ProcessRule | None = None
) -> list[Document]:
    """Create a document of each text (`a.txt`, `b.txt`, …) and wait until they are indexed."""
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
    """Wait for documents, all of which must complete."""
    documents = await client.documents.wait(dataset, created, timeout=INDEXING_TIMEOUT)
    assert [row.error for row in documents] == [None] * len(created)
    assert {row.indexing_status for row in documents} <= {IndexingStatus.COMPLETED}
    return list(documents)


async def search_document_names(client: AsyncClient, dataset: Dataset, query: str) -> list[str]:
    """Search, and return the unique names of the documents found."""
    return document_names(await client.datasets.retrieve(dataset, query))


def document_names(result: RetrievalResult) -> list[str]:
    """Return the unique names of the documents of a result, in order."""
    return list(dict.fromkeys(record.segment.document.name for record in result.records))


async def list_document_names(client: AsyncClient, dataset: Dataset) -> list[str]:
    """Return the names of all documents of a dataset, sorted."""
    return sorted([row.name async for row in client.documents.iter(dataset)])


async def list_segments(client: AsyncClient, dataset: Dataset, document: Document) -> list[Segment]:
    """Return all chunks of a document."""
    return [row async for row in client.segments.iter(dataset, document.id)]


async def wait_until_true(check: Callable[[], Awaitable[bool]]) -> bool:
    """Poll until a check is true, since servers apply some changes later; False on timeout."""
    interval = 0.05
    with anyio.move_on_after(INDEXING_TIMEOUT):
        while not await check():
            await anyio.sleep(interval)
            interval = min(interval * 2, 2.0)
        return True
    return False


async def try_change(change: Awaitable[object]) -> bool:
    """Try a change; return False if the server is still busy with the previous one."""
    try:
        await change
    except BadRequestError as error:
        if "try again later" not in error.message:
            raise
        return False
    return True
