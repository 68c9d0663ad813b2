"""Show, log and interrupt a running load or sync."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import define, field

from dify_kb import AsyncClient, AttemptEvent, ItemResult, LoadReport, Outcome, Progress
from dify_kb.errors import KnowledgeError
from dify_kb.ingest import LoadEvent
from dify_kb.ingest.load_history import LoadHistory
from dify_kb.ingest.progress import ProgressState
from dify_kb.ingest.progress_display import ProgressDisplay, progress_display, show_nothing
from dify_kb.ingest.report import GOOD_OUTCOMES

from . import load_summary, output
from .command_line import instruct_repetition
from .log_file import LoadLog
from .output_streams import BROKEN_PIPE_EXIT
from .run_command import CommandContext, Interrupt

GRACE_NOTICE = "Finishing uploads in flight (up to 10 s); press Ctrl-C again to stop immediately."

MAX_FAILURES = 500
"""Failures that are kept for the page of an interrupted run."""

R = TypeVar("R")


@define(kw_only=True)
class ProgressOutput:
    """The output of a load or sync while it runs: progress, results, log and interruption."""

    command: CommandContext
    dry_run: bool
    print_planned: Callable[[ItemResult], None] = lambda _: None
    """Prints what a dry run would do with a file."""

    html: Path | None = None
    """The file for a page about the run; None for no page."""

    title: str = "Dify load"
    """The title of the page."""

    datasets: Sequence[str] = field(default=(), init=False)
    """The names of the datasets, once they are known."""

    facts: Sequence[tuple[str, str]] = field(default=(), init=False)
    """The server and the source for the page, as names and values."""

    lists_skipped: bool = True
    """Whether --verbose prints each skipped file."""

    is_idle: bool = field(default=False, init=False)
    """Whether the command waits for its next sync, so that there is nothing to resume."""

    interrupt: Interrupt = field(factory=Interrupt, init=False)
    log: LoadLog = field(factory=lambda: LoadLog(None), init=False)
    _state: ProgressState = field(factory=ProgressState, init=False)
    _history: LoadHistory = field(factory=LoadHistory, init=False)
    _failures: list[ItemResult] = field(factory=list, init=False)
    """The first failures, for the page of an interrupted run, which has no report."""

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
        self._state, self._history = ProgressState(), LoadHistory()
        self._failures.clear()
        with self._progress_shown():
            return await start()

    def describe_run(self, client: AsyncClient, sources: Sequence[str]) -> None:
        """Record the server, the source and the time for the page."""
        self.facts = [
            ("server", f"{client.base_url} (version {client.server_version or 'unknown'})"),
            ("source", ", ".join(sources) or "."),
            ("started", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ]

    @contextmanager
    def _progress_shown(self) -> Iterator[None]:
        quiet = self.command.quiet or self.dry_run
        with progress_display(output.err, quiet=quiet, plain=self.command.verbose) as display:
            self._display = display
            self.interrupt.on_interrupt = lambda: output.err.print(GRACE_NOTICE)
            try:
                yield
            finally:
                self._display, self.interrupt.on_interrupt = show_nothing, lambda: None

    def handle_event(self, event: LoadEvent) -> None:
        """Show new counts; log and print the result of a file."""
        self._state.add(event)
        self._record()
        if isinstance(event, Progress):
            self._display(self._state)
            return
        if event.outcome not in GOOD_OUTCOMES and len(self._failures) < MAX_FAILURES:
            self._failures.append(event)
        fields = attrs.asdict(event)
        self.log.write("item", fields)
        is_listed = self.lists_skipped and self.command.verbose and not self.dry_run
        if is_listed and event.outcome is Outcome.SKIPPED:
            output.err.print(load_summary.format_result(event))
        if self.command.json:
            output.print_json({"type": "item", **fields})
        if self.dry_run:
            self.print_planned(event)

    def handle_attempt(self, event: AttemptEvent) -> None:
        """Show whether the server responds."""
        self._state.record_attempt(event)
        self._record()
        self._display(self._state)

    def _record(self) -> None:
        if self.html is not None:
            self._history.record(self._state)

    def write_page(
        self,
        report: LoadReport,
        more_failures: Sequence[ItemResult] = (),
        *,
        interrupted: bool = False,
    ) -> None:
        """Write the page about a run, if one is wanted; a file error is a warning.

        Args:
            more_failures: failures that are not in the report's journal.
        """
        if self.html is None:
            return
        from .benchmark_output import save_file
        from .load_page import MAX_LISTED, LoadPage, render_load_page

        try:
            found = itertools.chain(more_failures, report.failures())
            failures = list(itertools.islice(found, MAX_LISTED))
            page = LoadPage(
                title=self.title,
                datasets=self.datasets,
                facts=self.facts,
                history=self._history,
                failures=failures,
                interrupted=interrupted,
            )
            save_file(self.html, render_load_page(report, page))
        except KnowledgeError as error:
            output.err.print(f"warning: No page was written. {output.escape(error.summary)}")

    def resume_hint(self) -> str:
        """Return how to resume."""
        return instruct_repetition("resume", self.command.invocation.arguments)

    def _report_interruption(self, code: int) -> None:
        """Report the progress of an interrupted load."""
        line = {"type": "interrupted", "exit": code, **self._state.to_dict()}
        self.log.write("interrupted", line)
        if self.command.json:
            output.print_json(line)
        if self.is_idle:
            output.err.print("Stopped.")
            return
        output.err.print(f"Interrupted. {self._state}")
        output.err.print(f"next:  {self.resume_hint()}")
        self.write_page(self._interim_report(), self._failures, interrupted=True)

    def _interim_report(self) -> LoadReport:
        """Return the counts of a run that has no report; files without an outcome are pending."""
        counts: dict[str, Any] = {each: self._state.counts[each] for each in Outcome}
        progress, last = self._state.progress, self._history.samples[-1]
        found = max(sum(counts.values()), progress.found if progress else 0)
        counts[Outcome.PENDING] += found - sum(counts.values())
        return LoadReport(
            **counts,
            found=found,
            bytes=progress.bytes if progress else 0,
            seconds=last.seconds,
            goodput=last.indexed / last.seconds if last.seconds else 0.0,
        )
