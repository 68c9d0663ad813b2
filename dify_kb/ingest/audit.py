"""What "verified" means: every document was looked at once more after everything had ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import evolve, frozen

from dify_kb.errors import NotFoundError
from dify_kb.models import Dataset, DocumentStatus, IndexingStatus
from dify_kb.resources import Documents

from .journal import Journal
from .remote import Remote
from .report import ItemResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

AT_ONCE = 4
"""Status calls in flight."""


@frozen
class Audit:
    """Looks at the list once, and asks for each document that this run sent.

    Costs a request per 100 documents of the base and one for each document that was sent.
    """

    _journal: Journal
    _documents: Documents
    _dataset: Dataset

    async def run(self, tell: Callable[[ItemResult], None]) -> None:
        """Judge all results that are held.

        Raises:
            KnowledgeError: the server failed, so that what is not told yet is not verified.
        """
        await self._journal.flush()
        await anyio.to_thread.run_sync(self._journal.forget_remote)
        async for rows in self._documents.iter(self._dataset).pages():
            noted = [(row.name, Remote.of(row)) for row in rows]
            await anyio.to_thread.run_sync(self._journal.note_remote, noted)
        held = self._journal.held()
        while (results := await anyio.to_thread.run_sync(next, held, None)) is not None:
            for result in await self._judged(results):
                tell(result)

    async def _judged(self, results: Sequence[ItemResult]) -> Sequence[ItemResult]:
        present, twins = await anyio.to_thread.run_sync(self._listed, results)
        limiter = anyio.CapacityLimiter(AT_ONCE)
        judged = list(results)

        async def judge(place: int, result: ItemResult) -> None:
            reason = _listed(present.get(result.document_id or ""))
            if reason is None and result.batch and result.outcome is not Outcome.UNCHANGED:
                async with limiter:
                    reason = await self._segments(result.document_id, result.batch)
            if reason is not None:
                judged[place] = evolve(result, outcome=Outcome.FAILED, reason=reason, error=reason)
            elif number := twins.get(result.name or ""):
                warning = f"{number} documents have its name"
                judged[place] = evolve(result, warnings=(*result.warnings, warning))

        async with anyio.create_task_group() as group:
            for place, result in enumerate(results):
                if result.outcome is not Outcome.SKIPPED:
                    group.start_soon(judge, place, result)
        return judged

    def _listed(
        self, results: Sequence[ItemResult]
    ) -> tuple[Mapping[str, Remote], Mapping[str, int]]:
        ids = [result.document_id for result in results if result.document_id]
        names = [result.name for result in results if result.name]
        return self._journal.remote_by_id(ids), self._journal.twins(names)

    async def _segments(self, document_id: str | None, batch: str) -> str | None:
        try:
            statuses = await self._documents.indexing_status(self._dataset.id, batch)
        except NotFoundError:
            return "another upload took its place"
        return next(
            (_complete(status) for status in statuses if status.id == document_id),
            "the server does not tell of it",
        )


def _listed(remote: Remote | None) -> str | None:
    if remote is None:
        return "it is not in the knowledge base"
    if not remote.enabled:
        return "it is disabled"
    if remote.status is not IndexingStatus.COMPLETED:
        return f"it is not indexed: {remote.status}"
    return None


def _complete(status: DocumentStatus) -> str | None:
    done, total = status.completed_segments, status.total_segments
    if done == total:
        return None
    return f"{done} of its {total} segments are complete: it may have been indexed twice at once"
