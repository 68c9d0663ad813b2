"""Run `dify-kb load`: source, progress, interruption, summary and exit code."""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import anyio.to_thread
import attrs
import typer
from attrs import define, field, frozen

from dify_kb import (
    AsyncClient,
    Dataset,
    Item,
    ItemResult,
    LoadReport,
    Outcome,
    StopReason,
    UrlList,
)
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.ingest import (
    FileSource,
    LoadEvent,
    NamedSource,
    OnLoadEvent,
    ScanRules,
    Source,
    create_source_reader,
    open_file_sources,
    resolve_roots,
)
from dify_kb.ingest.sources.scan import Scanner

from . import completion, exit_codes, load_summary, output
from .bulk import format_count
from .dry_run import DryRunPrinter, scan_source
from .ensure_dataset import ensure_dataset, ensure_series, require_new_journal
from .files_from import MISSING_REASON, FilesFrom
from .log_file import LoadLog
from .name_lookup import SERIES
from .option_types import Technique
from .output_streams import continue_if_unwritable
from .progress_output import ProgressOutput
from .run_command import CommandContext


@frozen(kw_only=True)
class LoadArguments:
    """The arguments of a load that are known only once its dataset is."""

    source: Source
    on_event: OnLoadEvent


@define(kw_only=True)
class LoadRunner:
    """A run of `dify-kb load`, from its source to its exit code."""

    command: CommandContext
    dataset: str
    """A name or id, or a name with {n} for a series of datasets."""

    per_dataset: int
    technique: Technique | None
    create: bool
    paths: Sequence[str]
    list_file: str | None
    url_list: str | None
    null: bool
    rules: ScanRules
    journal: Path | None
    dry_run: bool
    stops_at_first_failure: bool
    """Whether the first failure stops the load; it then exits with the code of failed files."""

    verifies: bool
    html: Path | None
    """The file for a page about the load; None for no page."""

    start_load: Callable[[AsyncClient, Sequence[Dataset], LoadArguments], Awaitable[LoadReport]]
    _progress: ProgressOutput = field(init=False)
    _refused: list[ItemResult] = field(factory=list, init=False)
    _missing: list[ItemResult] = field(factory=list, init=False)
    _named_keys: frozenset[str] = field(default=frozenset(), init=False)
    """The keys of named files that are in a named folder, too; a scan takes them for its files."""

    _named_skipped: list[ItemResult] = field(factory=list, init=False)
    _files_from: FilesFrom | None = field(default=None, init=False)
    _sources: Sequence[FileSource] = field(default=(), init=False)

    _planned: DryRunPrinter = field(factory=DryRunPrinter, init=False)

    def __attrs_post_init__(self) -> None:
        self._planned.is_shown = not self.command.json
        self._progress = ProgressOutput(
            command=self.command,
            dry_run=self.dry_run,
            print_planned=self._planned,
            html=self.html,
        )

    def run(self, log: LoadLog) -> None:
        """Run the load and write its results to a log, after `check`.

        Raises:
            typer.Exit: with the exit code.
        """
        raise typer.Exit(self._progress.run(self._load, log))

    def check(self) -> None:
        """Validate the source, before a log file or a dataset is created for it.

        Raises:
            ConfigError: the source or a pattern is not valid.
        """
        Scanner.from_rules(self.rules)
        if self.url_list is not None:
            if self.paths or self.list_file is not None:
                raise ConfigError(
                    "--urls-from accepts neither PATH nor --files-from.",
                    hint="Load the files in a command of its own.",
                )
            self._sources = [open_url_list(self.command, self.url_list)]
        elif self.list_file is None:
            if self.null:
                raise ConfigError(
                    "--null requires --files-from.", hint="Pass --files-from, or remove --null."
                )
            if not self.paths:
                raise ConfigError("Missing argument PATH.", hint="Pass folders or files to load.")
            self._sources = open_file_sources(self.paths) or ()
            if not self._sources:
                self._named_keys = _find_named_keys(self.paths)
        else:
            self._files_from = self._open_list(self.list_file)

    def _open_list(self, list_file: str) -> FilesFrom:
        if len(self.paths) > 1:
            raise ConfigError(
                "--files-from accepts at most one PATH.",
                hint="Pass only the folder of the listed files.",
            )
        files = FilesFrom(
            folder=Path(self.paths[0]) if self.paths else Path(),
            source=list_file,
            null=self.null,
            on_result=self._record_listed,
            is_cancelled=lambda: self._progress.interrupt.exit_code is not None,
        )
        files.check()
        return files

    async def _load(self) -> int:
        try:
            for source in self._sources:
                output.note(f"Reading {output.escape(source.identity)}.")
                await anyio.to_thread.run_sync(source.prepare, abandon_on_cancel=True)
            return await self._load_source()
        finally:
            with anyio.CancelScope(shield=True):
                for source in self._sources:
                    await anyio.to_thread.run_sync(source.close)

    async def _load_source(self) -> int:
        source: Source = self._sources or self.paths
        if self._files_from is not None:
            items = self._files_from.iter_items()
            first_item = await anyio.to_thread.run_sync(next, items, None)
            if first_item is None:  # as in an hourly job without new files
                return self._report_finished(LoadReport(dry_run=self.dry_run))
            listed: Iterable[Item] = itertools.chain((first_item,), items)
            if SERIES in self.dataset:  # they are counted first
                listed = await anyio.to_thread.run_sync(list, listed, abandon_on_cancel=True)
            source = NamedSource(listed, _folder_name(self._files_from.folder))
        async with self.command.create_client(on_event=self._progress.handle_attempt) as client:
            self.command.announce_memory()
            targets = await self._find_targets(client, source)
            self._progress.datasets = [target.name for target in targets] or [self.dataset]
            self._progress.describe_run(
                client, [one.identity for one in self._sources] or self.paths
            )
            if not targets:
                return self._report_finished(
                    await scan_source(source, self.rules, self._handle_event)
                )
            self._announce_new_journal(targets)
            names = self._progress.datasets
            completion.remember_datasets(self.command.address, names)
            if len(names) > 1:
                output.note(f"Loading into {', '.join(map(output.escape, names))}.")
            if self.verifies:
                output.note(
                    "Verification costs one request per file sent and one per 100 documents of the"
                    " dataset."
                )
            arguments = LoadArguments(source=source, on_event=self._handle_event)
            report = await self._progress.show(lambda: self.start_load(client, targets, arguments))
        return self._report_finished(report)

    async def _find_targets(self, client: AsyncClient, source: Source) -> Sequence[Dataset]:
        """Return the dataset or the series to load into; none if a dry run would create it."""
        if SERIES not in self.dataset:
            target = await ensure_dataset(
                client,
                self.dataset,
                self.technique,
                create=self.create,
                dry_run=self.dry_run,
                check=partial(self._check_before_creation, source),
            )
            return [] if target is None else [target]
        found = files = 0
        async for batch in self._scan(source):
            found += len(batch)
            files += sum(not isinstance(file, ItemResult) for file in batch)
        if not found:
            raise self._no_files_error()
        return await ensure_series(
            client,
            self.dataset,
            self.technique,
            max(1, math.ceil(files / self.per_dataset)),
            create=self.create,
            dry_run=self.dry_run,
        )

    async def _scan(self, source: Source) -> AsyncIterator[Sequence[object]]:
        reader = await create_source_reader(source)
        await anyio.to_thread.run_sync(reader.prepare, abandon_on_cancel=True)
        async for batch in reader.batches(self.rules):
            yield batch

    async def _check_before_creation(self, source: Source) -> None:
        """Check that a new dataset would not stay empty because of an error.

        Raises:
            ConfigError: the journal belongs to another dataset.
            JournalError: the file is not a journal.
            KnowledgeError: there are no files.
        """
        if self.journal is not None:
            await anyio.to_thread.run_sync(require_new_journal, self.journal)
        if self._files_from is not None:  # it has a first file
            return
        async for batch in self._scan(source):
            if batch:
                return
        raise self._no_files_error()

    def _announce_new_journal(self, targets: Sequence[Dataset]) -> None:
        if self.journal is None or self.dry_run or self.journal.exists():
            return
        if count := sum(target.document_count or 0 for target in targets):
            output.note(
                f"New journal {output.escape(str(self.journal))}: it does not know the"
                f" {format_count(count, 'document')} of {output.escape(targets[0].name)}. Files"
                " with their names are sent again, as --on-existing says."
            )

    def _no_files_error(self) -> KnowledgeError:
        names = [source.identity for source in self._sources] or self.paths
        places = ", ".join(map(output.escape, names))
        return KnowledgeError(
            f"No files to load in {places}.",
            hint="Check PATH, --include and --exclude. Hidden files require an --include.",
        )

    def _record_listed(self, result: ItemResult) -> None:
        """Record a path of the list that is not loaded."""
        results = self._refused if result.outcome is Outcome.FAILED else self._missing
        if len(results) < output.MAX_LISTED_FAILURES:
            results.append(result)
        self._handle_event(result)

    def _handle_event(self, event: LoadEvent) -> None:
        # A result without a name is that of a file which no rule lets through.
        if (
            isinstance(event, ItemResult)
            and event.key in self._named_keys
            and event.outcome is Outcome.SKIPPED
            and not event.name
        ):
            self._named_skipped.append(event)
        self._progress.handle_event(event)

    def _report_finished(self, report: LoadReport) -> int:
        continue_if_unwritable()
        if self._files_from is not None:
            report = _add_listed(report, self._files_from.counts)
        if self.command.json:
            output.print_json({"type": "report", **report.to_dict()})
        self._progress.log.write("report", report.to_dict())
        if (
            not report.found
            and report.stopped in {None, StopReason.NO_FILES}
            and self._files_from is None
        ):
            raise self._no_files_error()
        self._print(report)
        self._progress.write_page(report, self._refused)
        first_item = self.stops_at_first_failure and report.stopped is StopReason.MAX_FAILURES
        if self._named_skipped and not self.dry_run:
            for result in self._named_skipped:
                output.err.print(load_summary.format_result(result))
            return report.exit_code or exit_codes.FILES_FAILED
        return exit_codes.FILES_FAILED if first_item else report.exit_code

    def _print(self, report: LoadReport) -> None:
        if not self.command.quiet:
            console = output.err if self.command.json else output.out
            load_summary.print_summary(console, report, self._planned.counts)
        if not self.dry_run:
            load_summary.print_failures(report, self._refused)
        load_summary.print_warnings(report)
        if self._missing:
            names = ", ".join(output.escape(result.key) for result in self._missing)
            more = ", …" if len(self._missing) < report.skipped_reasons[MISSING_REASON] else ""
            output.note(f"Listed files that do not exist, whose documents stay: {names}{more}")
        if line := load_summary.format_stop_reason(report):
            output.err.print(line)
        step = load_summary.next_step(report, self.command.invocation.arguments, self._refused)
        if step and (report.stopped is not None or not self.command.quiet):
            output.err.print(f"next:  {self.command.invocation.complete_hint(step)}")


def open_url_list(command: CommandContext, url_list: str) -> UrlList:
    """Return the source of the URLs that a file or standard input (`-`) lists."""
    urls: str | list[str] = url_list
    if url_list == "-":
        with open(sys.stdin.fileno(), "rb", closefd=False) as stdin:
            urls = stdin.read().decode("utf-8", "replace").splitlines()
    return UrlList(
        urls,
        name="-" if url_list == "-" else None,
        proxy=command.proxy,
        trust_env=command.trust_env,
        ssl=command.create_ssl_context(),
    )


def _find_named_keys(paths: Sequence[str | Path]) -> frozenset[str]:
    """Return the keys of the files among paths that are inside of a folder among them.

    Raises:
        ConfigError: a path does not exist.
    """
    folders = [root for root in resolve_roots(paths) if root.key is None]
    files = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 -- as for the roots
    return frozenset(
        f"{root.label}{file.relative_to(root.path).as_posix()}"
        for file in files
        for root in folders
        if root.path in file.parents and not file.is_dir()
    )


def _add_listed(report: LoadReport, counts: Counter[Outcome]) -> LoadReport:
    """Return a report with the listed paths that were not loaded."""
    missing = counts[Outcome.SKIPPED]
    return attrs.evolve(
        report,
        found=report.found + counts.total(),
        failed=report.failed + counts[Outcome.FAILED],
        skipped=report.skipped + missing,
        skipped_reasons={
            **report.skipped_reasons,
            **({MISSING_REASON: missing} if missing else {}),
        },
    )


def _folder_name(folder: Path) -> str:
    """Return the path of a folder as a scan gives it, so that both loads share a journal."""
    return os.path.abspath(folder)  # noqa: PTH100 -- resolve() would follow links
