"""Verify documents after the run: list all, check the segments of those sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, evolve

from dify_kb.errors import KnowledgeError, NotFoundError
from dify_kb.ingest.journal import Journal
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import Dataset, DocumentStatus, IndexingStatus
from dify_kb.resources import Documents

from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CONCURRENT_REQUESTS = 4
"""Concurrent status requests."""


NOT_VERIFIED = "indexed; the run stopped before it was verified"


@define
class Verifier:
    """Verifier of the documents of a run.

    Takes one request per 100 documents of the dataset and one per document sent. After the first
    failure of the server no more requests are made, and unverified files are pending.
    """

    _journal: Journal
    _documents: Documents
    _dataset: Dataset
    _ledger: Ledger
    _failed: KnowledgeError | None = None

    async def run(self) -> None:
        """Verify all results held for verification.

        Raises:
            KnowledgeError: the server failed. The results are recorded nevertheless.
        """
        await self._journal.flush()
        try:
            await self._read_list()
        except KnowledgeError as error:
            self._failed = error
        held = self._journal.results.iter_held()
        while (results := await anyio.to_thread.run_sync(next, held, None)) is not None:
            for result in await self._verify_batch(results):
                self._ledger.record_verified_result(result)
        if self._failed is not None:
            raise self._failed

    async def _read_list(self) -> None:
        await anyio.to_thread.run_sync(self._journal.documents.clear)
        async for rows in self._documents.iter(self._dataset).pages():
            noted = [(row.name, RemoteDocument.from_document(row)) for row in rows]
            await anyio.to_thread.run_sync(self._journal.documents.add, noted)

    async def _verify_batch(self, results: Sequence[ItemResult]) -> Sequence[ItemResult]:
        present, twins = await anyio.to_thread.run_sync(self._read_documents, results)
        limiter = anyio.CapacityLimiter(MAX_CONCURRENT_REQUESTS)
        verified = list(results)

        async def verify(place: int, result: ItemResult) -> None:
            reason = _check_document(present.get(result.document_id or ""))
            async with limiter:
                if reason is None and self._failed is None and _was_sent(result):
                    reason = await self._request_segments(result.document_id, str(result.batch))
            if self._failed is not None:
                verified[place] = evolve(result, outcome=Outcome.PENDING, reason=NOT_VERIFIED)
            elif reason is not None:
                verified[place] = evolve(
                    result, outcome=Outcome.FAILED, reason=reason, error=reason
                )
            elif number := twins.get(result.name or ""):
                warning = f"{number} documents share this name"
                verified[place] = evolve(result, warnings=(*result.warnings, warning))

        async with anyio.create_task_group() as group:
            for place, result in enumerate(results):
                if result.outcome is not Outcome.SKIPPED:
                    group.start_soon(verify, place, result)
        return verified

    def _read_documents(
        self, results: Sequence[ItemResult]
    ) -> tuple[Mapping[str, RemoteDocument], Mapping[str, int]]:
        ids = [result.document_id for result in results if result.document_id]
        names = [result.name for result in results if result.name]
        return self._journal.documents.find_by_id(ids), self._journal.documents.count_duplicates(
            names
        )

    async def _request_segments(self, document_id: str | None, batch: str) -> str | None:
        try:
            statuses = await self._documents.indexing_status(self._dataset.id, batch)
        except NotFoundError:
            return "replaced by another upload"
        except KnowledgeError as error:
            self._failed = self._failed or error
            return None
        return next(
            (_check_segments(status) for status in statuses if status.id == document_id),
            "missing from the batch status",
        )


def _was_sent(result: ItemResult) -> bool:
    """Return whether this run sent the file, so that its batch has the status of its segments."""
    return result.batch is not None and result.outcome is not Outcome.UNCHANGED


def _check_document(remote: RemoteDocument | None) -> str | None:
    if remote is None:
        return "not in the dataset"
    if not remote.enabled:
        return "disabled"
    if remote.status is not IndexingStatus.COMPLETED:
        return f"not indexed: {remote.status}"
    return None


def _check_segments(status: DocumentStatus) -> str | None:
    done, total = status.completed_segments, status.total_segments
    if done == total:
        return None
    return f"{done} of {total} segments indexed: two indexing runs may have overlapped"
