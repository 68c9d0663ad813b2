"""Display the progress of a load: bars on a terminal or in a notebook, else lines.

Requires rich, so only loads that display their progress import this module.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from dify_kb.errors import escape_text

from .progress import ProgressState, progress_parts

LINE_INTERVAL = 5.0
"""Seconds between lines."""

MARGIN = 5
"""Columns that stay empty to the right of the bars."""

DEFAULT_WIDTH = 80
"""Columns of a line if stderr is not a terminal."""

_DROPPED_FIRST = ("rate", "size", "eta", "failed")

NOTEBOOK_INTERVAL = 0.5
"""Seconds between updates in a notebook."""

ProgressDisplay = Callable[[ProgressState], None]
"""Shows the progress of a load."""


def show_nothing(_: ProgressState) -> None:
    """Show nothing."""


@contextmanager
def progress_display(
    console: Console, *, quiet: bool = False, plain: bool = False
) -> Iterator[ProgressDisplay]:
    """Show progress on a console until the block ends, then restore the terminal."""
    if quiet:
        yield show_nothing
    elif console.is_jupyter:
        with _NotebookBars() as show:
            yield show
    elif plain or not console.is_terminal:
        yield _PlainLines(console)
    else:
        bars = _ProgressBars(console)
        show_phases = _PhaseBars(bars)

        def show_bars(state: ProgressState) -> None:
            show_phases(state)
            if state.progress is not None:  # else an error of the options or the journal may follow
                bars.start()

        try:
            yield show_bars
        finally:
            bars.stop()


@contextmanager
def watch_load() -> Iterator[ProgressState]:
    """Return a state that shows its progress on stderr, or in the notebook, at each event."""
    state = ProgressState()
    with progress_display(Console(stderr=True, soft_wrap=True, highlight=False)) as show:
        state.on_change = show
        yield state


def _list_parts(state: ProgressState) -> dict[str, str]:
    parts = progress_parts(state)
    if state.progress is not None and state.progress.failed:
        parts["failed"] = f"{state.progress.failed:,} failed"
    return parts


def _join_parts(parts: Mapping[str, str], width: int) -> str:
    """Join the parts of a line, without the least important ones if it is too long."""
    shown_parts = dict(parts)
    for name in _DROPPED_FIRST:
        if len(" · ".join(shown_parts.values())) <= width:
            break
        shown_parts.pop(name, None)
    return " · ".join(shown_parts.values())


class _PlainLines:
    """A display that prints a line every `LINE_INTERVAL` seconds, and at each pause or resume."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._printed = time.monotonic()
        self._hold_reason: str | None = None

    def __call__(self, state: ProgressState) -> None:
        progress, now = state.progress, time.monotonic()
        if progress is None:
            return
        hold_reason = progress.stopped or progress.paused
        if hold_reason == self._hold_reason and now - self._printed < LINE_INTERVAL:
            return
        self._hold_reason, self._printed = hold_reason, now
        reason = escape_text(state.wait_reason)
        parts = _list_parts(state)
        if not reason:
            parts["rate"] = f"{state.index_rate or state.upload_rate:.1f}/s"
        elapsed = f"{now - self._started:5.0f} s  "
        line = _join_parts(parts, DEFAULT_WIDTH - len(elapsed))
        self._console.print(f"{elapsed}{line}{f' · {reason}' if reason else ''}")


class _RateColumn(ProgressColumn):
    """A column with a rate that is computed when it is drawn, so that it falls when idle."""

    def render(self, task: Task) -> Text:
        rate: float = task.fields["rate"]()
        is_shown = task.completed and not (task.finished and rate == 0)
        return Text(f"{rate:>7.1f}/s" if is_shown else " " * 9)


class _ProgressBars(Bars):
    """Progress bars between a line of counts and a line with the reason for waiting.

    They leave `MARGIN` columns free: a terminal appends `^C` to a line, and a line that overflows
    would stay on the screen.
    """

    state: ProgressState | None = None

    def __init__(self, console: Console) -> None:
        self._target = console
        super().__init__(
            TextColumn("{task.description:7}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _RateColumn(),
            console=console,
            expand=True,
            # Else rich prints on the console of the bars what a program writes to its output.
            redirect_stdout=console.is_terminal and sys.stdout.isatty(),
        )

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), self._target.width - MARGIN)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.state is not None:
            elapsed = f"{self.tasks[0].elapsed or 0:.0f} s  "
            width = self._target.width - MARGIN - len(elapsed)
            line = f"{elapsed}{_join_parts(_list_parts(self.state), width)}"
            yield Text(line, no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()
        if self.state is not None and (reason := self.state.wait_reason):
            yield Text(escape_text(reason), style="yellow", no_wrap=True, overflow="ellipsis")


class _PhaseBars:
    """A bar for uploads and a bar for indexing."""

    def __init__(self, bars: _ProgressBars) -> None:
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
        self._show(self._index, state.indexed, state.to_send, lambda: state.index_rate)

    def _show(
        self, phase: TaskID, completed: int, total: int | None, rate: Callable[[], float]
    ) -> None:
        self._bars.update(phase, completed=completed, total=total, rate=rate, visible=total != 0)


class _NotebookBars:
    """The bars as text in the output of a notebook's cell, without a widget."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        console = Console(
            file=self._text, width=DEFAULT_WIDTH, force_jupyter=False, color_system=None
        )
        self._bars = _ProgressBars(console)
        self._show = _PhaseBars(self._bars)
        self._handle: Any = None
        self._state: ProgressState | None = None
        self._shown = -math.inf

    def __enter__(self) -> ProgressDisplay:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._state is not None:
            self._draw(self._state)

    def _update(self, state: ProgressState) -> None:
        self._state = state
        if time.monotonic() - self._shown >= NOTEBOOK_INTERVAL:
            self._draw(state)

    def _draw(self, state: ProgressState) -> None:
        from IPython.display import display

        self._shown = time.monotonic()
        self._show(state)
        self._bars.console.print(self._bars.get_renderable())
        output = {"text/plain": self._text.getvalue().rstrip()}
        self._text.seek(0)
        self._text.truncate()
        if self._handle is None:
            self._handle = display(output, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # of IPython
        else:
            self._handle.update(output, raw=True)
