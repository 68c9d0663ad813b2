"""One `load` of the command line: what it is told while it runs, and what it says at its end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio.to_thread
import attrs
import typer
from attrs import define, field, frozen

from dify_kb import AsyncClient, Attempted, Dataset, ItemResult, LoadReport, Progress, StopReason
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.ingest import LoadEvent, NamedSource, OnLoadEvent, Rules, Source, roots_of

from . import ending, exits, progress, rehearsal, show, target
from .app import Session
from .datasets import Technique
from .interrupt import PIPE, Interrupt, discard_output
from .listed import Listed
from .log import Log
from .so_far import SoFar

GRACE = "Finishing the uploads under way (10 s at most); Ctrl-C again ends at once."


@frozen(kw_only=True)
class Given:
    """What a load is told that is known only once its dataset is."""

    source: Source
    on_event: OnLoadEvent


@define(kw_only=True)
class Course:
    """Runs a load and ends the program with its exit code."""

    session: Session
    dataset: str
    technique: Technique | None
    create: bool
    paths: Sequence[Path]
    list_file: str | None
    null: bool
    rules: Rules
    dry_run: bool
    first_failure: bool
    """Whether the first failure stops it; that exits as failures do."""

    verifies: bool
    start: Callable[[AsyncClient, Dataset, Given], Awaitable[LoadReport]]
    _interrupt: Interrupt = field(factory=Interrupt, init=False)
    _so_far: SoFar = field(factory=SoFar, init=False)
    _refused: list[ItemResult] = field(factory=list, init=False)
    _display: progress.Display = field(default=progress.nothing, init=False)
    _log: Log = field(init=False)
    _listed: Listed | None = field(default=None, init=False)

    def run(self, written: Log) -> None:
        """Load, and write down what becomes of it.

        Raises:
            ConfigError: there is nothing that can be loaded.
            typer.Exit: with the code.
        """
        self._log = written
        self._check()
        self._interrupt.farewell = lambda: f"Ended at once. {self._resumes()}"
        code = self.session.code_of(self._main, self._interrupt)
        if self._interrupt.cut and code != PIPE:
            self._cut_off(code)
        raise typer.Exit(code)

    def _check(self) -> None:
        """Tell what is wrong before a dataset is made for it."""
        if self.list_file is None:
            if self.null:
                raise ConfigError("--null is about --files-from.", hint="Name a list, or drop it.")
            if not self.paths:
                raise ConfigError("No PATH is named.", hint="Name folders or files to load.")
            roots_of(self.paths)
            return
        if len(self.paths) > 1:
            raise ConfigError(
                "--files-from lists files of one folder.", hint="Name one PATH, or none."
            )
        self._listed = Listed(
            folder=self.paths[0] if self.paths else Path(),
            source=self.list_file,
            null=self.null,
            on_refused=self._refuse,
            given_up=lambda: self._interrupt.code is not None,
        )
        self._listed.check()

    async def _main(self) -> int:
        source: Source = self.paths
        if self._listed is not None:
            items = self._listed.items()
            first = await anyio.to_thread.run_sync(next, items, None)
            if first is None:  # as in a job that runs every hour, and finds nothing new
                return self._finish(LoadReport(dry_run=self.dry_run))
            source = NamedSource(itertools.chain((first,), items), _name(self._listed.folder))
        async with self.session.client(on_event=self._attempted) as client:
            where = await target.dataset(
                client, self.dataset, self.technique, create=self.create, dry_run=self.dry_run
            )
            if where is None:
                return self._finish(await rehearsal.into_nothing(source, self.rules, self._listen))
            if self.verifies and not self.session.quiet:
                show.err.print(
                    "Verifying costs a request for each document that is sent, and one per 100"
                    " of the dataset."
                )
            given = Given(source=source, on_event=self._listen)
            quiet = self.session.quiet or self.dry_run
            with progress.display(quiet=quiet, plain=self.session.verbose) as self._display:
                self._interrupt.on_first = lambda: show.err.print(GRACE)
                report = await self.start(client, where, given)
        return self._finish(report)

    def _refuse(self, result: ItemResult) -> None:
        if len(self._refused) < ending.LISTED:
            self._refused.append(result)
        self._listen(result)

    def _listen(self, event: LoadEvent) -> None:
        self._so_far.add(event)
        if isinstance(event, Progress):
            self._display(self._so_far)
            return
        fields = attrs.asdict(event)
        self._log.write("item", fields)
        try:
            if self.session.json:
                show.line({"type": "item", **fields})
            elif self.dry_run:
                rehearsal.tell(event)
        except BrokenPipeError:
            discard_output()
            self._interrupt.stop(PIPE)

    def _attempted(self, event: Attempted) -> None:
        self._so_far.attempted(event)
        self._display(self._so_far)

    def _finish(self, report: LoadReport) -> int:
        if self._listed is not None:
            refused = self._listed.refused
            report = attrs.evolve(
                report, found=report.found + refused, failed=report.failed + refused
            )
        if self.session.json:
            show.line({"type": "report", **report.to_dict()})
        self._log.write("report", report.to_dict())
        if not report.found and report.stopped is None and self._listed is None:
            places = ", ".join(show.printable(str(path)) for path in self.paths)
            raise KnowledgeError(
                f"There is nothing to load in {places}.",
                hint="Check the path, --include and --exclude; hidden files need an --include.",
            )
        self._tell(report)
        first = self.first_failure and report.stopped is StopReason.MAX_FAILURES
        return exits.FILES if first else report.exit_code

    def _tell(self, report: LoadReport) -> None:
        console = show.err if self.session.json else show.out
        if not self.session.quiet:
            ending.summary(console, report)
            if not self.dry_run:
                ending.failures(console, report, self._refused)
        if report.stopped is not None:
            message = show.printable(report.stop_message or "")
            show.err.print(f"error: The load stopped ({report.stopped}): {message}")
        following = ending.following(report, self.session.call.words)
        if following and (report.stopped is not None or not self.session.quiet):
            show.err.print(f"next:  {following}")

    def _cut_off(self, code: int) -> None:
        """Say how far it got."""
        told = {"type": "interrupted", "exit": code, **self._so_far.to_dict()}
        self._log.write("interrupted", told)
        if self.session.json:
            show.line(told)
        show.err.print(f"Interrupted. {self._so_far}")
        show.err.print(f"next:  {self._resumes()}")

    def _resumes(self) -> str:
        again = ending.command(self.session.call.words)
        return f"This goes on where it stood:\n       {again}"


def _name(folder: Path) -> str:
    """Name a folder as a scan does, so that the journal is that of a load of all of it."""
    return os.path.abspath(folder)  # noqa: PTH100 -- resolve() would follow links
