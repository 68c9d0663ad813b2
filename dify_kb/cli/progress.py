"""A load as it is seen while it runs: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from dify_kb import Progress

from . import show

EVERY = 5.0
"""Seconds between lines."""


class Display(Protocol):
    """Takes how far a load is."""

    def __call__(self, progress: Progress, /) -> None:
        """Show it."""
        ...


@contextmanager
def display(*, quiet: bool, plain: bool) -> Iterator[Display]:
    """Show progress on stderr until the block ends; the terminal is left as it was."""
    if quiet:
        yield lambda _: None
    elif plain or not show.err.is_terminal:
        yield _Lines()
    else:
        with Bars(
            TextColumn("{task.description:7}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=show.err,
            expand=True,
        ) as bars:
            yield _Phases(bars)


class _Lines:
    def __init__(self) -> None:
        self._started = self._told = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        self._told = now
        indexed = progress.ended / (now - self._started)
        more = "" if progress.scanned else "+"
        show.err.print(
            f"{now - self._started:6.0f} s  found {progress.found:,}{more}"
            f"  uploaded {progress.accepted:,}  done {progress.ended:,}"
            f"  failed {progress.failed:,}  {indexed:.1f}/s"
        )


class _Phases:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._scan, self._upload, self._index = (
            bars.add_task(phase, total=None, rate="") for phase in ("scan", "upload", "index")
        )

    def __call__(self, progress: Progress) -> None:
        total = progress.to_send if progress.scanned else None
        found = progress.found if progress.scanned else None
        left_out = progress.found - progress.to_send
        self._show(self._scan, progress.found, found)
        self._show(self._upload, progress.accepted, total)
        self._show(self._index, max(0, progress.ended - left_out), total)

    def _show(self, phase: TaskID, completed: int, total: int | None) -> None:
        speed = self._bars.tasks[phase].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bars.update(phase, completed=completed, total=total, rate=rate)
