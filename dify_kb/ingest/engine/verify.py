"""Verify documents after a run: list all documents, check the segments of sent documents."""

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
"""Maximum number of concurrent status requests."""


NOT_VERIFIED = "indexed; not verified before the run stopped"


@define
class Verifier:
    """Verifier of the documents of a run.

    Costs one request per 100 documents of the dataset and one per sent document. After the first
    failure of the server, no more requests are made and unverified files are pending.
    """

    _journal: Journal
    _documents: Documents
    _dataset: Dataset
    _ledger: Ledger
    _failed: KnowledgeError | None = None

    async def run(self) -> None:
        """Verify all results held for verification.

        Raises:
            KnowledgeError: the server failed. The results are recorded before that.
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
            named_documents = [(row.name, RemoteDocument.from_document(row)) for row in rows]
            await anyio.to_thread.run_sync(self._journal.documents.add, named_documents)

    async def _verify_batch(self, results: Sequence[ItemResult]) -> Sequence[ItemResult]:
        present, twins = await anyio.to_thread.run_sync(self._read_documents, results)
        limiter = anyio.CapacityLimiter(MAX_CONCURRENT_REQUESTS)
        verified = list(results)

        async def verify(index: int, result: ItemResult) -> None:
            reason = _check_document(present.get(result.document_id or ""))
            async with limiter:
                if reason is None and self._failed is None and _was_sent(result):
                    reason = await self._request_segments(result.document_id, str(result.batch))
            if self._failed is not None:
                verified[index] = evolve(result, outcome=Outcome.PENDING, reason=NOT_VERIFIED)
            elif reason is not None:
                verified[index] = evolve(
                    result, outcome=Outcome.FAILED, reason=reason, error=reason
                )
            elif number := twins.get(result.name or ""):
                warning = f"{number} documents share this name"
                verified[index] = evolve(result, warnings=(*result.warnings, warning))

        async with anyio.create_task_group() as group:
            for index, result in enumerate(results):
                if result.outcome is not Outcome.SKIPPED:
                    group.start_soon(verify, index, result)
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
            "missing from the indexing status of its batch",
        )


def _was_sent(result: ItemResult) -> bool:
    """Return whether this run sent the file, so that its batch contains the segment counts."""
    return result.batch is not None and result.outcome is not Outcome.UNCHANGED


def _check_document(remote: RemoteDocument | None) -> str | None:
    if remote is None:
        return "document not found in the dataset"
    if not remote.enabled:
        return "document is disabled"
    if remote.status is not IndexingStatus.COMPLETED:
        return f"not indexed (status {str(remote.status)!r})"
    return None


def _check_segments(status: DocumentStatus) -> str | None:
    done, total = status.completed_segments, status.total_segments
    if done == total:
        return None
    return f"{done} of {total} segments indexed: two indexing runs may have overlapped"
