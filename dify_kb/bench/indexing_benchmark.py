"""Measure how fast accepted documents become available."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from dify_kb.client import AsyncClient
from dify_kb.errors import KnowledgeError
from dify_kb.models import Dataset, Document, DocumentStatus, IndexingStatus
from dify_kb.transport.clock import loop_time

from .corpus import Sample
from .load_generator import DRAIN_SECONDS, is_permanent_error
from .metrics import Spread
from .results import IndexingResult

UPLOADERS = 2
"""Concurrent uploads; a default server is saturated by two or three (measured)."""

MAX_REASON = 200
"""The length of the reason of a failed document, in characters."""


@define(kw_only=True)
class IndexingBenchmark:
    """Upload of a corpus, and its indexing. `summarize()` returns the results so far."""

    client: AsyncClient
    dataset: Dataset
    samples: Sequence[Sample]
    timeout: float
    """Seconds, from the first create request."""

    poll_interval: float
    """Seconds between two polls of the list."""

    on_progress: Callable[[int], None]
    """Called with the number of documents whose indexing has ended."""

    bytes: int = 0
    _accepted: dict[str, tuple[float, str]] = field(factory=dict, init=False)
    """By document id: the time of the response, and the batch."""

    _finished: dict[str, tuple[float, Document]] = field(factory=dict, init=False)
    _refused: int = field(default=0, init=False)
    _refusals: Counter[str] = field(factory=Counter, init=False)
    _refusal: KnowledgeError | None = field(default=None, init=False)
    """The error that makes further requests pointless."""

    _statuses: dict[str, DocumentStatus] = field(factory=dict, init=False)
    _began: float = field(default=0.0, init=False)
    _uploaded: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Upload the samples and poll until their indexing has ended, or until the timeout.

        Requests: one create per document, the pages of the list per poll, and one per document
        for the server's timestamps.

        Raises:
            KnowledgeError: the server refuses the requests.
        """
        self._began = loop_time()
        with anyio.move_on_after(self.timeout):
            async with anyio.create_task_group() as group:
                group.start_soon(self._upload)
                group.start_soon(self._watch)
        if self._refusal is not None:
            raise self._refusal
        with anyio.move_on_after(self.timeout / 2):
            for document_id in list(self._finished):
                await self._request_status(document_id)

    async def _upload(self) -> None:
        remaining = iter(self.samples)

        async def worker() -> None:
            for sample in remaining:
                if self._refusal is not None:
                    return
                # The server would still execute a request that is cut off.
                with anyio.move_on_after(DRAIN_SECONDS + self.timeout, shield=True):
                    await self._send(sample)
                await checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(UPLOADERS):
                group.start_soon(worker)
        self._uploaded = True

    async def _send(self, sample: Sample) -> None:
        self.bytes += len(sample.data)
        try:
            created = await self.client.documents.create_by_file(
                self.dataset, sample.data, name=sample.name
            )
        except KnowledgeError as error:
            self._refused += 1
            self._refusals[error.summary[:MAX_REASON]] += 1
            if is_permanent_error(error) and not self._accepted:
                self._refusal = error
            return
        self._accepted[created.document.id] = (loop_time(), created.batch)

    async def _watch(self) -> None:
        while not (self._uploaded and len(self._finished) >= len(self._accepted)):
            await anyio.sleep(self.poll_interval)
            try:
                await self._poll()
            except KnowledgeError as error:
                if is_permanent_error(error):
                    self._refusal = error
                    return
            self.on_progress(len(self._finished))

    async def _poll(self) -> None:
        if not self._accepted:
            return
        async for rows in self.client.documents.iter(self.dataset).pages():
            now = loop_time()
            for row in rows:
                if row.indexing_status.is_final and row.id in self._accepted:
                    self._finished.setdefault(row.id, (now, row))

    async def _request_status(self, document_id: str) -> None:
        try:
            answer = await self.client.documents.indexing_status(
                self.dataset, self._accepted[document_id][1]
            )
        except KnowledgeError:
            return  # the counter has the error
        self._statuses.update((status.id, status) for status in answer)

    def summarize(self) -> IndexingResult:
        """Return the results so far."""
        indexed = {id_: when for id_, (when, row) in self._finished.items() if _is_available(row)}
        failed = [row for _, row in self._finished.values() if not _is_available(row)]
        reasons = self._refusals + Counter(map(_failure_reason, failed))
        ends = sorted(indexed.values())
        seconds = ends[-1] - self._began if ends else 0.0
        available = [when - self._accepted[id_][0] for id_, when in indexed.items()]
        queued, worked = _server_times(
            {id_: self._finished[id_][1] for id_ in indexed}, self._statuses
        )
        return IndexingResult(
            technique=str(self.dataset.indexing_technique or ""),
            documents=len(self._accepted) + self._refused,
            completed=len(indexed),
            failed=len(failed) + self._refused,
            reasons=dict(reasons.most_common()),
            unfinished=len(self._accepted) - len(self._finished),
            bytes=self.bytes,
            chunks=sum(status.completed_segments or 0 for status in self._statuses.values()),
            seconds=seconds,
            rate=len(ends) / seconds if seconds else 0.0,
            available=_spread_or_none(available),
            queued=_spread_or_none(queued),
            worked=_spread_or_none(worked),
            # Documents found by the same poll share one point, with the highest count.
            course=list({when - self._began: count for count, when in enumerate(ends, 1)}.items()),
        )


def _is_available(row: Document) -> bool:
    """Return whether searches find a document whose indexing has ended."""
    return row.indexing_status is IndexingStatus.COMPLETED and row.word_count != 0


def _failure_reason(row: Document) -> str:
    if row.indexing_status is IndexingStatus.COMPLETED:
        return "completed, but nothing was indexed"
    return (row.error or "no reason given").split("\n", 1)[0][:MAX_REASON]


def _server_times(
    rows: Mapping[str, Document], statuses: Mapping[str, DocumentStatus]
) -> tuple[Sequence[float], Sequence[float]]:
    """Return the times in the queue and at work, by the server's timestamps."""
    queued: list[float] = []
    worked: list[float] = []
    for document_id in rows.keys() & statuses.keys():
        status = statuses[document_id]
        started, ended = status.processing_started_at, status.completed_at
        created = rows[document_id].created_at
        if started is None or created is None:
            continue
        # Timestamps are truncated to seconds, so the difference may be slightly negative.
        queued.append(max(0.0, (started - created).total_seconds()))
        if ended is not None:
            worked.append(max(0.0, (ended - started).total_seconds()))
    return queued, worked


def _spread_or_none(values: Sequence[float]) -> Spread | None:
    return Spread.from_values(values) if values else None
