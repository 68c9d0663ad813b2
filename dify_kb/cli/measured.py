"""What the measuring commands have in common: progress, tables, files of reports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from dify_kb.bench.page import Table
from dify_kb.bench.watch import Step, Tell
from dify_kb.errors import ConfigError

from . import show

EVERY = 5.0
"""Seconds between lines of progress, where no terminal shows it."""

LEFT = "Deleting what was made; Ctrl-C again ends at once and leaves it to `dify-kb bench clean`."


@contextmanager
def progress(*, quiet: bool, plain: bool) -> Iterator[Tell]:
    """Show steps on stderr until the block ends: a bar on a terminal, lines elsewhere."""
    if quiet:
        yield lambda _: None
    elif plain or not show.err.is_terminal:
        yield _Lines()
    else:
        with Progress(
            TextColumn("{task.fields[phase]:10}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=show.err,
            transient=True,
        ) as bars:
            task = bars.add_task("", total=1.0, phase="")

            def tell(step: Step) -> None:
                completed = step.part or None
                what = show.printable(step.what)
                bars.update(task, completed=completed, description=what, phase=step.phase)

            yield tell


class _Lines:
    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._phase = ""

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if step.phase == self._phase and now - self._told < EVERY:
            return
        self._phase, self._told = step.phase, now
        seconds = now - self._began
        show.err.print(f"{seconds:6.0f} s  {step.phase:10}  {show.printable(step.what)}")


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Write what was measured."""
    show.table(("", ""), facts)


def print_table(heading: str, table: Table) -> None:
    """Write a table under its heading; names to the left, numbers to the right."""
    show.out.print(f"\n{show.printable(heading)}")
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(table.columns):
        numeric = table.numeric(place)
        grid.add_column(column, justify="right" if numeric else "left", no_wrap=numeric)
    for place, row in enumerate(table.rows):
        style = "bold" if place in table.chosen else ""
        grid.add_row(*(Text(show.printable(cell), style=style) for cell in row))
    show.drawn(grid)


def writable(files: Sequence[Path | None]) -> None:
    """Make sure, before anything is measured, that the result can be kept.

    Raises:
        ConfigError: a file cannot be written.
    """
    for file in files:
        if file is None:
            continue
        try:
            with file.open("a"):
                pass
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be written ({error.strerror}).", hint="Name another file."
            ) from error


def keep(file: Path | None, text: str) -> None:
    """Write a file, if one is asked for, and tell so."""
    if file is not None:
        file.write_text(text, encoding="utf-8")
        show.err.print(f"Wrote {show.printable(str(file))}.")
