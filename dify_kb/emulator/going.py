from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

from attrs import define

from .history import History, RunEvent
from .store import DocumentRow

if TYPE_CHECKING:
    from .clock import Clock


@define(eq=False)
class Started:
    """A run that is going."""

    run: int
    row: DocumentRow
    overlapping: int
    chunks: int = 0


class Going:
    """The runs that are going, told to the history as they start and end."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._numbers = itertools.count(1)
        self._going: defaultdict[str, list[Started]] = defaultdict(list)

    def start(self, row: DocumentRow) -> Started:
        """Begin a run; it overlaps with those of its document that are going."""
        others = self._going[row.id]
        started = Started(next(self._numbers), row, len(others))
        for other in others:
            other.overlapping += 1
        others.append(started)
        self._tell("started", started, None)
        return started

    def end(self, started: Started, status: str) -> None:
        """End a run with what it left."""
        others = self._going[started.row.id]
        others.remove(started)
        if not others:
            del self._going[started.row.id]
        self._tell("ended", started, status)

    def _tell(self, kind: str, started: Started, status: str | None) -> None:
        row = started.row
        self._history.add_run(
            RunEvent(
                kind=kind,
                run=started.run,
                at=self._clock.now(),
                dataset_id=row.dataset_id,
                document_id=row.id,
                document=row.name,
                file_id=row.file_id,
                overlapping=started.overlapping,
                status=status,
                chunks=started.chunks,
            )
        )
