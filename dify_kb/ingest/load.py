"""A load: scan, plan, upload and watch in one task group, with bounded streams between them."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from dify_kb.errors import (
    ApiError,
    ConfigError,
    ConnectError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    ServerError,
    SourceError,
    UnauthorizedError,
)
from dify_kb.models import UNSET, Dataset, DocForm, ProcessRule, Unset

from .events import OnLoadEvent, Progress
from .plan import OnExisting, Planned, Remote, plan
from .report import ItemResult, LoadReport, Outcome, StopReason, Tally
from .scan import Found, Root, Rules, scan
from .upload import Sent, Uploader, not_sent
from .watch import NOT_MOVING, Watcher

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from dify_kb.config import Watch
    from dify_kb.resources import Datasets, Documents

Wait = Literal["accepted", "indexed"]

_log = logging.getLogger(__name__)

SCANNED = 200
"""Files that cross from the scanning thread at a time: a hop costs more than a file."""


@frozen(kw_only=True)
class Options:
    """What a load may be told, checked."""

    rules: Rules = field(factory=Rules)
    process_rule: ProcessRule | None = None
    doc_form: DocForm | Unset = UNSET
    on_existing: OnExisting = "overwrite"
    wait: Wait = "indexed"
    concurrency: int = 4
    max_unindexed: int = 5000
    stall_after: float = 900.0
    on_event: OnLoadEvent | None = None


async def load(
    datasets: Datasets,
    documents: Documents,
    dataset_id: Dataset | str,
    roots: Sequence[Root],
    options: Options,
    times: Watch,
    tally: Tally,
) -> LoadReport:
    """Bring the files below `roots` into a dataset and tell how each ended.

    Raises:
        ConfigError: the dataset has no indexing technique.
        KnowledgeError: the dataset could not be fetched and listed.
    """
    started = time.monotonic()
    dataset = await datasets.get(dataset_id)
    if dataset.indexing_technique is None:
        raise ConfigError(
            f"The dataset {dataset.name!r} has no indexing technique yet.",
            hint="Create it with indexing_technique (--technique): economy or high_quality.",
        )
    remote = await _remote(documents, dataset) if dataset.document_count else {}
    rule = options.process_rule or (UNSET if remote else ProcessRule.automatic())
    run = _Run(
        options=options,
        remote=remote,
        tally=tally,
        uploader=Uploader(documents, dataset, rule, options.doc_form, times, options.stall_after),
    )
    run.watcher = Watcher(documents, dataset.id, times, options.stall_after, run.indexed)
    await run.through(roots)
    return tally.report(
        seconds=time.monotonic() - started, stopped=run.stopped, message=run.message
    )


async def _remote(documents: Documents, dataset: Dataset) -> Mapping[str, Remote]:
    """Learn what is there, by name; of several, the enabled one, which a create would replace."""
    found: dict[str, Remote] = {}
    async for document in documents.iter(dataset):
        if document.enabled or document.name not in found:
            found[document.name] = Remote.of(document)
    return found


@define
class _Run:
    """The state of one load; each file passes through `end` exactly once."""

    options: Options
    remote: Mapping[str, Remote]
    tally: Tally
    uploader: Uploader
    watcher: Watcher = field(init=False)
    stopped: StopReason | None = None
    message: str | None = None
    _found: int = 0
    _to_send: int = 0
    _accepted: int = 0
    _scanned: bool = False
    _room: anyio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._room = anyio.Semaphore(self.options.max_unindexed)

    async def through(self, roots: Sequence[Root]) -> None:
        """Take every file below `roots` to its end."""
        planned, to_upload = anyio.create_memory_object_stream[Planned](SCANNED)
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._watch)
            async with anyio.create_task_group() as sending, to_upload:
                sending.start_soon(self._scan, roots, planned)
                for _ in range(self.options.concurrency):
                    sending.start_soon(self._upload, to_upload.clone())
            self.watcher.close()
        self._tell()

    def end(self, result: ItemResult) -> None:
        """Count a file that ended."""
        self.tally.add(result)
        if self.options.on_event is not None:
            self.options.on_event(result)
            self._tell()

    def indexed(self, result: ItemResult) -> None:
        """Count a file that was followed, and make room for another."""
        self._room.release()
        self.end(result)

    async def _scan(self, roots: Sequence[Root], planned: MemoryObjectSendStream[Planned]) -> None:
        items = scan(roots, self.options.rules)
        async with planned:
            while batch := await anyio.to_thread.run_sync(_some, items):
                self._found += len(batch)
                for item in batch:
                    await self._plan(item, planned)
        self._scanned = True
        self._tell()

    async def _plan(
        self, item: Found | ItemResult, planned: MemoryObjectSendStream[Planned]
    ) -> None:
        decided = (
            plan(item, self.remote, self.options.on_existing) if isinstance(item, Found) else item
        )
        if isinstance(decided, ItemResult):
            self.end(decided)
            return
        self._to_send += 1
        await planned.send(decided)

    async def _upload(self, planned: MemoryObjectReceiveStream[Planned]) -> None:
        async with planned:
            async for item in planned:
                await self._room.acquire()
                sent = await self._sent(item)
                if isinstance(sent, Sent) and self.options.wait == "indexed":
                    self.watcher.add(sent)
                elif isinstance(sent, Sent):
                    self.indexed(sent.ended(sent.done))
                else:
                    self.indexed(sent)

    async def _sent(self, planned: Planned) -> Sent | ItemResult:
        if self.stopped is not None:
            return not_sent(planned, Outcome.PENDING, "the run stopped before it")
        try:
            sent = await self.uploader.send(planned)
        except SourceError as error:
            return not_sent(planned, Outcome.FAILED, error.summary)
        except Exception as error:  # noqa: BLE001 -- the edge of one file: the others go on
            if not isinstance(error, KnowledgeError):
                _log.exception("unexpected, at %r", planned.found.key)
                return not_sent(planned, Outcome.FAILED, f"unexpected: {error!r}", attempts=1)
            reason = _stop_reason(error)
            if reason is None:
                return not_sent(planned, Outcome.FAILED, error.summary, attempts=1)
            self._stop(reason, error)
            return not_sent(planned, Outcome.PENDING, "the run stopped at it", attempts=1)
        if isinstance(sent, Sent):
            self._accepted += 1
            self.tally.bytes += planned.found.size
            self._tell()
        return sent

    async def _watch(self) -> None:
        why = "uploaded; the run stopped before it was seen indexed"
        try:
            await self.watcher.run()
        except KnowledgeError as error:
            self._stop(_stop_reason(error) or StopReason.OUTAGE, error)
        if self.watcher.stuck:
            self.stopped, self.message = self.stopped or StopReason.NOT_INDEXING, NOT_MOVING
        self.watcher.leave(why)
        await self.watcher.closed()
        self.watcher.leave(why)

    def _stop(self, reason: StopReason, error: KnowledgeError) -> None:
        if self.stopped is None:
            own = error.message if isinstance(error, ApiError) else ""
            self.stopped, self.message = reason, own or error.summary

    def _tell(self) -> None:
        if self.options.on_event is not None:
            self.options.on_event(
                Progress(
                    found=self._found,
                    scanned=self._scanned,
                    to_send=self._to_send,
                    accepted=self._accepted,
                    ended=self.tally.ended,
                    failed=self.tally.bad,
                    bytes=self.tally.bytes,
                    stopped=self.stopped,
                )
            )


def _some(items: Iterator[Found | ItemResult]) -> Sequence[Found | ItemResult]:
    return list(itertools.islice(items, SCANNED))


def _stop_reason(error: KnowledgeError) -> StopReason | None:
    """Tell whether an error concerns every file, not one."""
    match error:
        case QuotaExceededError():
            return StopReason.PLAN_LIMIT
        case UnauthorizedError() | ForbiddenError():
            return StopReason.UNAUTHORIZED
        case RateLimitedError():
            return StopReason.RATE_LIMIT
        case ConnectError() | ServerError():
            return StopReason.OUTAGE
        case NotFoundError():
            return StopReason.MISCONFIGURED
        case _:
            return None
