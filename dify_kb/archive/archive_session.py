"""The requests of an export or import: retried through outages, counted, paced like a load."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
from attrs import define, field, frozen

from dify_kb.errors import KnowledgeError, NotFoundError
from dify_kb.ingest import LoadOptions, StopReason
from dify_kb.ingest.error_classification import stop_message, stop_reason
from dify_kb.ingest.load import (
    create_admission,
    raise_single_error,
)
from dify_kb.ingest.load_setup import LoadSetup, prepare_load
from dify_kb.resources import ChildChunks, Datasets, Documents, Metadata, Segments, Tags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dify_kb.ingest.pacing.admission import Admission
    from dify_kb.models import Dataset
    from dify_kb.transport import Sender

T = TypeVar("T")

WORKERS = 4
"""Documents that are read at a time; a default server is saturated by two or three requests in
flight (measured)."""

Stage = Literal["verify", "list", "read", "write", "restore", "metadata", "states"]


@frozen(kw_only=True)
class ArchiveProgress:
    """The progress of an export, import, copy or comparison.

    `stage` is the current one: `list` counts rows of the document list, `read` and `restore`
    documents, `verify` and `write` members of the archive, `metadata` and `states` documents.
    `total` is None while it is unknown. `requests` counts those sent so far, `planned_requests`
    those that are expected in all: told before the first document is read or created.
    """

    stage: Stage
    done: int = 0
    total: int | None = None
    requests: int = 0
    planned_requests: int | None = None


OnArchiveEvent = Callable[[ArchiveProgress], None]
"""A callback for progress; called in the loop thread, must not block."""


@frozen
class Stop:
    """The reason why a run ended early, and the words of the server or the system."""

    reason: StopReason
    message: str


@define(kw_only=True)
class ArchiveSession:
    """Access to one dataset of a server, for the time of a run."""

    setup: LoadSetup
    dataset_id: str
    report: Callable[[ArchiveProgress], None] | None
    planned_requests: int | None = None
    _stop: Stop | None = field(default=None, init=False)

    @property
    def sender(self) -> Sender:
        """The sender whose attempts are counted."""
        return self.setup.sender

    @property
    def datasets(self) -> Datasets:
        """The datasets of the server."""
        return Datasets(self.sender)

    @property
    def documents(self) -> Documents:
        """The documents."""
        return self.setup.server.documents

    @property
    def segments(self) -> Segments:
        """The chunks."""
        return Segments(self.sender)

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks."""
        return ChildChunks(self.sender)

    @property
    def metadata(self) -> Metadata:
        """The metadata fields and values."""
        return Metadata(self.sender)

    @property
    def tags(self) -> Tags:
        """The tags."""
        return Tags(self.sender)

    @property
    def admission(self) -> Admission:
        """The admission control of creates."""
        return self.setup.server.admission

    @property
    def requests(self) -> int:
        """The number of requests so far, including retries."""
        return self.setup.requests.total

    async def read(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request that may be repeated; wait while the server is down.

        Raises:
            KnowledgeError: the request was refused, or the outage lasted too long.
        """
        return await self.setup.server.breaker.read(request)

    def show(self, stage: Stage, done: int, total: int | None) -> None:
        """Report progress to the caller."""
        if self.report is not None:
            self.report(
                ArchiveProgress(
                    stage=stage,
                    done=done,
                    total=total,
                    requests=self.requests,
                    planned_requests=self.planned_requests,
                )
            )

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Stop | None:
        """Run work while the server responds; return why it ended early, or None.

        Raises:
            ConfigError, ArchiveError, JournalError: not a matter of the server.
            Exception: one that the caller's callback raised.
        """
        callbacks = self.setup.callbacks
        with callbacks.scope, raise_single_error():
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch_server, group.cancel_scope)
                try:
                    await work()
                except KnowledgeError as error:
                    if type(error).__name__ in {"ConfigError", "ArchiveError", "JournalError"}:
                        group.cancel_scope.cancel()
                        raise
                    self._stop = Stop(stop_reason(error), stop_message(error))
                group.cancel_scope.cancel()
        if callbacks.error is not None:
            raise callbacks.error
        return self._stop

    async def _watch_server(self, scope: anyio.CancelScope) -> None:
        failure = await self.setup.server.breaker.run()
        self._stop = self._stop or Stop(failure.reason, failure.message)
        scope.cancel()


@asynccontextmanager
async def open_archive_session(
    sender: Sender,
    dataset_id: str,
    *,
    concurrency: int | tuple[int, int] | None = None,
    rate: str | float | None = None,
    on_event: OnArchiveEvent | None = None,
) -> AsyncIterator[ArchiveSession]:
    """Open a session for one run.

    Raises:
        ConfigError: the concurrency or the rate is invalid.
    """
    options = LoadOptions(concurrency=concurrency, rate=rate)
    admission = create_admission(sender, dataset_id, options)
    try:
        setup = await prepare_load(sender, None, dataset_id, options, admission)
        report = setup.callbacks.guard(on_event)
        yield ArchiveSession(setup=setup, dataset_id=dataset_id, report=report)
    finally:
        admission.close()


async def run_workers(
    items: AsyncIterable[T], work: Callable[[T], Awaitable[None]], count: int = WORKERS
) -> None:
    """Process items concurrently; the first error cancels the others and is raised."""
    iterator, lock, errors = aiter(items), anyio.Lock(), list[KnowledgeError]()
    ended = False

    async def take() -> Sequence[T]:
        nonlocal ended
        async with lock:
            if not ended:
                async for item in iterator:
                    return [item]
                ended = True
        return ()

    async def worker() -> None:
        try:
            while batch := await take():
                await work(batch[0])
        except KnowledgeError as error:
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(worker)
    if errors:
        raise errors[0]


async def delete_document(session: ArchiveSession, dataset: Dataset, document_id: str) -> None:
    """Delete a document that may no longer exist."""
    with suppress(NotFoundError):
        await session.read(lambda: session.documents.delete(dataset, document_id))
