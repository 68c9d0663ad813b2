"""The events of a load, and its progress: counts, rates, remaining time, why it waits."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from dify_kb.transport import AttemptEvent

from .report import ItemResult, Outcome


@frozen(kw_only=True)
class Progress:
    """The progress of a load. Counts are files, sizes are bytes.

    `found` counts the files scanned so far; the scan has ended once `scanned` is True. `total` and
    `total_bytes` are counted ahead of the scan; None while unknown. Of the files found, `to_send`
    have to be uploaded, `accepted` were accepted by the server, `ended` have an outcome other than
    `pending`, and `failed` failed, stalled or are unknown. `bytes` is the size of the accepted
    files, `bytes_done` that of the files that have ended, in this run or an earlier one. `eta` is
    the estimated time left in seconds; None while unknown. `in_flight` uploads wait for a response.
    `settling` files are looked up on the server or held until they may be sent again. `paused` is
    the error because of which uploads are paused, `stopped` the reason why the run ends early.
    """

    found: int
    scanned: bool
    to_send: int
    accepted: int
    ended: int
    failed: int
    bytes: int
    settling: int
    paused: str | None
    stopped: str | None
    total: int | None = None
    total_bytes: int | None = None
    bytes_done: int = 0
    eta: float | None = None
    in_flight: int = 0


LoadEvent = Progress | ItemResult
"""New counts, or the result of one file."""

OnLoadEvent = Callable[[LoadEvent], None]
"""A callback for events; called in the loop thread, must not block."""


_NOT_SENT = (Outcome.UNCHANGED, Outcome.PENDING)
_CONNECTION_ERROR = re.compile(r"\S+: cannot connect to (\S+) \((.+?)\)\.?")

TROUBLE_LIFETIME = 60.0
"""Seconds after which a failed request is no longer shown: the longest pause before a retry."""

SILENCE_THRESHOLD = 10.0
"""Seconds without a response, with uploads in flight, after which that is shown."""

RATE_WINDOW = 15.0
"""Seconds over which rates are measured."""

IDLE_LIMIT = 3.0
"""Seconds without progress after which a rate is 0, or twice the usual interval if that is more."""

_TROUBLE_REASONS = {
    "quota": "the server's rate limit rejects uploads (403)",
    "overload": "the server is overloaded ({status})",
}


@define
class RateMeter:
    """A meter of the rate of a growing count over the last `RATE_WINDOW` seconds."""

    _samples: deque[tuple[float, int]] = field(factory=deque)
    _last_increase: float = -math.inf
    _interval: float = 0.0
    """Seconds between the last two increases."""

    def record(self, now: float, count: int) -> None:
        """Record the count at a time; one sample a second is kept."""
        if self._samples and count > self._samples[-1][1]:
            if math.isfinite(self._last_increase):
                self._interval = now - self._last_increase
            self._last_increase = now
        if len(self._samples) < 2 or now - self._samples[-1][0] >= 1:  # noqa: PLR2004 -- the first stays
            self._samples.append((now, count))
        else:
            self._samples[-1] = (self._samples[-1][0], count)
        # Keep one sample from before the window: the count at its start.
        while len(self._samples) > 1 and now - self._samples[1][0] > RATE_WINDOW:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Return the increase per second; 0 if the count stopped growing (`IDLE_LIMIT`)."""
        samples = tuple(self._samples)  # the display reads it in its own thread
        if not samples or now - self._last_increase >= max(
            IDLE_LIMIT, min(2 * self._interval, RATE_WINDOW)
        ):
            return 0.0
        before = (sample for sample in reversed(samples) if now - sample[0] >= RATE_WINDOW)
        since, count = next(before, samples[0])
        return (samples[-1][1] - count) / max(now - since, 1.0)


@define
class ProgressState:
    """The progress of a load, for its display and for the message after an interruption."""

    counts: Counter[Outcome] = field(factory=Counter)
    progress: Progress | None = None
    sent_ended: int = 0
    """Files that were sent, in this run or an earlier one, and have ended."""

    indexed: int = 0
    """Files of these whose document the server had accepted: at most as many as `accepted`."""

    on_change: Callable[[ProgressState], None] = lambda _: None
    """Called after each new count, and each response of the server."""

    _uploads: RateMeter = field(factory=RateMeter, init=False)
    _indexed: RateMeter = field(factory=RateMeter, init=False)
    _troubles: dict[str, tuple[float, AttemptEvent]] = field(factory=dict)
    _silent_since: float = field(default=0.0, init=False)
    _clock: Callable[[], float] = field(default=time.monotonic, alias="clock")

    def add(self, event: LoadEvent) -> None:
        """Record an event of the load."""
        now = self._clock()
        if isinstance(event, Progress):
            if self.progress is None or not self.progress.in_flight:
                self._silent_since = now
            self.progress = event
            self._uploads.record(now, event.accepted)
            self.on_change(self)
        else:
            self.counts[event.outcome] += 1
            was_sent = event.attempts > 0 and event.outcome not in _NOT_SENT
            self.sent_ended += was_sent
            self.indexed += was_sent and event.document_id is not None
        self._indexed.record(now, self.indexed)

    def record_attempt(self, event: AttemptEvent) -> None:
        """Record the response or failure of an endpoint."""
        self._silent_since = self._clock()
        if event.failure_kind is not None:
            self._troubles[event.endpoint] = (self._clock(), event)
        else:
            self._troubles.pop(event.endpoint, None)
        self.on_change(self)

    @property
    def upload_rate(self) -> float:
        """Accepted uploads per second in the last `RATE_WINDOW` seconds."""
        return self._uploads.rate(self._clock())

    @property
    def index_rate(self) -> float:
        """Sent files with an outcome per second in the last `RATE_WINDOW` seconds."""
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
            return _describe_wait(progress.paused)
        if trouble is not None:
            return _describe_trouble(trouble)
        silence = self._silent_seconds()
        if silence >= SILENCE_THRESHOLD:
            return f"no response for {silence:.0f} s"
        if progress is not None and progress.settling:
            return f"{progress.settling:,} uploads on hold until their outcome is known"
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
            return "No files loaded yet."
        ended, total = self.progress.ended, self.total
        unindexed = self.progress.accepted - self.indexed
        counts = format_counts({**self.counts, Outcome.PENDING: 0})
        return (
            f"{ended:,} of {f'{total:,}' if total is not None else f'{self.progress.found:,}+'}"
            f" files finished{f': {counts}' if counts else ''}"
            f"{f'; {unindexed:,} more uploaded, not indexed yet' if unindexed > 0 else ''}."
        )

    def _latest_trouble(self) -> AttemptEvent | None:
        recent = [
            one
            for one in tuple(self._troubles.values())
            if self._clock() - one[0] < TROUBLE_LIFETIME
        ]
        return max(recent, key=lambda one: one[0])[1] if recent else None

    def _silent_seconds(self) -> float:
        """Return the seconds without a response while uploads are in flight, else 0."""
        if self.progress is None or not self.progress.in_flight:
            return 0.0
        return self._clock() - self._silent_since


def _describe_trouble(trouble: AttemptEvent) -> str:
    reason = _TROUBLE_REASONS.get(trouble.failure_kind or "")
    if reason is None:
        return _describe_wait(trouble.error or "")
    return f"waiting: {reason.format(status=trouble.status)}"


def _describe_wait(error: str) -> str:
    """Return what a load waits for: `waiting for http://dify.example/v1: connection refused`."""
    if refused := _CONNECTION_ERROR.match(error):
        return f"waiting for {refused[1]}: {refused[2]}"
    return f"waiting for the server: {error}"


def format_counts(counts: Mapping[Outcome, int]) -> str:
    """Return the nonzero counts by outcome, as `3 added, 1 failed`."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts.get(outcome))


_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def progress_parts(state: ProgressState) -> dict[str, str]:
    """Return the progress of a load as parts of a line, by name; unknown parts are left out.

    `1,400/10,000 files`, `14 %`, `12.3/45.6 MiB`, `ETA 3 min`.
    """
    progress, total = state.progress, state.total
    if progress is None:
        return {}
    if total is None:
        return {"files": f"{progress.found:,}+ files found", "done": f"{progress.ended:,} done"}
    parts = {"files": f"{progress.ended:,}/{total:,} files"}
    if total:
        parts["percentage"] = f"{100 * progress.ended // total} %"
    if progress.total_bytes:
        parts["size"] = _format_sizes(progress.bytes_done, progress.total_bytes)
    if progress.eta is not None and progress.ended < total:
        parts["eta"] = f"ETA {format_duration(progress.eta)}"
    return parts


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units: `45 s`, `3 min`, `1 h 20 min`, `2 d 3 h`."""
    whole = max(round(seconds), 0)
    if whole < 60:  # noqa: PLR2004 -- seconds of a minute
        return f"{whole} s"
    minutes = round(whole / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def _format_sizes(done: int, total: int) -> str:
    """Return both sizes in the unit of the larger: `12.3/45.6 MiB`."""
    exponent = min((max(total, done, 1).bit_length() - 1) // 10, len(_SIZES) - 1)
    if exponent == 0:
        return f"{done}/{total} B"
    unit = 1024**exponent
    return f"{done / unit:.1f}/{total / unit:.1f} {_SIZES[exponent]}"
