"""Show the progress of a load: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import (
    Progress as Bars,
)
from rich.text import Text

from . import output
from .progress_state import ProgressState

INTERVAL = 5.0
"""Seconds between lines."""

MARGIN = 5
"""Columns that the bars leave free."""

WIDTH = 80
"""Columns of a line where there is no terminal."""

_DROPPED_FIRST = ("rate", "size", "eta", "failed")

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")

Display = Callable[[ProgressState], None]
"""Shows the progress of a load."""


def nothing(_: ProgressState) -> None:
    """Show nothing."""


@contextmanager
def display(*, quiet: bool, plain: bool) -> Iterator[Display]:
    """Show progress on stderr until the block ends; the terminal is left as it was."""
    if quiet:
        yield nothing
    elif plain or not output.err.is_terminal:
        yield _Lines()
    else:
        with _Bars(
            TextColumn("{task.description:7}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _RateColumn(),
            console=output.err,
            expand=True,
        ) as bars:
            yield _Phases(bars)


def overview(state: ProgressState) -> dict[str, str]:
    """Return how much of a load is done, as parts of a line by name; unknown ones are left out.

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
        parts["size"] = _sizes(progress.bytes_done, progress.total_bytes)
    if progress.eta is not None and progress.ended < total:
        parts["eta"] = f"ETA {format_duration(progress.eta)}"
    return parts


def format_duration(seconds: float) -> str:
    """Return a time in at most two units: `45 s`, `3 min`, `1 h 20 min`, `2 d 3 h`."""
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


def _sizes(done: int, total: int) -> str:
    """Return both sizes in the unit of the larger: `12.3/45.6 MiB`."""
    exponent = min((max(total, done, 1).bit_length() - 1) // 10, len(_SIZES) - 1)
    if exponent == 0:
        return f"{done}/{total} B"
    unit = 1024**exponent
    return f"{done / unit:.1f}/{total / unit:.1f} {_SIZES[exponent]}"


def _joined(parts: Mapping[str, str], width: int) -> str:
    """Join the parts of a line; those that matter least are dropped until it fits."""
    kept = dict(parts)
    for name in _DROPPED_FIRST:
        if len(" · ".join(kept.values())) <= width:
            break
        kept.pop(name, None)
    return " · ".join(kept.values())


class _Lines:
    """Prints a line every `INTERVAL` seconds, and at once when the load pauses or resumes."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._held: str | None = None

    def __call__(self, state: ProgressState) -> None:
        progress, now = state.progress, time.monotonic()
        if progress is None:
            return
        held = progress.stopped or progress.paused
        if held == self._held and now - self._printed < INTERVAL:
            return
        self._held, self._printed = held, now
        reason = output.printable(state.wait_reason)
        parts = overview(state)
        if progress.failed:
            parts["failed"] = f"{progress.failed:,} failed"
        if not reason:
            parts["rate"] = f"{state.index_rate or state.upload_rate:.1f}/s"
        elapsed = f"{now - self._started:5.0f} s  "
        line = _joined(parts, WIDTH - len(elapsed))
        output.err.print(f"{elapsed}{line}{f' · {reason}' if reason else ''}")


class _RateColumn(ProgressColumn):
    """A rate that is measured when it is drawn, so that it falls while nothing happens."""

    def render(self, task: Task) -> Text:
        rate: float = task.fields["rate"]()
        return Text(f"{rate:>7.1f}/s" if task.completed else " " * 9)


class _Bars(Bars):
    """Bars below a line that tells how much is done, above one that says why the load waits.

    They leave a margin at their right: a terminal writes `^C` behind them, and a line that
    overflows would stay on the screen.
    """

    state: ProgressState | None = None

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), output.err.width - MARGIN)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.state is not None:
            elapsed = f"{self.tasks[0].elapsed or 0:.0f} s  "
            width = output.err.width - MARGIN - len(elapsed)
            line = f"{elapsed}{_joined(overview(self.state), width)}"
            yield Text(line, no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()
        if self.state is not None and (reason := self.state.wait_reason):
            yield Text(output.printable(reason), style="yellow", no_wrap=True, overflow="ellipsis")


class _Phases:
    """A bar for uploads and one for indexing."""

    def __init__(self, bars: _Bars) -> None:
        self._bars = bars
        self._upload, self._index = (
            bars.add_task(phase, total=None, rate=lambda: 0.0) for phase in ("upload", "index")
        )

    def __call__(self, state: ProgressState) -> None:
        progress = state.progress
        if progress is None:
            return
        self._bars.state = state
        self._show(self._upload, progress.accepted, state.to_send, lambda: state.upload_rate)
        self._show(self._index, state.sent_ended, state.to_send, lambda: state.index_rate)

    def _show(
        self, phase: TaskID, completed: int, total: int | None, rate: Callable[[], float]
    ) -> None:
        self._bars.update(phase, completed=completed, total=total, rate=rate)
