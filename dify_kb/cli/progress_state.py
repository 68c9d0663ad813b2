"""How far a load is, as its events tell it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from attrs import define, field

from dify_kb import Attempted, Outcome, Progress
from dify_kb.ingest import LoadEvent

FRESH = 60.0
"""Seconds for which trouble is told of: as long as a load pauses after a refusal at most."""

_TROUBLE = {
    "quota": "the server's rate limit holds uploads back (403)",
    "overload": "the server has too much to do ({status})",
}


@define
class ProgressState:
    """Counts what a load tells, for the display, and for when it is cut off without a report."""

    counts: Counter[Outcome] = field(factory=Counter)
    progress: Progress | None = None
    sent_ended: int = 0
    """Files that ended and went to the server, in this run or an earlier one."""

    _troubles: dict[str, tuple[float, Attempted]] = field(factory=dict)
    _clock: Callable[[], float] = field(default=time.monotonic, alias="clock")

    def add(self, event: LoadEvent) -> None:
        """Count it."""
        if isinstance(event, Progress):
            self.progress = event
            return
        self.counts[event.outcome] += 1
        self.sent_ended += event.attempts > 0 and event.outcome is not Outcome.UNCHANGED

    def record_attempt(self, event: Attempted) -> None:
        """Note whether an operation has trouble with the server."""
        if event.trouble is not None:
            self._troubles[event.endpoint] = (self._clock(), event)
        else:
            self._troubles.pop(event.endpoint, None)

    @property
    def wait_reason(self) -> str:
        """Why it waits or ends; nothing while it goes its way."""
        progress, trouble = self.progress, self._trouble()
        if progress is not None and progress.stopped is not None:
            return f"stopping ({progress.stopped}); uploads under way are finished"
        if progress is not None and progress.paused is not None:
            return f"waiting until the server is back: {progress.paused}"
        if trouble is not None:
            told = _TROUBLE.get(trouble.trouble or "", "{error}")
            return f"waiting: {told.format(status=trouble.status, error=trouble.error)}"
        if progress is not None and progress.settling:
            return f"{progress.settling:,} wait: looking what became of them on the server"
        return ""

    def to_dict(self) -> dict[str, object]:
        """Give the counts by their names, and how many were found and accepted."""
        progress = self.progress
        return {
            "found": progress.found if progress else 0,
            "accepted": progress.accepted if progress else 0,
            **{outcome: self.counts[outcome] for outcome in Outcome},
        }

    def __str__(self) -> str:
        if self.progress is None:
            return "Nothing was done yet."
        more = "" if self.progress.scanned else " and more"
        return (
            f"{self.progress.found:,} files found{more}: {self.progress.accepted:,} uploaded;"
            f" {format_counts(self.counts) or 'none ended yet'}."
        )

    def _trouble(self) -> Attempted | None:
        """Give the latest trouble that is not over."""
        recent = [one for one in self._troubles.values() if self._clock() - one[0] < FRESH]
        return max(recent, key=lambda one: one[0])[1] if recent else None


def format_counts(counts: Mapping[Outcome, int]) -> str:
    """Name the outcomes that there are, with their counts."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts[outcome])
