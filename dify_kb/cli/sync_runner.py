"""Run `dify-kb sync` and `dify-kb diff`: once, as files change, or at an interval."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import typer
from attrs import define, evolve, field

from dify_kb import (
    AsyncClient,
    Dataset,
    ItemResult,
    LoadReport,
    MayDelete,
    Outcome,
    StopReason,
    SyncAction,
    SyncChange,
    SyncReport,
)
from dify_kb.errors import ConfigError, KnowledgeError, ServerError, TransportError
from dify_kb.ingest import LoadEvent, ScanRules, Source, open_file_sources
from dify_kb.ingest.sources.scan import Scanner
from dify_kb.sync.decide_changes import KEPT_BY_CALLER
from dify_kb.sync.guards import find_missing_path
from dify_kb.sync.make_report import missing_source_report
from dify_kb.sync.watch import SourceWatcher, SyncSchedule, repeat_sync, watch_source

from . import completion, dry_run, exit_codes, load_summary, output, sync_summary
from .ensure_dataset import ensure_dataset, require_new_journal
from .load_runner import open_url_list
from .log_file import LoadLog
from .option_types import Technique
from .output_streams import continue_if_unwritable
from .progress_output import ProgressOutput
from .run_command import CommandContext

DIFFERENT = 1
"""The exit code of `diff --exit-code` if there are differences."""


class _UnusableSourceError(KnowledgeError):
    """The source is missing or empty, and no dataset was created for it."""

    def __init__(self, report: SyncReport) -> None:
        super().__init__(report.stop_message or "")
        self.report = report


@define(kw_only=True)
class SyncRunner:
    """The runs of `dify-kb sync` or `dify-kb diff`, from the source to the exit code."""

    command: CommandContext
    dataset: str
    technique: Technique | None = None
    create: bool = False
    paths: Sequence[str]
    url_list: str | None
    rules: ScanRules
    arguments: Mapping[str, Any]
    """Arguments of `AsyncClient.sync`."""

    dry_run: bool = False
    is_diff: bool = False
    fails_if_different: bool = False
    stops_at_first_failure: bool = False
    watch: bool = False
    poll: bool = False
    rescan: float = 900.0
    every: float | None = None
    health: Path | None = None
    html: Path | None = None
    ignored: Sequence[Path] = ()
    """Files that the command itself writes."""

    _progress: ProgressOutput = field(init=False)
    _target: Dataset | None = field(default=None, init=False)
    _same: list[SyncChange] = field(factory=list, init=False)
    _stop_message: str | None = field(default=None, init=False)
    """Why the last sync stopped, which is printed once."""

    _rounds: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._progress = ProgressOutput(
            command=self.command,
            dry_run=self.dry_run,
            lists_skipped=False,
            html=self.html,
            title="Dify sync",
        )

    @property
    def is_repeated(self) -> bool:
        """Whether the command runs until it is interrupted."""
        return self.watch or self.every is not None

    def check(self) -> None:
        """Validate the source and the options, before anything is created.

        Raises:
            ConfigError: the source, a pattern or an option is not valid.
        """
        Scanner.from_rules(self.rules)
        if self.url_list is not None and self.paths:
            raise ConfigError(
                "--urls-from does not accept PATH.", hint="Sync the files in a command of its own."
            )
        if self.url_list is None and not self.paths:
            raise ConfigError("Missing argument PATH.", hint="Pass the folder to sync.")
        if self.url_list == "-" and self.is_repeated:
            raise ConfigError(
                "--urls-from - can be read only once.", hint="Pass a file instead of -."
            )
        is_remote = self.url_list is not None or open_file_sources(self.paths) is not None
        if self.watch:
            if is_remote:
                raise ConfigError(
                    "--watch requires folders or files.", hint="Pass --every 1h instead."
                )
            self._create_watcher().check()
        if self.health is not None and not self.health.parent.is_dir():
            raise ConfigError(
                f"Not a directory: {self.health.parent} (--health).", hint="Create it."
            )

    def run(self, log: LoadLog) -> None:
        """Run the command and write its results to a log, after `check`.

        Raises:
            typer.Exit: with the exit code.
        """
        raise typer.Exit(self._progress.run(self._run, log))

    async def _run(self) -> int:
        self.command.announce_memory()
        async with self.command.create_client(on_event=self._progress.handle_attempt) as client:
            if self.watch:
                schedule = SyncSchedule(self.rescan)
                run_round = partial(self._run_round, client, schedule.may_delete)
                await watch_source(schedule, self._create_watcher(), run_round)
            if self.every is not None:
                run_round = partial(self._run_round, client, None)
                await repeat_sync(run_round, self.every, random=random.random)
            return self._report(await self._sync(client, None))

    def _create_watcher(self) -> SourceWatcher:
        return SourceWatcher(
            paths=self.paths,
            poll=self.poll,
            on_change=lambda _: None,
            ignored=[path.absolute() for path in self.ignored],
        )

    async def _run_round(self, client: AsyncClient, may_delete: MayDelete | None) -> bool:
        """Sync and report; return whether the sync reached its end. Errors are printed.

        Raises:
            KnowledgeError: in the first round, an error that does not pass by itself.
        """
        self._rounds += 1
        try:
            report = await self._sync(client, may_delete)
        except KnowledgeError as error:
            if self._rounds == 1 and not isinstance(error, TransportError | ServerError):
                raise
            error.hint = self.command.invocation.complete_hint(error.hint)
            output.print_error(error)
            self._write("error", {"error": error.summary, "hint": error.hint})
            self._progress.is_idle = True
            return False
        self._progress.is_idle = True
        changes = [change for change in report.changes if change.reason != KEPT_BY_CALLER]
        report = evolve(report, changes=changes)
        is_same = report.stopped is not None and report.stop_message == self._stop_message
        self._stop_message = report.stop_message
        is_news = not {change.action for change in changes} <= sync_summary.QUIET_ACTIONS
        if self.command.verbose or self._rounds == 1 or is_news or not (report or is_same):
            self._report(report)
        else:
            self._touch_health(report)
        return report.stopped is None

    async def _sync(self, client: AsyncClient, may_delete: MayDelete | None) -> SyncReport:
        self._progress.is_idle = False
        self._same.clear()
        source = self._open_source()
        try:
            target = self._target or await self._find_target(client, source)
            if target is None:
                return await self._plan_new_dataset(source)
        except _UnusableSourceError as error:
            return error.report
        self._target, self._progress.datasets = target, [target.name]
        self._progress.describe_run(client, self.paths or [self.url_list or ""])
        completion.remember_datasets(self.command.address, [target.name])
        return await self._progress.show(
            lambda: client.sync(
                target,
                source,
                **self.arguments,
                may_delete=may_delete,
                dry_run=self.dry_run,
                on_event=self._handle_event,
            )
        )

    def _open_source(self) -> Source:
        if self.url_list is None:
            return self.paths
        return [open_url_list(self.command, self.url_list)]

    async def _find_target(self, client: AsyncClient, source: Source) -> Dataset | None:
        return await ensure_dataset(
            client,
            self.dataset,
            self.technique,
            create=self.create,
            dry_run=self.dry_run,
            check=partial(self._check_before_creation, source),
        )

    async def _check_before_creation(self, source: Source) -> None:
        """Check that a new dataset would not stay empty because of an error.

        Raises:
            ConfigError: the journal belongs to another dataset.
            JournalError: the file is not a journal.
        """
        journal: Path | None = self.arguments["journal"]
        if journal is not None:
            await anyio.to_thread.run_sync(require_new_journal, journal)
        await self._scan(source)

    async def _plan_new_dataset(self, source: Source) -> SyncReport:
        """Return the report of a dry run into a dataset that does not exist yet."""
        changes: list[SyncChange] = []

        def add(result: ItemResult) -> None:
            actions = {Outcome.PENDING: SyncAction.ADD, Outcome.FAILED: SyncAction.FAIL}
            action = actions.get(result.outcome, SyncAction.SKIP)
            reason = None if action is SyncAction.ADD else result.reason
            changes.append(SyncChange(action=action, key=result.key, reason=reason))

        found = await self._scan(source, add)
        return SyncReport(
            found=found.found,
            added=found.pending,
            skipped=found.skipped,
            failed=found.failed,
            skipped_reasons=found.skipped_reasons,
            seconds=found.seconds,
            dry_run=True,
            changes=changes,
        )

    async def _scan(
        self, source: Source, on_result: Callable[[ItemResult], None] = lambda _: None
    ) -> LoadReport:
        """Return the report of a scan.

        Raises:
            _UnusableSourceError: the source is missing or empty.
        """
        if missing := await anyio.to_thread.run_sync(find_missing_path, source):
            raise _UnusableSourceError(missing_source_report(missing))
        found = await dry_run.scan_source(source, self.rules, on_result)
        if not found.pending and not self.arguments["allow_empty"]:
            reason = "The source contains no file to load; allow_empty=True (--allow-empty)"
            report = SyncReport(stopped=StopReason.SOURCE_EMPTY, stop_message=f"{reason}.")
            raise _UnusableSourceError(report)
        return found

    def _handle_event(self, event: LoadEvent) -> None:
        if isinstance(event, ItemResult):
            if event.outcome is Outcome.UNCHANGED and self.command.verbose:
                self._same.append(SyncChange(action=SyncAction.SAME, key=event.key))
            if self.dry_run:  # `changes` are its results
                return
        self._progress.handle_event(event)

    def _report(self, report: SyncReport) -> int:
        """Print and log a report, and return the exit code."""
        continue_if_unwritable()
        changes = [*self._same, *report.changes]
        if self.command.json:
            for change in changes:
                output.print_json({"type": "change", **change.to_dict()})
        elif self.dry_run or not self.command.quiet:
            limit = None if self.dry_run or self.command.verbose else output.MAX_LISTED_FAILURES
            sync_summary.print_changes(
                changes, report.held, verbose=self.command.verbose, limit=limit
            )
        self._write("report", report.to_dict())
        if not self.command.quiet and report.stopped not in sync_summary.SOURCE_STOPS:
            sync_summary.print_summary(report, json=self.command.json, is_diff=self.is_diff)
        self._progress.write_page(report)
        if not self.dry_run:
            load_summary.print_failures(report, ())
        load_summary.print_warnings(report)
        step = sync_summary.print_problems(report, self.command.invocation.arguments)
        if self.is_repeated and report.stopped is not None:
            step = "Correct that; the sync is repeated by itself."
        if step is not None:
            output.err.print(f"next:  {self.command.invocation.complete_hint(step)}")
        return self._exit_code(report)

    def _exit_code(self, report: SyncReport) -> int:
        self._touch_health(report)
        if self.is_diff and report.stopped is None and not report.failed:
            return DIFFERENT if self.fails_if_different and report.has_differences else 0
        if self.stops_at_first_failure and report.stopped is StopReason.MAX_FAILURES:
            return exit_codes.FILES_FAILED
        return report.exit_code

    def _write(self, kind: str, fields: Mapping[str, object]) -> None:
        self._progress.log.write(kind, fields)
        if self.command.json:
            output.print_json({"type": kind, **fields})

    def _touch_health(self, report: SyncReport) -> None:
        if self.health is None or self.dry_run or report.exit_code:
            return
        try:
            self.health.touch()
        except OSError as error:
            output.err.print(
                f"warning: Cannot write to {output.escape(str(self.health))} (--health):"
                f" {error.strerror or error}."
            )
