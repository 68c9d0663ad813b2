"""Planned files become documents; the only room that settles a create without an answer."""

from __future__ import annotations

import anyio
from attrs import define, field, frozen

from dify_kb.config import Watch
from dify_kb.errors import KnowledgeError, OutcomeUnknownError
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    Document,
    DocumentCreated,
    ProcessRule,
    Unset,
)
from dify_kb.resources import Documents

from .plan import Planned
from .report import ItemResult, Outcome


@frozen(kw_only=True)
class Sent:
    """An accepted document. `batch` is None when its answer was lost and it was found by name."""

    planned: Planned
    document_id: str
    batch: str | None
    upload_file_id: str | None
    seconds: float
    accepted_at: float
    reconciled: bool = False

    @property
    def done(self) -> Outcome:
        """Its outcome when all goes well."""
        return Outcome.ADDED if self.planned.replaces is None else Outcome.UPDATED

    def ended(
        self,
        outcome: Outcome,
        *,
        reason: str | None = None,
        error: str | None = None,
        index: float | None = None,
    ) -> ItemResult:
        """Tell how it ended."""
        timings = {"upload": self.seconds}
        return ItemResult(
            key=self.planned.found.key,
            name=self.planned.name,
            outcome=outcome,
            reason=reason,
            document_id=self.document_id,
            batch=self.batch,
            size=self.planned.found.size,
            attempts=1,
            reconciled=self.reconciled,
            error=error,
            timings=timings if index is None else {**timings, "index": index},
        )


def not_sent(planned: Planned, outcome: Outcome, reason: str, *, attempts: int = 0) -> ItemResult:
    """End a planned file that is not on the server, or not known to be."""
    return ItemResult(
        key=planned.found.key,
        name=planned.name,
        outcome=outcome,
        reason=reason,
        size=planned.found.size,
        attempts=attempts,
        error=reason,
    )


@define
class Uploader:
    """Sends one planned file at a time for each of its callers.

    The process rule goes with the first document alone: each further one that carries it makes
    the server store the rule again (dataset_service, 1.12.1).
    """

    _documents: Documents
    _dataset: Dataset
    _rule: ProcessRule | Unset
    _doc_form: DocForm | Unset
    _times: Watch
    _patience: float
    _first: anyio.Lock = field(factory=anyio.Lock)
    _ruled: anyio.Event = field(factory=anyio.Event)

    async def send(self, planned: Planned) -> Sent | ItemResult:
        """Create the document of one file.

        Raises:
            KnowledgeError: the server or the way to it failed, or refused.
        """
        if planned.replaces is not None and not planned.replaces.final:
            ended = await self._finished(planned.name)
            if not ended:
                reason = "its document is still being indexed by an earlier upload"
                return not_sent(planned, Outcome.FAILED, reason)
        started = anyio.current_time()
        try:
            created = await self._created(planned)
        except OutcomeUnknownError as error:
            return await self._settled(planned, started, error)
        return self._accepted(planned, started, created.document, created.batch)

    async def _created(self, planned: Planned) -> DocumentCreated:
        if self._ruled.is_set():
            return await self._create(planned, UNSET)
        async with self._first:
            created = await self._create(planned, UNSET if self._ruled.is_set() else self._rule)
            self._ruled.set()
        return created

    async def _create(self, planned: Planned, rule: ProcessRule | Unset) -> DocumentCreated:
        return await self._documents.create_by_file(
            self._dataset.id,
            planned.found.path,
            name=planned.name,
            indexing_technique=self._dataset.indexing_technique or UNSET,
            doc_form=self._doc_form or self._dataset.doc_form or UNSET,
            process_rule=rule,
        )

    async def _settled(
        self, planned: Planned, started: float, error: KnowledgeError
    ) -> Sent | ItemResult:
        """Look for a document whose create was not answered; never send it a second time.

        A second create while the first is being indexed doubles its chunks (measured).
        """
        before = planned.replaces.upload_file_id if planned.replaces else None
        for delay in self._times.settle:
            await anyio.sleep(delay)
            document = await self._named(planned.name)
            file = document.upload_file if document else None
            if document and file and file.id != before:
                return self._accepted(planned, started, document, None)
        return not_sent(planned, Outcome.UNKNOWN, error.summary, attempts=1)

    async def _finished(self, name: str) -> bool:
        """Wait until a document of ours that is being replaced is not indexed any more."""
        delay, until = self._times.first, anyio.current_time() + self._patience
        while anyio.current_time() < until:
            document = await self._named(name)
            if document is None or document.indexing_status.final:
                return True
            await anyio.sleep(delay)
            delay = min(delay * self._times.growth, self._times.longest)
        return False

    async def _named(self, name: str) -> Document | None:
        pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        page = await self._documents.list(self._dataset.id, keyword=pattern, limit=100)
        rows = [row for row in page.data if row.name == name]
        return next((row for row in rows if row.enabled), rows[0] if rows else None)

    def _accepted(
        self, planned: Planned, started: float, document: Document, batch: str | None
    ) -> Sent:
        now = anyio.current_time()
        return Sent(
            planned=planned,
            document_id=document.id,
            batch=batch,
            upload_file_id=document.upload_file.id if document.upload_file else None,
            seconds=now - started,
            accepted_at=now,
            reconciled=batch is None,
        )
