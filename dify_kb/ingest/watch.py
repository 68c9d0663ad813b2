"""Accepted documents become ended ones; the only room that knows how indexing is polled."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio
from attrs import define, field

from dify_kb.config import Watch
from dify_kb.errors import NotFoundError
from dify_kb.models import Document, DocumentStatus, IndexingStatus
from dify_kb.resources import Documents

from .report import ItemResult, Outcome
from .upload import Sent

FEW = 10
"""Documents that are asked for one by one when they lie deep in the list: a page of 100 costs the
server as much as about 11 status calls (measured)."""

BATCH = 50
"""Ends to wait for before the next look, when they come steadily."""

NOTHING = "indexed, but nothing of it can be found: no text was taken out of it"
NOT_MOVING = (
    "nothing is being indexed; is a worker running, and does it take the queues"
    " `dataset` and `priority_dataset`?"
)


@define
class _Active:
    sent: Sent
    status: str = ""
    since: float = 0.0
    segments: int | None = None
    missed: int = 0


@define
class Watcher:
    """Follows accepted documents by pages of the list, until none is left.

    Costs a page for each 100 documents that are between the newest and the oldest one followed,
    at intervals that grow while nothing moves.
    """

    _documents: Documents
    _dataset_id: str
    _times: Watch
    _stall_after: float
    _end: Callable[[ItemResult], None]
    _active: dict[str, _Active] = field(factory=dict)
    _closing: anyio.Event = field(factory=anyio.Event)
    _moved_at: float = 0.0
    _picture: int = 0
    _depth: int = 1
    stuck: bool = False
    """Whether it gave up because nothing moved at all."""

    def add(self, sent: Sent) -> None:
        """Follow one more document."""
        self._active[sent.document_id] = _Active(sent, since=anyio.current_time())

    def close(self) -> None:
        """Tell that no more will come."""
        self._closing.set()

    async def closed(self) -> None:
        """Wait until no more will come."""
        await self._closing.wait()

    def leave(self, reason: str) -> None:
        """End what is still followed, since nothing more will be seen of it."""
        self._end_all(Outcome.PENDING, reason)

    async def run(self) -> None:
        """Look until every document that was added has ended and `close` was called."""
        wait = self._times.first
        self._moved_at = anyio.current_time()
        while not self.stuck and not (self._closing.is_set() and not self._active):
            await self._pause(wait)
            if not self._active:
                self._moved_at = anyio.current_time()
                continue
            before, since = len(self._active), anyio.current_time()
            await self._look()
            await self._judge_stalls()
            wait = self._next(wait, before - len(self._active), since)

    async def _pause(self, seconds: float) -> None:
        if self._closing.is_set():
            await anyio.sleep(seconds)
            return
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    def _next(self, wait: float, ended: int, since: float) -> float:
        """Choose the next interval: by the rate of ends, growing slowly while nothing ends."""
        longer = min(wait * self._times.growth, self._times.longest)
        if not ended:
            return longer
        rate = ended / max(wait, anyio.current_time() - since)
        return min(longer, max(self._times.first, min(BATCH, len(self._active)) / rate))

    async def _look(self) -> None:
        if len(self._active) <= FEW and self._depth > 1:
            for active in list(self._active.values()):
                await self._ask(active)
        else:
            await self._walk()

    async def _walk(self) -> None:
        missing, pages = set(self._active), 0
        if not missing:
            return
        picture: list[tuple[str, str]] = []
        async for rows in self._documents.iter(self._dataset_id).pages():
            pages += 1
            for row in rows:
                missing.discard(row.id)
                picture.append((row.id, row.indexing_status))
                if active := self._active.get(row.id):
                    self._seen(active, row)
            if not missing:
                break
        self._depth = pages
        if hash(tuple(picture)) != self._picture:
            self._picture, self._moved_at = hash(tuple(picture)), anyio.current_time()
        self._gone(missing)

    def _seen(self, active: _Active, row: Document) -> None:
        mine, theirs = active.sent.upload_file_id, row.upload_file
        if mine and theirs and theirs.id != mine:
            return  # the page was read before our create replaced it, or somebody replaced ours
        active.missed = 0
        self._moved(active, row.indexing_status)
        match row.indexing_status:
            case IndexingStatus.COMPLETED if row.word_count == 0:
                self._ended(active, Outcome.FAILED, reason=NOTHING)
            case IndexingStatus.COMPLETED:
                self._ended(active, active.sent.done)
            case IndexingStatus.ERROR:
                self._failed(active, row.error)

    async def _ask(self, active: _Active) -> None:
        """Ask for one document by its batch; one that was superseded is found by its page."""
        if active.sent.batch is None:
            await self._walk()
            return
        try:
            statuses = await self._documents.indexing_status(self._dataset_id, active.sent.batch)
        except NotFoundError:
            self._gone([active.sent.document_id])
            return
        for status in statuses:
            if status.id == active.sent.document_id:
                self._answered(active, status)

    def _answered(self, active: _Active, status: DocumentStatus) -> None:
        active.missed = 0
        self._moved(active, status.indexing_status)
        if active.segments != status.completed_segments:
            active.segments = status.completed_segments
            active.since = self._moved_at = anyio.current_time()
        match status.indexing_status:
            case IndexingStatus.COMPLETED if status.total_segments == 0:
                self._ended(active, Outcome.FAILED, reason=NOTHING)
            case IndexingStatus.COMPLETED:
                self._ended(active, active.sent.done)
            case IndexingStatus.ERROR:
                self._failed(active, status.error)

    def _moved(self, active: _Active, status: str) -> None:
        if status != active.status:
            active.status = status
            active.since = self._moved_at = anyio.current_time()

    def _gone(self, document_ids: Iterable[str]) -> None:
        """End what two looks did not find: rows shift while others delete, so one is no proof."""
        for document_id in document_ids:
            if active := self._active.get(document_id):
                active.missed += 1
                if active.missed > 1:
                    reason = "deleted, or replaced by another upload, before it was indexed"
                    self._ended(active, Outcome.FAILED, reason=reason)

    async def _judge_stalls(self) -> None:
        for active in self._late()[:FEW]:
            await self._ask(active)  # a long document moves by its segments alone
        if anyio.current_time() - self._moved_at > self._stall_after:
            self.stuck = True
            self._end_all(Outcome.STALLED, NOT_MOVING)
            return
        for active in self._late():
            minutes = self._stall_after / 60
            reason = f"no progress for {minutes:.0f} min in status {active.status or 'unseen'}"
            self._ended(active, Outcome.STALLED, reason=reason)

    def _late(self) -> list[_Active]:
        """Name those that a worker has begun and that did not move for `stall_after`."""
        before = anyio.current_time() - self._stall_after
        return [
            active
            for active in self._active.values()
            if active.since < before and active.status != IndexingStatus.WAITING
        ]

    def _end_all(self, outcome: Outcome, reason: str) -> None:
        for active in list(self._active.values()):
            self._ended(active, outcome, reason=reason)

    def _failed(self, active: _Active, error: str | None) -> None:
        reason = f"indexing failed: {error or 'the server gives no reason'}"
        self._ended(active, Outcome.FAILED, reason=reason, error=error)

    def _ended(
        self,
        active: _Active,
        outcome: Outcome,
        *,
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        if self._active.pop(active.sent.document_id, None) is None:
            return  # it ended by the way, while others were looked for
        index = anyio.current_time() - active.sent.accepted_at
        self._end(active.sent.ended(outcome, reason=reason, error=error or reason, index=index))
