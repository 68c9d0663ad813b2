"""Limit the number of uploaded documents that are not indexed yet."""

from __future__ import annotations

from collections import Counter

import anyio
from attrs import define, field

SAMPLE_SIZE = 20
"""Finished documents that decide whether the run stops: a wrong embedding model fails them all."""

MIN_SUCCESSES = 5
"""Finished documents, none of them failed, that show that the server indexes."""

PROBATION_LIMIT = 50
"""Maximum number of documents sent before that."""


@define
class EarlyFailures:
    """Failures among the first documents, which show whether indexing works at all.

    Uploads are held back until `MIN_SUCCESSES` documents have ended, or `SAMPLE_SIZE` if one of
    them failed. The run stops if half of `SAMPLE_SIZE` failed for one reason, or all for any.
    """

    ended: int = 0
    _reasons: Counter[str] = field(factory=Counter)

    @property
    def holds_uploads(self) -> bool:
        """Whether uploads are held back: it is not yet known that the server indexes."""
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
    """Limit of documents that are not indexed yet: `PROBATION_LIMIT` at first, then `most`."""

    _most: int
    follows: bool
    """Whether documents are followed until their indexing ends."""

    early_failures: EarlyFailures = field(factory=EarlyFailures)
    _taken: int = 0
    """Documents of this run that are uploaded or being sent, and not indexed."""

    _before: int = 0
    """Documents of earlier runs. A worker that died may have left them unfinished for good."""

    _forgotten: bool = False
    _room: anyio.Event | None = None
    """Set when there may be room; None while no task waits."""

    async def acquire(self) -> None:
        """Wait until there is room for a document, and count it."""
        while self._is_full():
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self.add(sent=True)

    def add(self, *, sent: bool) -> None:
        """Count a document that is already uploaded; `sent` by this run or an earlier one."""
        self._count(1, sent=sent)

    def release(self, *, sent: bool) -> None:
        """Free the place of a document that finished or was not sent after all."""
        self._count(-1, sent=sent)
        self._wake()

    def forget_earlier_runs(self) -> None:
        """Stop counting documents of earlier runs, none of which makes progress."""
        self._forgotten = True
        self._wake()

    def _count(self, change: int, *, sent: bool) -> None:
        self._taken += change * sent
        self._before += change * (not sent)

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _is_full(self) -> bool:
        held = self.follows and self.early_failures.holds_uploads
        there = self._taken + (0 if self._forgotten else self._before)
        # Lost and deleted documents never count as ended, and must not occupy a place for good.
        judged = self.early_failures.ended
        return there >= self._most or (held and self._taken + judged >= PROBATION_LIMIT)
