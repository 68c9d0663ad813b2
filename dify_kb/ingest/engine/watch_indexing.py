"""Accepted documents become ended ones; the only room that knows how indexing is polled.

Workers take documents nearly in the order of their creates, and the list is in that order too. So
the next ends are to be expected where the oldest of the followed documents stand, and one page
there tells of up to 100.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence

import anyio
from attrs import define, evolve, field

from dify_kb.config import Loading, Watch
from dify_kb.errors import KnowledgeError, NotFoundError
from dify_kb.ingest.planning.document_lookup import FEW, DocumentLookup
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import DisplayStatus, Document, DocumentStatus, IndexingStatus
from dify_kb.resources import Documents

from .upload import UploadedDocument

PAGE = 100
BATCH = 50
"""Ends to wait for before the next look, when they come steadily."""

MISSES = 2
"""Looks that do not find a document before it counts as gone."""

OTHERS = 3
"""Looks that show another file than ours before it counts as another upload."""

LATE = 0.025
"""Part of the time so far that two looks are apart at least: the last end is noticed within a
twentieth of the whole."""

NOTHING = "indexed, but nothing of it can be found: no text was taken out of it"
NOT_MOVING = (
    "nothing is being indexed; is a worker running, and does it take the queues"
    " `dataset` and `priority_dataset`?"
)
REPLACED = "another upload of the same length took its place while it was indexed"


@define(eq=False)
class _Active:
    """A followed document. `base` plus the documents created so far is its place in the list."""

    sent: UploadedDocument
    base: int | None
    since: float
    seen_at: float
    status: str = ""
    had: set[str] = field(factory=set)
    segments: int | None = None
    missed: int = 0

    @property
    def waits(self) -> bool:
        return self.status in {"", IndexingStatus.WAITING}


@define
class IndexingWatcher:
    """Follows accepted documents by pages of the list, until none is left.

    Costs a page for some 50 documents that end, at intervals that follow the server's speed, and
    never more than one for each 2.5 % of the time so far.
    """

    _documents: Documents
    _dataset_id: str
    _times: Watch
    _loading: Loading
    _stall_after: float
    _lookup: DocumentLookup
    _end: Callable[[UploadedDocument, ItemResult], None]
    """Takes a document that ended."""

    _failing: Callable[[KnowledgeError], Awaitable[object]]
    """Takes an error of a look, and returns when the server is back."""

    becalmed: Callable[[], object] = lambda: None
    """Told when half of `stall_after` is over and neither these nor others were seen to move."""

    _active: dict[str, _Active] = field(factory=dict)
    _more: anyio.Event = field(factory=anyio.Event)
    _began: float = 0.0
    _ended: int = 0
    _created: int = 0
    _queue: int | None = None
    moved_at: float = 0.0
    """When something was last seen to move."""

    stuck: bool = False
    """Whether it gave up because nothing moved at all."""

    def __len__(self) -> int:
        return len(self._active)

    @property
    def created(self) -> int:
        """Documents that were added since the run began."""
        return self._created

    def add(self, sent: UploadedDocument, *, new: bool) -> None:
        """Follow one more document; a new one has just come to the head of the list."""
        now = anyio.current_time()
        if not self._active:
            self._began, self._ended, self.moved_at = now, 0, now
        self.note(new=new)
        existing = sent.planned.replaces
        base = -self._created if new else existing.place if existing else None
        self._active[sent.document_id] = _Active(sent, base, since=now, seen_at=now)
        self._more.set()

    def note(self, *, new: bool) -> None:
        """Count a document that is not followed, but may have been added to the list."""
        self._created += new

    def leave(self) -> Sequence[UploadedDocument]:
        """Give up what is still followed."""
        active, self._active = self._active, {}
        return [each.sent for each in active.values()]

    async def run(self) -> None:
        """Look until cancelled, or until nothing moves any more (`stuck`).

        Raises:
            KnowledgeError: the server does not come back, or refuses.
        """
        wait = self._times.first
        while not self.stuck:
            if not self._active:
                self._more = anyio.Event()
                await self._more.wait()
                wait = self._times.first
            await anyio.sleep(wait)
            before = self._ended
            try:
                await self._look()
                await self._judge_stalls()
            except KnowledgeError as error:
                await self._failing(error)
                self._forgive()
            wait = self._next(wait, self._ended - before)

    def _forgive(self) -> None:
        """Begin to count anew: while the server was away nothing could be seen to move."""
        self.moved_at = anyio.current_time()
        for active in self._active.values():
            active.since = self.moved_at

    def _next(self, wait: float, ended: int) -> float:
        """Choose the next interval: for half of what is left, or `BATCH` documents, to end."""
        elapsed = anyio.current_time() - self._began
        shortest = max(self._times.first, LATE * elapsed)
        if not self._ended:
            longest = min(2 * wait, max(self._times.longest, LATE * elapsed))
            return max(shortest, min(longest, self._stall_after / 4))
        rate = max(self._ended / elapsed, ended / wait)
        ahead = min(BATCH, len(self._active) / 2) / rate
        return max(shortest, min(ahead, elapsed / 2, self._stall_after / 4))

    async def _look(self) -> None:
        await self._place()
        visited: set[int] = set()
        while (page := self._frontier(visited)) is not None:
            visited.add(page)
            if await self._visit(page):
                break
        stale = self._stale()
        if stale is not None and stale not in visited:
            await self._visit(stale)

    def _frontier(self, visited: set[int]) -> int | None:
        """Choose the page where ends are due: that of the oldest document that waits for a
        worker, or, when none waits, of the oldest.
        """
        pages = ((self._page_of(each), each.waits) for each in self._active.values())
        left = [(page, waits) for page, waits in pages if page is not None and page not in visited]
        return next((page for page, waits in left if waits), left[0][0] if left else None)

    def _stale(self) -> int | None:
        """Choose the page that was not seen for longest, if that is long."""
        active = min(self._active.values(), key=lambda each: each.seen_at, default=None)
        if active is None or active.seen_at > anyio.current_time() - self._loading.revisit:
            return None
        return self._page_of(active)

    def _page_of(self, active: _Active) -> int | None:
        return None if active.base is None else max(0, active.base + self._created) // PAGE

    async def _visit(self, page: int) -> bool:
        """Look at a page of the list, and tell whether any that stands there still waits."""
        group = [each for each in self._active.values() if self._page_of(each) == page]
        if len(group) == 1:
            await self._ask(group[0])
        else:
            listed = await self._documents.list(self._dataset_id, page=page + 1, limit=PAGE)
            self._read(listed.data, page * PAGE)
            there = {row.id for row in listed.data}
            await self._missed([each for each in group if each.sent.document_id not in there])
        return any(each.waits for each in group if each.sent.document_id in self._active)

    def _read(self, rows: Sequence[Document], first: int) -> None:
        """Take in rows of the list, and learn by how much it has shifted."""
        shifts: list[int] = []
        for place, row in enumerate(rows, first):
            if active := self._active.get(row.id):
                base = place - self._created
                shifts.append(0 if active.base is None else base - active.base)
                active.base = base
                self._seen(active, row)
        shift = statistics.median_low(shifts) if shifts else 0
        if shift:
            there = {row.id for row in rows}
            for document_id, active in self._active.items():
                if active.base is not None and document_id not in there:
                    active.base += shift

    async def _missed(self, missing: Sequence[_Active]) -> None:
        """Find those that do not stand where they were expected."""
        for active in missing:
            if len(missing) <= FEW:
                await self._ask(active)
            else:
                active.base = None

    async def _place(self) -> None:
        """Find those of which it is not known where they stand."""
        unplaced = {key for key, active in self._active.items() if active.base is None}
        if len(unplaced) <= FEW:
            for document_id in unplaced:
                await self._ask(self._active[document_id])
            return
        first = 0
        async for rows in self._documents.iter(self._dataset_id).pages():
            self._read(rows, first)
            first += len(rows)
            unplaced.difference_update(row.id for row in rows)
            if not unplaced:
                return
        for document_id in unplaced & self._active.keys():
            self._gone(self._active[document_id])

    def _seen(self, active: _Active, row: Document) -> None:
        active.seen_at = anyio.current_time()
        mine, theirs = active.sent.upload_file_id, row.upload_file
        if mine and theirs and theirs.id != mine:
            self._other(active, row)
            return
        active.missed = 0
        paused = row.display_status is DisplayStatus.PAUSED
        self._moved(active, IndexingStatus.PAUSED if paused else row.indexing_status)
        match row.indexing_status:
            case IndexingStatus.COMPLETED if row.word_count == 0:
                self._ended_as(active, Outcome.FAILED, NOTHING)
            case IndexingStatus.COMPLETED:
                self._ended_as(active, active.sent.done)
            case IndexingStatus.ERROR:
                self._failed(active, row.error)

    def _other(self, active: _Active, row: Document) -> None:
        """Judge a document that has another file than ours.

        A page from before our create tells of the old one, so one look is no proof.
        """
        active.missed += 1
        if active.missed < OTHERS or not row.indexing_status.final:
            return
        if row.upload_file and row.upload_file.size == active.sent.planned.found.size:
            active.sent = evolve(active.sent, warnings=(REPLACED,), upload_file_id=None)
            self._seen(active, row)
        else:
            self._ended_as(active, Outcome.FAILED, "another upload took its place meanwhile")

    async def _ask(self, active: _Active) -> None:
        """Ask for one document: by its batch, else by its name."""
        active.seen_at = anyio.current_time()
        if active.sent.batch is None:
            await self._ask_by_name(active)
            return
        try:
            statuses = await self._documents.indexing_status(self._dataset_id, active.sent.batch)
        except NotFoundError:
            # Whatever was uploaded after it under its name has given it another one.
            active.sent = evolve(active.sent, batch=None)
            await self._ask_by_name(active)
            return
        for status in statuses:
            if status.id == active.sent.document_id:
                self._answered(active, status)

    async def _ask_by_name(self, active: _Active) -> None:
        row = await self._lookup.named(active.sent.planned.name)
        if row is not None and row.id == active.sent.document_id:
            self._seen(active, row)
        else:
            self._gone(active)

    def _answered(self, active: _Active, status: DocumentStatus) -> None:
        active.missed = 0
        self._moved(active, status.indexing_status)
        if active.segments != status.completed_segments:
            active.segments = status.completed_segments
            active.since = self.moved_at = anyio.current_time()
        match status.indexing_status:
            case IndexingStatus.COMPLETED if status.total_segments == 0:
                self._ended_as(active, Outcome.FAILED, NOTHING)
            case IndexingStatus.COMPLETED:
                self._ended_as(active, active.sent.done)
            case IndexingStatus.ERROR:
                self._failed(active, status.error)

    def _moved(self, active: _Active, status: str) -> None:
        """Take in a status; only one that it did not have before is a movement.

        Of a paused document its batch and the list tell different ones, turn by turn.
        """
        active.status = status
        if status not in active.had:
            active.had.add(status)
            active.since = self.moved_at = anyio.current_time()

    def _gone(self, active: _Active) -> None:
        """End what two looks did not find: rows shift while others delete, so one is no proof."""
        active.missed += 1
        active.base = None
        if active.missed >= MISSES:
            reason = "deleted, or replaced by another upload, before it was indexed"
            self._ended_as(active, Outcome.FAILED, reason)

    async def _judge_stalls(self) -> None:
        if anyio.current_time() - self.moved_at > self._stall_after / 2:
            await self._look_elsewhere()
        for active in self._late()[:FEW]:
            await self._ask(active)  # a long document moves by its segments alone
            if active in self._late():
                reason = f"no progress for {_told(self._stall_after)} in status {active.status}"
                self._ended_as(active, Outcome.STALLED, reason)
        if self._active and anyio.current_time() - self.moved_at > self._stall_after:
            self.stuck = True
            for active in list(self._active.values()):
                self._ended_as(active, Outcome.STALLED, NOT_MOVING)

    def _late(self) -> list[_Active]:
        """Name those that a worker has begun and that did not move for `stall_after`."""
        before = anyio.current_time() - self._stall_after
        return [each for each in self._active.values() if each.since < before and not each.waits]

    async def _look_elsewhere(self) -> None:
        """See whether the queue moves, though none of the followed documents does."""
        waiting = await self._documents.list(self._dataset_id, status="queuing", limit=1)
        if self._queue is not None and waiting.total < self._queue:
            self.moved_at = anyio.current_time()
        elif self._queue is not None:
            self.becalmed()
        self._queue = waiting.total

    def _failed(self, active: _Active, error: str | None) -> None:
        reason = f"indexing failed: {error or 'the server gives no reason'}"
        self._ended_as(active, Outcome.FAILED, reason, error)

    def _ended_as(
        self,
        active: _Active,
        outcome: Outcome,
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        if self._active.pop(active.sent.document_id, None) is None:
            return  # it ended by the way, while others were looked for
        self._ended += 1
        index = anyio.current_time() - active.sent.accepted_at
        self._end(active.sent, active.sent.ended(outcome, reason=reason, error=error, index=index))


def _told(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 2 * 60 else f"{seconds:g} s"
