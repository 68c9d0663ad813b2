"""Record the course of a load: counts over time, and what the time was spent on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from .progress import ProgressState

MAX_SAMPLES = 240
"""Samples kept of a load of any length: a chart has hardly more points."""

SCANNING = "reading the source"
UPLOADING = "uploading"
INDEXING = "waiting for the server to index"

_VARYING_PARTS = re.compile(r" for \d+ s$|^[\d,]+ (?=uploads)")


@frozen(kw_only=True)
class LoadSample:
    """Counts of files at a time, in seconds since the start of the load."""

    seconds: float
    uploaded: int
    indexed: int
    failed: int


@define
class LoadHistory:
    """The course of a load. `record` costs a few microseconds and bounded memory."""

    _clock: Callable[[], float] = field(default=time.monotonic, alias="clock")
    _began: float = field(init=False)
    _recorded: float = field(init=False)
    _activity: str = field(default=SCANNING, init=False)
    _spent: dict[str, float] = field(factory=dict, init=False)
    _samples: list[LoadSample] = field(factory=list, init=False)
    _interval: float = field(default=0.25, init=False)
    _last: LoadSample = field(
        default=LoadSample(seconds=0.0, uploaded=0, indexed=0, failed=0), init=False
    )

    def __attrs_post_init__(self) -> None:
        self._began = self._recorded = self._clock()

    def record(self, state: ProgressState) -> None:
        """Record the progress after an event. The time since the last one counts as spent."""
        now = self._clock()
        spent = self._spent.get(self._activity, 0.0)
        self._spent[self._activity] = spent + now - self._recorded
        self._recorded = now
        self._activity = describe_activity(state)
        progress = state.progress
        if progress is None:
            return
        self._last = LoadSample(
            seconds=now - self._began,
            uploaded=progress.accepted,
            indexed=state.indexed,
            failed=progress.failed,
        )
        if not self._samples or self._last.seconds - self._samples[-1].seconds >= self._interval:
            self._samples.append(self._last)
        if len(self._samples) > MAX_SAMPLES:
            del self._samples[1::2]
            self._interval = self._last.seconds / len(self._samples)

    @property
    def samples(self) -> Sequence[LoadSample]:
        """The counts over time, at most `MAX_SAMPLES` and the last one."""
        is_old = not self._samples or self._samples[-1] != self._last
        return [*self._samples, self._last] if is_old else list(self._samples)

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by activity, the longest first. Activities exclude each other."""
        return dict(sorted(self._spent.items(), key=lambda entry: -entry[1]))


def describe_activity(state: ProgressState) -> str:
    """Return what a load does or waits for, in the same words for all times of one cause."""
    progress = state.progress
    if reason := state.wait_reason:
        return _VARYING_PARTS.sub("", reason)
    if progress is None:
        return SCANNING
    if progress.in_flight:
        return UPLOADING
    return INDEXING if progress.accepted > state.indexed else SCANNING
