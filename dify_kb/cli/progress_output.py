"""Show, log and interrupt a running load or sync."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from attrs import define, field

from dify_kb import AttemptEvent, ItemResult, Outcome, Progress
from dify_kb.ingest import LoadEvent
from dify_kb.ingest.progress import ProgressState
from dify_kb.ingest.progress_display import ProgressDisplay, progress_display, show_nothing

from . import load_summary, output
from .command_line import instruct_repetition
from .log_file import LoadLog
from .output_streams import BROKEN_PIPE_EXIT
from .run_command import CommandContext, Interrupt

GRACE_NOTICE = "Finishing uploads in flight (up to 10 s); press Ctrl-C again to stop immediately."

R = TypeVar("R")


@define(kw_only=True)
class ProgressOutput:
    """The output of a load or sync while it runs: progress, results, log and interruption."""

    command: CommandContext
    dry_run: bool
    print_planned: Callable[[ItemResult], None] = lambda _: None
    """Prints what a dry run would do with a file."""

    interrupt: Interrupt = field(factory=Interrupt, init=False)
    log: LoadLog = field(factory=lambda: LoadLog(None), init=False)
    _state: ProgressState = field(factory=ProgressState, init=False)
    _display: ProgressDisplay = field(default=show_nothing, init=False)

    def run(self, main: Callable[[], Coroutine[Any, Any, int]], log: LoadLog) -> int:
        """Run a command and write its results to a log; return the exit code."""
        self.log = log
        self.interrupt.exit_message = lambda: f"Stopped immediately.\nnext:  {self.resume_hint()}"
        code = self.command.run_interruptible(main, self.interrupt)
        if self.interrupt.was_cancelled and code != BROKEN_PIPE_EXIT:
            self._report_interruption(code)
        return code

    async def show(self, start: Callable[[], Awaitable[R]]) -> R:
        """Show the progress of a load from its start to its end, and return its report."""
        self._state = ProgressState()
        with self._progress_shown():
            return await start()

    @contextmanager
    def _progress_shown(self) -> Iterator[None]:
        quiet = self.command.quiet or self.dry_run
        with progress_display(output.err, quiet=quiet, plain=self.command.verbose) as self._display:
            self.interrupt.on_interrupt = lambda: output.err.print(GRACE_NOTICE)
            yield
        self._display = show_nothing

    def handle_event(self, event: LoadEvent) -> None:
        """Show new counts; log and print the result of a file."""
        self._state.add(event)
        if isinstance(event, Progress):
            self._display(self._state)
            return
        fields = attrs.asdict(event)
        self.log.write("item", fields)
        if self.command.verbose and event.outcome is Outcome.SKIPPED and not self.dry_run:
            output.err.print(load_summary.format_result(event))
        if self.command.json:
            output.print_json({"type": "item", **fields})
        if self.dry_run:
            self.print_planned(event)

    def handle_attempt(self, event: AttemptEvent) -> None:
        """Show whether the server responds."""
        self._state.record_attempt(event)
        self._display(self._state)

    def resume_hint(self) -> str:
        """Return how to resume."""
        return instruct_repetition("resume", self.command.invocation.arguments)

    def _report_interruption(self, code: int) -> None:
        """Report the progress of an interrupted load."""
        line = {"type": "interrupted", "exit": code, **self._state.to_dict()}
        self.log.write("interrupted", line)
        if self.command.json:
            output.print_json(line)
        output.err.print(f"Interrupted. {self._state}")
        output.err.print(f"next:  {self.resume_hint()}")
