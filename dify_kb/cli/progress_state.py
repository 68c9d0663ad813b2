"""Track the progress of a load from its events."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from attrs import define, field

from dify_kb import AttemptEvent, Outcome, Progress
from dify_kb.ingest import LoadEvent

TROUBLE_EXPIRES = 60.0
"""Seconds after which a failed request is no longer shown: the longest pause after a refusal."""

SILENCE = 10.0
"""Seconds without a response, with uploads in flight, after which that is shown."""

WINDOW = 15.0
"""Seconds over which rates are measured."""

_TROUBLE = {
    "quota": "the server's rate limit rejects uploads (403)",
    "overload": "the server is overloaded ({status})",
}


@define
class RateMeter:
    """Measure the rate of a growing count over the last `WINDOW` seconds."""

    _samples: deque[tuple[float, int]] = field(factory=deque)

    def record(self, now: float, count: int) -> None:
        """Record the count at a time; one sample a second is kept."""
        if not self._samples or now - self._samples[-1][0] >= 1:
            self._samples.append((now, count))
        else:
            self._samples[-1] = (self._samples[-1][0], count)
        # One sample from before the window stays: the count at its beginning.
        while len(self._samples) > 1 and now - self._samples[1][0] > WINDOW:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Return the increase per second; 0 if the count did not grow within the window."""
        samples = tuple(self._samples)  # a display reads this in a thread of its own
        if not samples:
            return 0.0
        before = (sample for sample in reversed(samples) if now - sample[0] >= WINDOW)
        since, count = next(before, samples[0])
        return (samples[-1][1] - count) / max(now - since, 1.0)


@define
class ProgressState:
    """The progress of a load, for its display and for the line that is printed if it is cut off."""

    counts: Counter[Outcome] = field(factory=Counter)
    progress: Progress | None = None
    sent_ended: int = 0
    """Files that were sent, in this run or an earlier one, and have an outcome."""

    _uploads: RateMeter = field(factory=RateMeter, init=False)
    _indexed: RateMeter = field(factory=RateMeter, init=False)
    _troubles: dict[str, tuple[float, AttemptEvent]] = field(factory=dict)
    _last_response: float | None = field(default=None, init=False)
    _clock: Callable[[], float] = field(default=time.monotonic, alias="clock")

    def add(self, event: LoadEvent) -> None:
        """Record an event of the load."""
        now = self._clock()
        if isinstance(event, Progress):
            self.progress = event
            self._uploads.record(now, event.accepted)
        else:
            self.counts[event.outcome] += 1
            self.sent_ended += event.attempts > 0 and event.outcome is not Outcome.UNCHANGED
        self._indexed.record(now, self.sent_ended)

    def record_attempt(self, event: AttemptEvent) -> None:
        """Record whether an endpoint answers as it should."""
        self._last_response = self._clock()
        if event.failure_kind is not None:
            self._troubles[event.endpoint] = (self._clock(), event)
        else:
            self._troubles.pop(event.endpoint, None)

    @property
    def upload_rate(self) -> float:
        """Accepted uploads per second, lately."""
        return self._uploads.rate(self._clock())

    @property
    def index_rate(self) -> float:
        """Sent files per second that got an outcome, lately."""
        return self._indexed.rate(self._clock())

    @property
    def total(self) -> int | None:
        """The number of files of the load; None while it is not known."""
        progress = self.progress
        if progress is None or progress.scanned:
            return progress.found if progress else None
        # Files may be created after they were counted.
        return None if progress.total is None else max(progress.total, progress.found)

    @property
    def to_send(self) -> int | None:
        """The number of files to send, as far as is known; None while `total` is not."""
        progress, total = self.progress, self.total
        if progress is None or total is None:
            return None
        return progress.to_send if progress.scanned else total - progress.ended + self.sent_ended

    @property
    def wait_reason(self) -> str:
        """Why the load waits or ends; empty while it proceeds."""
        progress, trouble = self.progress, self._latest_trouble()
        if progress is not None and progress.stopped is not None:
            return f"stopping ({progress.stopped}); finishing uploads in flight"
        if progress is not None and progress.paused is not None:
            return f"waiting for the server: {progress.paused}"
        if trouble is not None:
            reason = _TROUBLE.get(trouble.failure_kind or "", "{error}")
            return f"waiting: {reason.format(status=trouble.status, error=trouble.error)}"
        silence = self._silence()
        if silence >= SILENCE:
            return f"no response for {silence:.0f} s"
        if progress is not None and progress.settling:
            return f"{progress.settling:,} uploads held until their state on the server is known"
        return ""

    def to_dict(self) -> dict[str, object]:
        """Return the counts by name, with how many files were found and accepted."""
        progress = self.progress
        return {
            "found": progress.found if progress else 0,
            "accepted": progress.accepted if progress else 0,
            **{outcome: self.counts[outcome] for outcome in Outcome},
        }

    def __str__(self) -> str:
        if self.progress is None:
            return "Nothing was loaded yet."
        more = "" if self.progress.scanned else " so far"
        return (
            f"{self.progress.found:,} files found{more}: {self.progress.accepted:,} uploaded;"
            f" {format_counts(self.counts) or 'none finished'}."
        )

    def _latest_trouble(self) -> AttemptEvent | None:
        recent = [
            one
            for one in tuple(self._troubles.values())
            if self._clock() - one[0] < TROUBLE_EXPIRES
        ]
        return max(recent, key=lambda one: one[0])[1] if recent else None

    def _silence(self) -> float:
        """Return the seconds since the last response while uploads are in flight, else 0."""
        progress, last = self.progress, self._last_response
        if progress is None or not progress.in_flight or last is None:
            return 0.0
        return self._clock() - last


def format_counts(counts: Mapping[Outcome, int]) -> str:
    """Return the outcomes that occurred with their counts, as `3 added, 1 failed`."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts[outcome])
