"""Limit the documents that are on the server and not indexed yet."""

from __future__ import annotations

from collections import Counter

import anyio
from attrs import define, field

SAMPLE_SIZE = 20
"""Ended documents by which a run is judged: a wrong embedding model fails every document."""

MIN_SUCCESSES = 5
"""Ended documents after which the server is known to index."""

PROBATION_LIMIT = 50
"""Documents that are sent before that, in total."""


@define
class EarlyFailures:
    """Failures among the first documents, which show whether indexing works at all.

    Uploads are held back until `MIN_SUCCESSES` documents have ended, or `SAMPLE_SIZE` if one of
    them failed. The run stops if half of `SAMPLE_SIZE` failed for one reason, or all for any.
    """

    ended: int = 0
    _reasons: Counter[str] = field(factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether the server is not known to index yet."""
        return self.ended < MIN_SUCCESSES or (bool(self._reasons) and self.ended < SAMPLE_SIZE)

    def end(self, error: str | None) -> str | None:
        """Count a document that ended; return the reason to stop, if there is one now."""
        self.ended += 1
        if error is not None:
            self._reasons[error] += 1
        if self.ended != SAMPLE_SIZE or not self._reasons:
            return None
        reason, count = self._reasons.most_common(1)[0]
        everything = self._reasons.total() == SAMPLE_SIZE
        return reason if everything or count * 2 >= SAMPLE_SIZE else None


@define
class Backlog:
    """A limit for documents that are not indexed yet: low at first, then `most`."""

    _most: int
    follows: bool
    """Whether documents are followed until their indexing ends."""

    early_failures: EarlyFailures = field(factory=EarlyFailures)
    _taken: int = 0
    """Documents of this run that are on the server or being sent, and not indexed."""

    _before: int = 0
    """Documents of earlier runs. A worker that died has left them unfinished for ever."""

    _forgotten: bool = False
    _room: anyio.Event | None = None
    """Set when there may be room; None while nobody waits."""

    async def enter(self) -> None:
        """Wait until there is room for a document, and count it."""
        while self._full():
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self.take(sent=True)

    def take(self, *, sent: bool) -> None:
        """Count a document that is on the server already; `sent` by this run, or before."""
        self._count(1, sent=sent)

    def leave(self, *, sent: bool) -> None:
        """Return the room of a document that ended, or was not sent after all."""
        self._count(-1, sent=sent)
        self._wake()

    def forget(self) -> None:
        """Stop counting documents of earlier runs, as none of them moves."""
        self._forgotten = True
        self._wake()

    def _count(self, change: int, *, sent: bool) -> None:
        self._taken += change * sent
        self._before += change * (not sent)

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _full(self) -> bool:
        held = self.follows and self.early_failures.holds
        there = self._taken + (0 if self._forgotten else self._before)
        # Documents that are lost or deleted are not judged, and must not keep room for ever.
        judged = self.early_failures.ended
        return there >= self._most or (held and self._taken + judged >= PROBATION_LIMIT)
