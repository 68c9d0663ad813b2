"""Limit the number of uploaded documents that are not indexed yet."""

from __future__ import annotations

from collections import Counter

import anyio
from attrs import define, field

SAMPLE_SIZE = 20
"""Number of finished documents after which the run may stop if all failed, e.g. because of a wrong
embedding model."""

MIN_SUCCESSES = 5
"""Number of documents that must be indexed, without a failure, to prove that indexing works."""

PROBATION_LIMIT = 50
"""Maximum number of documents sent before it is known whether indexing works."""


@define
class EarlyFailures:
    """Failures among the first documents, which show whether indexing works at all.

    Uploads are held back until `MIN_SUCCESSES` documents have finished, or `SAMPLE_SIZE` documents
    if any of them failed. The run stops if half of `SAMPLE_SIZE` failed for the same reason, or all
    failed for any reasons.
    """

    ended: int = 0
    _reasons: Counter[str] = field(factory=Counter)

    @property
    def holds_uploads(self) -> bool:
        """Whether uploads are held back because it is not known yet whether the server indexes."""
        return self.ended < MIN_SUCCESSES or (bool(self._reasons) and self.ended < SAMPLE_SIZE)

    def record_end(self, error: str | None) -> str | None:
        """Count a finished document; return the reason to stop the run, if any."""
        self.ended += 1
        if error is not None:
            self._reasons[error] += 1
        if self.ended != SAMPLE_SIZE or not self._reasons:
            return None
        reason, count = self._reasons.most_common(1)[0]
        everything = self._reasons.total() == SAMPLE_SIZE
        return reason if everything or count * 2 >= SAMPLE_SIZE else None


@define
class IndexingBacklog:
    """Limit of documents not indexed yet: `PROBATION_LIMIT` at first, then `max_documents`."""

    _max_documents: int
    follows: bool
    """Whether documents are followed until their indexing ends."""

    early_failures: EarlyFailures = field(factory=EarlyFailures)
    _of_this_run: int = 0
    """Documents of this run that are uploaded or being sent, and not indexed yet."""

    _of_earlier_runs: int = 0
    """Documents of earlier runs. If a worker was killed, they may never finish."""

    _ignores_earlier_runs: bool = False
    _space_available: anyio.Event | None = None
    """Set when the backlog may have space; None while no task waits."""

    async def acquire(self) -> None:
        """Wait until the backlog has space for a document, and count the document."""
        while self._is_full():
            self._space_available = self._space_available or anyio.Event()
            await self._space_available.wait()
        self.add(sent=True)

    def add(self, *, sent: bool) -> None:
        """Count an uploaded document; `sent` is whether this run sent it, not an earlier run."""
        self._count(1, sent=sent)

    def release(self, *, sent: bool) -> None:
        """Stop counting a document that finished or was not sent after all."""
        self._count(-1, sent=sent)
        self._wake()

    def forget_earlier_runs(self) -> None:
        """Stop counting documents of earlier runs, because none makes progress."""
        self._ignores_earlier_runs = True
        self._wake()

    def _count(self, change: int, *, sent: bool) -> None:
        self._of_this_run += change * sent
        self._of_earlier_runs += change * (not sent)

    def _wake(self) -> None:
        if self._space_available is not None:
            self._space_available.set()
            self._space_available = None

    def _is_full(self) -> bool:
        is_held = self.follows and self.early_failures.holds_uploads
        document_count = self._of_this_run + (
            0 if self._ignores_earlier_runs else self._of_earlier_runs
        )
        # Lost and deleted documents never count as finished, and must not be counted forever.
        finished = self.early_failures.ended
        return document_count >= self._max_documents or (
            is_held and self._of_this_run + finished >= PROBATION_LIMIT
        )
