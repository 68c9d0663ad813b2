"""Follow accepted documents until indexing finishes. The only module that polls.

Workers take documents nearly in the order of their creates, and the list is in that order too. So
the next ends are to be expected where the oldest of the followed documents stand, and one page
there tells of up to 100.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve

from dify_kb.config import Loading, Watch
from dify_kb.errors import NotFoundError
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import FEW, DocumentLookup
from dify_kb.ingest.report import StopReason
from dify_kb.resources import Documents

from .followed_documents import PAGE, FollowedDocument, FollowedDocuments
from .lifecycle import FileLifecycle
from .observe_indexing import IndexingObserver
from .stalls import StallDetector
from .states import FileEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import Document

BATCH = 50
"""Ends to wait for before the next look, when they come steadily."""

LATE = 0.025
"""Part of the time so far that two looks are apart at least: the last end is noticed within a
twentieth of the whole."""


@define
class IndexingWatcher:
    """Follows accepted documents by pages of the list, until none is left.

    Costs a page for some 50 documents that end, at intervals that follow the server's speed, and
    never more than one for each 2.5 % of the time so far.
    """

    documents: Documents
    dataset_id: str
    times: Watch
    loading: Loading
    lookup: DocumentLookup
    breaker: CircuitBreaker
    stalls: StallDetector
    observer: IndexingObserver
    files: FileLifecycle

    @property
    def _followed(self) -> FollowedDocuments:
        return self.files.followed

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            KnowledgeError: the server refused, or was given up.
        """
        wait = self.times.first
        while True:
            if not self._followed:
                await self._followed.wait()
                wait = self.times.first
            await anyio.sleep(wait)
            ended, outages = self._followed.ended, self.breaker.outages
            await self.breaker.read(self._look)
            if self.breaker.outages != outages or not self.breaker.is_closed:
                self._restart_clocks()
            else:
                await self.breaker.read(self._judge_stalls)
            wait = self._next_wait(wait, self._followed.ended - ended)

    def _restart_clocks(self) -> None:
        """Count anew: while the server was away, or its lock held, nothing could move."""
        now = self._followed.activity.moved_at = anyio.current_time()
        for followed in self._followed:
            followed.since = now

    def _next_wait(self, wait: float, ended: int) -> float:
        """Return the next interval: for half of what is left, or `BATCH` documents, to end."""
        followed, longest_look = self._followed, self.stalls.stall_after / 4
        elapsed = anyio.current_time() - followed.began
        shortest = max(self.times.first, LATE * elapsed)
        if not followed.ended:
            longest = min(2 * wait, max(self.times.longest, LATE * elapsed))
            return max(shortest, min(longest, longest_look))
        rate = max(followed.ended / max(elapsed, 1e-9), ended / wait)
        ahead = min(BATCH, len(followed) / 2) / rate
        return max(shortest, min(ahead, elapsed / 2, longest_look))

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
        for followed in [each for each in self._followed if each.to_confirm][:FEW]:
            followed.to_confirm = False
            await self._ask(followed)

    def _frontier(self, visited: set[int]) -> int | None:
        """Choose the page where ends are due: that of the oldest document that waits for a
        worker, or, when none waits, of the oldest.
        """
        pages = ((self._followed.page_of(each), each.waits) for each in self._followed)
        left = [(page, waits) for page, waits in pages if page is not None and page not in visited]
        return next((page for page, waits in left if waits), left[0][0] if left else None)

    def _stale(self) -> int | None:
        """Choose the page that was not seen for longest, if that is long."""
        followed = min(self._followed, key=lambda each: each.seen_at, default=None)
        if followed is None or followed.seen_at > anyio.current_time() - self.loading.revisit:
            return None
        return self._followed.page_of(followed)

    async def _visit(self, page: int) -> bool:
        """Look at a page of the list; return whether any that stands there still waits."""
        group = [each for each in self._followed if self._followed.page_of(each) == page]
        if len(group) == 1:
            await self._ask(group[0])
        else:
            listed = await self.documents.list(self.dataset_id, page=page + 1, limit=PAGE)
            self._read(listed.data, page * PAGE)
            there = {row.id for row in listed.data}
            missing = [each for each in group if each.document.id not in there]
            for followed in missing:
                if len(missing) <= FEW:
                    await self._ask(followed)
                else:
                    followed.base = None
        return any(each.waits for each in group if self._followed.get(each.document.id))

    def _read(self, rows: Sequence[Document], first: int) -> None:
        """Take in rows of the list, and learn by how much it has shifted."""
        shifts: list[int] = []
        for place, row in enumerate(rows, first):
            if followed := self._followed.get(row.id):
                base = place - self._followed.activity.added.count
                shifts.append(0 if followed.base is None else base - followed.base)
                followed.base = base
                self.observer.see_row(followed, row)
        shift = statistics.median_low(shifts) if shifts else 0
        if shift:
            there = {row.id for row in rows}
            for followed in self._followed:
                if followed.base is not None and followed.document.id not in there:
                    followed.base += shift

    async def _place(self) -> None:
        """Find those of which it is not known where they stand.

        A list may come from a cache, so what it does not show is asked for, some in each look.
        """
        unplaced = [followed for followed in self._followed if followed.base is None]
        if len(unplaced) > FEW:
            first, missing = 0, {followed.document.id for followed in unplaced}
            async for rows in self.documents.iter(self.dataset_id).pages():
                self._read(rows, first)
                first += len(rows)
                missing.difference_update(row.id for row in rows)
                if not missing:
                    return
        unplaced = [followed for followed in self._followed if followed.base is None]
        for followed in sorted(unplaced, key=lambda each: each.seen_at)[:FEW]:
            await self._ask(followed)

    async def _ask(self, followed: FollowedDocument) -> None:
        """Ask for one document: by its batch, else by its name."""
        followed.seen_at = anyio.current_time()
        if followed.document.batch is None:
            await self._ask_by_name(followed)
            return
        try:
            statuses = await self.documents.indexing_status(
                self.dataset_id, followed.document.batch
            )
        except NotFoundError:
            # Whatever was uploaded after it under its name has given it another one.
            followed.document = evolve(followed.document, batch=None)
            followed.file.document = followed.document
            await self._ask_by_name(followed)
            return
        for status in statuses:
            if status.id == followed.document.id:
                self.observer.see_status(followed, status)

    async def _ask_by_name(self, followed: FollowedDocument) -> None:
        row = await self.lookup.named(followed.file.planned.name)
        if row is not None and row.id == followed.document.id:
            self.observer.see_row(followed, row)
            return
        followed.base = None
        self.observer.miss(followed)

    async def _judge_stalls(self) -> None:
        if self._followed and self.stalls.is_quiet and not await self.stalls.look_elsewhere():
            self.files.backlog.forget()
        for followed in [each for each in self._followed if self.stalls.is_late(each)][:FEW]:
            await self._ask(followed)  # a long document moves by its segments alone
            if self.stalls.is_late(followed):
                self.observer.end(followed, FileEvent.STALLED, self.stalls.describe(followed))
        if self._followed and self.stalls.is_still:
            self._stop_still()

    def _stop_still(self) -> None:
        """End all that stand still: those that were lost, and those that nobody indexes."""
        message = self.stalls.describe_still()
        stops = False
        for followed in self._followed:
            stops = stops or not (
                followed.file.planned.stalled_before or self.stalls.is_passed_over(followed)
            )
            self.observer.end(followed, FileEvent.STALLED, self.stalls.describe(followed))
        if stops:
            self.files.stop(StopReason.NOT_INDEXING, message, abandon=True)
