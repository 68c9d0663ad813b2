"""Sync a dataset with a source: scan, read the dataset, decide, execute, delete, report."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, evolve, field

from dify_kb.errors import ConfigError, JournalError
from dify_kb.ingest.engine.run import LoadRun
from dify_kb.ingest.journal import Journal, JournalState
from dify_kb.ingest.load import (
    create_admission,
    fetch_dataset,
    make_failure_reader,
    open_load_journal,
    raise_single_error,
    show_progress,
)
from dify_kb.ingest.load_setup import LoadSetup, prepare_load
from dify_kb.ingest.metadata.sync_fields import check_sync_id
from dify_kb.ingest.report import ItemResult, LoadReport, StopReason
from dify_kb.ingest.sources.source_reader import SourceReader, create_source_reader
from dify_kb.models import Dataset
from dify_kb.resources.metadata_assignment import MetadataAssignment

from .delete_documents import DocumentDeleter
from .guards import Hold, find_hold, find_missing_path, hold_deletes
from .make_plan import HEAD, HEAD_SIZE, DatasetHead, PlanMaker
from .make_report import make_report, missing_source_report, predict_report
from .sync_options import SyncOptions
from .sync_plan import SyncPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.ingest.sources.found_file import FoundFile
    from dify_kb.ingest.sources.items import Source
    from dify_kb.transport import Sender

    from .sync_report import SyncReport


async def sync(
    sender: Sender,
    identity: str | None,
    dataset_id: Dataset | str,
    source: Source,
    options: SyncOptions,
) -> SyncReport:
    """Update a dataset to the documents of a source, and return the report.

    Args:
        identity: identifies the server in journals; None for an embedded server in memory.

    Raises:
        ConfigError: the source has no path and no `id` is given, the dataset has no indexing
            technique, or the journal belongs to another sync.
        JournalError: the journal is in use, damaged, of another version, or cannot be written.
        KnowledgeError: the dataset could not be fetched or listed.
    """
    key = dataset_id.id if isinstance(dataset_id, Dataset) else dataset_id
    if missing := await anyio.to_thread.run_sync(find_missing_path, source):
        return missing_source_report(missing)
    with show_progress(sender, options.load) as (watched, shown):
        options = evolve(options, load=shown)
        reader = await create_source_reader(source)
        admission = create_admission(watched, key, shown)
        try:
            setup = await prepare_load(watched, identity, key, shown, admission)
            try:
                await anyio.to_thread.run_sync(reader.prepare, abandon_on_cancel=True)
                return await _sync(setup, key, reader, options)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(reader.close)
        finally:
            admission.close()


def make_sync_id(dataset_id: str, source_identity: str) -> str:
    """Return the default id of a sync: a hash of its dataset and its source."""
    text = f"{dataset_id}\0{source_identity}".encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:12]


async def _sync(
    setup: LoadSetup, dataset_id: str, reader: SourceReader, options: SyncOptions
) -> SyncReport:
    if reader.identity is None and options.id is None:
        raise ConfigError(
            "A sync of items needs an id, which tells its documents from those of others.",
            hint="Pass id='NAME', the same in each run.",
        )
    sync_id = options.id or make_sync_id(dataset_id, reader.identity or "")
    check_sync_id(sync_id)
    identity = {"server": setup.server.identity or "", "dataset": dataset_id}
    identity["source"] = f"sync {options.id}" if options.id else reader.identity or ""
    named = evolve(reader, identity=identity["source"])
    async with open_load_journal(setup.server, identity, named, options.load) as journal:
        is_kept = options.load.journal is not None or setup.server.identity is not None
        if not is_kept or (journal.path is None and not options.load.dry_run):
            options = evolve(options, state="base")  # or the next run would know no document
        run = SyncRun(
            setup=setup,
            dataset_id=dataset_id,
            source=reader,
            options=options,
            journal=journal,
            sync_id=sync_id,
        )
        with setup.callbacks.scope, raise_single_error():
            await run.execute()
        if setup.callbacks.error is not None:
            raise setup.callbacks.error
        report = await run.finish()
    if options.load.errors == "stop":
        report.raise_for_failures()
    return report


@define(kw_only=True)
class SyncRun:
    """One run of a sync."""

    setup: LoadSetup
    dataset_id: str
    source: SourceReader
    options: SyncOptions
    journal: Journal
    sync_id: str
    _started: float = field(factory=time.monotonic)
    _plan: SyncPlan = field(factory=SyncPlan)
    _load: LoadReport | None = None
    _head: DatasetHead = field(factory=DatasetHead)
    """The head of the dataset before the run."""

    _deleter: DocumentDeleter | None = None
    _hold: Hold | None = None

    async def execute(self) -> None:
        """Scan the source, decide, and carry the plan out.

        Raises:
            KnowledgeError: the dataset could not be fetched or listed.
        """
        items = await self._scan()
        if missing := await self._find_missing(items):
            self._hold = Hold(
                f"the file {missing} is missing in the source", StopReason.SOURCE_MISSING
            )
            self._plan.held = self._hold.reason
            return
        maker = PlanMaker(
            setup=self.setup,
            dataset_id=self.dataset_id,
            source=self.source,
            options=self.options,
            journal=self.journal,
            sync_id=self.sync_id,
        )
        self._plan = await maker.make(items)
        self._head = maker.head
        self._hold = find_hold(self._plan, items, self.options)
        if self._hold is not None:
            hold_deletes(self._plan, self._hold.reason)
        if not self.options.load.dry_run:
            await self._carry_out()
        elif on_event := self.setup.options.on_event:
            for one in self._plan.files:
                if isinstance(one, ItemResult):
                    on_event(one)

    async def finish(self) -> SyncReport:
        """Write the rest of the journal, and return the report."""
        load, deleter = self._load, self._deleter
        dry_run = self.options.load.dry_run
        base = predict_report(self._plan, dry_run=dry_run) if load is None else load
        report = make_report(
            evolve(
                base,
                requests=self.setup.requests.total,
                seconds=time.monotonic() - self._started,
                journal=str(self.journal.path) if self.journal.path else None,
            ),
            self._plan,
            self._hold,
            renamed=None if load is None else deleter.renamed if deleter else 0,
            deleted=None if load is None else deleter.deleted if deleter else 0,
            failures=make_failure_reader(self.journal),
        )
        self.journal.finish_run(report.to_json())
        return report

    # What there is

    async def _scan(self) -> list[FoundFile | ItemResult]:
        return [
            item async for batch in self.source.batches(self.options.load.rules) for item in batch
        ]

    async def _find_missing(self, items: Sequence[FoundFile | ItemResult]) -> str | None:
        wanted = set(self.options.check) - {item.key for item in items}
        if wanted:
            find = self.source.exists
            wanted -= set(
                await anyio.to_thread.run_sync(find, self.options.load.rules, list(wanted))
            )
        return min(wanted, default=None)

    # Carrying the plan out

    async def _carry_out(self) -> None:
        plan = self._plan
        await self._write_rows(plan)
        needs_load = any(not isinstance(one, ItemResult) for one in plan.files)
        needs_dataset = needs_load or plan.deletions or plan.restored or plan.renames
        if needs_dataset:
            await self._change_dataset(plan)
        else:
            self._load = await self._run_load(Dataset(id=self.dataset_id, name=""))
        await self.journal.flush()
        await self._remember_head()

    async def _change_dataset(self, plan: SyncPlan) -> None:
        server = self.setup.server
        dataset = await fetch_dataset(server)
        self.journal.record_dataset_name(dataset.name)
        assignment = MetadataAssignment(self.setup.sender, dataset)
        self._deleter = DocumentDeleter(
            documents=server.documents,
            dataset_id=dataset.id,
            assignment=assignment if self.options.state == "base" else None,
            sync_id=self.sync_id,
            journal=self.journal,
            breaker=server.breaker,
            options=self.options,
            times=server.policy.load_timing,
        )
        self.journal.set_value(HEAD, "")  # until this run has ended
        await self.journal.flush()
        for row in plan.restored:
            await self._deleter.restore(row)
        if self.options.keep_ids:
            await self._deleter.rename_in_place(plan)
        self._load = await self._run_load(dataset, assignment)
        if self._load.stopped is not None:
            hold_deletes(plan, f"the sync was stopped: {self._load.stop_message}")
            return
        await self._deleter.finish_renames(plan, await self._read_done_keys(plan))
        await self._deleter.delete_versions(plan)
        if (failed := _count_failed(self._load)) and not self.options.ignore_errors:
            hold_deletes(plan, f"{failed:,} files failed; ignore_errors=True (--ignore-errors)")
        await self._deleter.delete_all(plan)

    async def _write_rows(self, plan: SyncPlan) -> None:
        for old, row in plan.moved:
            self.journal.move(old, row.key, row.name)
        for row in plan.adopted:
            await self.journal.record_intent(row)
            self.journal.record_accepted(
                row.key, row.document_id or "", row.batch, row.upload_file_id
            )
            self.journal.record_state(row.key, row.state)
        for key in plan.forgotten:
            self.journal.forget(key)
        await self.journal.flush()

    async def _run_load(
        self, dataset: Dataset, assignment: MetadataAssignment | None = None
    ) -> LoadReport:
        setup = self.setup
        run = LoadRun(
            server=setup.server,
            dataset=dataset,
            source=self.source,
            journal=self.journal,
            options=self.options.load,
            assignment=assignment or MetadataAssignment(setup.sender, dataset),
            requests=setup.requests,
            metadata=setup.metadata,
            foreign_ids=self._plan.foreign_ids,
        )
        await run.execute_plan(self._plan.files)
        try:
            await self.journal.flush()
        except JournalError as error:
            run.files.stop_for_error(error)
        return run.ledger.report(time.monotonic() - self._started)

    async def _read_done_keys(self, plan: SyncPlan) -> set[str]:
        """Return the new keys of the renamed files whose documents are indexed."""
        keys = [rename.key for rename in plan.renames]
        done = set[str]()
        for start in range(0, len(keys), HEAD_SIZE):
            rows = await anyio.to_thread.run_sync(
                self.journal.get_rows, keys[start : start + HEAD_SIZE]
            )
            done |= {key for key, row in rows.items() if row.state is JournalState.DONE}
        return done

    async def _remember_head(self) -> None:
        """Store by what the next run knows that nobody else made or deleted a document.

        The newest id and the number of documents suffice: ids are never reused, and new documents
        come first. After changes, both must be those that the changes of this run lead to.
        """
        if self._deleter is None:
            self.journal.set_value(HEAD, str(self._head))
            return
        rows = await anyio.to_thread.run_sync(self.journal.files.list_rows)
        page = await self.setup.server.documents.list(self.dataset_id, limit=1)
        newest = page.data[0].id if page.data else ""
        ids = {row.document_id for row in rows}
        expected = len(ids - {None}) + self._plan.foreign
        known = newest in ids or newest == self._head.newest
        head = str(DatasetHead(page.total, newest)) if known and page.total == expected else ""
        self.journal.set_value(HEAD, head)


def _count_failed(report: LoadReport) -> int:
    return report.failed + report.stalled + report.unknown + report.pending
