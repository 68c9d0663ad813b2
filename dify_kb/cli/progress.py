"""A load as it is seen while it runs: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.constrain import Constrain
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
from rich.text import Text

from . import show
from .progress_state import ProgressState

EVERY = 5.0
"""Seconds between lines."""


ROOM = 5
"""Columns that the bars leave free."""


Display = Callable[[ProgressState], None]
"""Shows how far a load is."""


def nothing(_: ProgressState) -> None:
    """Show nothing."""


@contextmanager
def display(*, quiet: bool, plain: bool) -> Iterator[Display]:
    """Show progress on stderr until the block ends; the terminal is left as it was."""
    if quiet:
        yield nothing
    elif plain or not show.err.is_terminal:
        yield _Lines()
    else:
        with _Bars(
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
        self._held: str | None = None

    def __call__(self, state: ProgressState) -> None:
        progress, now = state.progress, time.monotonic()
        if progress is None:
            return
        held = progress.stopped or progress.paused
        if held == self._held and now - self._told < EVERY:
            return
        self._held, self._told = held, now
        more = "" if progress.scanned else "+"
        rate = progress.ended / (now - self._started)
        why = f"  {show.printable(state.wait_reason)}" if state.wait_reason else ""
        show.err.print(
            f"{now - self._started:6.0f} s  found {progress.found:,}{more}"
            f"  uploaded {progress.accepted:,}  done {progress.ended:,}"
            f"  failed {progress.failed:,}  {rate:.1f}/s{why}"
        )


class _Bars(Bars):
    """Bars with a line below them that says what holds them up.

    They leave room at their right, since a terminal writes `^C` behind them, and a line that runs
    over would stay on the screen.
    """

    held: Callable[[], str] = staticmethod(lambda: "")

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), show.err.width - ROOM)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if held := self.held():
            yield Text(show.printable(held), style="yellow", no_wrap=True, overflow="ellipsis")


class _Phases:
    def __init__(self, bars: _Bars) -> None:
        self._bars = bars
        self._scan, self._upload, self._index = (
            bars.add_task(phase, total=None, rate="") for phase in ("scan", "upload", "index")
        )

    def __call__(self, state: ProgressState) -> None:
        progress = state.progress
        if progress is None:
            return
        self._bars.held = lambda: state.wait_reason
        total = progress.to_send if progress.scanned else None
        self._show(self._scan, progress.found, progress.found if progress.scanned else None)
        self._show(self._upload, progress.accepted, total)
        self._show(self._index, state.sent_ended, total)

    def _show(self, phase: TaskID, completed: int, total: int | None) -> None:
        speed = self._bars.tasks[phase].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bars.update(phase, completed=completed, total=total, rate=rate)
