"""Sync a dataset with a source: scan, read the dataset, decide, execute, delete, report."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs
from attrs import define, evolve, field

from dify_kb.errors import ConfigError, JournalError
from dify_kb.ingest.engine.run import LoadRun
from dify_kb.ingest.journal import Journal, JournalRow, JournalState
from dify_kb.ingest.load import (
    LoadSetup,
    create_admission,
    fetch_dataset,
    make_failure_reader,
    open_load_journal,
    prepare_load,
    raise_single_error,
    show_progress,
)
from dify_kb.ingest.metadata.sync_fields import check_sync_id
from dify_kb.ingest.planning.document_lookup import MAX_NAME_QUERIES, DocumentLookup
from dify_kb.ingest.planning.planner import Planner
from dify_kb.ingest.remote_document import AddedDocuments
from dify_kb.ingest.report import ItemResult, LoadReport, Outcome, StopReason
from dify_kb.ingest.sources.file_source import parse_scheme
from dify_kb.ingest.sources.source_reader import SourceReader, create_source_reader
from dify_kb.models import Dataset, Document, Page
from dify_kb.resources.metadata_assignment import MetadataAssignment

from .dataset_documents import DatasetDocuments, Ownership, read_rows
from .delete_documents import DocumentDeleter
from .edited_documents import keep_edited
from .guards import Hold, find_hold, hold_deletes
from .sync_options import SyncOptions
from .sync_plan import SyncDecider, SyncPlan
from .sync_report import SyncAction, SyncReport

if TYPE_CHECKING:
    from dify_kb.ingest.sources.found_file import FoundFile
    from dify_kb.ingest.sources.items import Source
    from dify_kb.transport import Sender


HEAD_SIZE = 100
"""Documents of the first page: up to this number, it shows all of them."""


async def sync(
    sender: Sender,
    identity: str | None,
    dataset_id: Dataset | str,
    source: Source,
    options: SyncOptions,
) -> SyncReport:
    """Make the documents of a sync those of a source, and return the report.

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
    _head: tuple[int, str] = (0, "")
    """The number of documents and the id of the newest one, before the run."""

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
        self._plan = await self._decide(items)
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
        report = self._make_report()
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

    async def _decide(self, items: Sequence[FoundFile | ItemResult]) -> SyncPlan:
        """Return the plan; read of the dataset what it needs."""
        known = await anyio.to_thread.run_sync(self.journal.files.list_rows)
        rows = {row.key: row for row in known}
        page = await self._read(limit=HEAD_SIZE)
        self._head = (page.total, page.data[0].id if page.data else "")
        if page.total <= len(page.data):
            return await self._decide_with(items, rows, DatasetDocuments.from_list(page.data))
        remembered = await anyio.to_thread.run_sync(self.journal.get_value, HEAD)
        unsettled = any(row.state is JournalState.SENDING for row in known)
        if self.options.state == "base" or not rows or remembered != _encode_head(self._head):
            return await self._decide_with(items, rows, await self._list_all(page.data))
        trusted = DatasetDocuments.from_list((), ())
        plan = await self._decide_with(items, rows, trusted)
        if plan.is_idle and not unsettled:
            plan.foreign = self._head[0] - plan.owned
            return plan
        names = plan.affected_names() | {
            row.name for row in known if row.state is JournalState.SENDING
        }
        if len(names) > MAX_NAME_QUERIES or self.options.load.dry_run:
            return await self._decide_with(items, rows, await self._list_all(page.data))
        lookup = DocumentLookup(self.setup.server.documents, self.dataset_id)
        documents = [one for name in sorted(names) for one in await lookup.find_all(name)]
        plan = await self._decide_with(items, rows, DatasetDocuments.from_list(documents, names))
        plan.foreign = self._head[0] - plan.owned
        return plan

    async def _read(self, *, limit: int) -> Page[Document]:
        return await self.setup.server.documents.list(self.dataset_id, limit=limit)

    async def _list_all(self, first: Sequence[Document]) -> DatasetDocuments:
        """List all documents, after their first page."""
        documents, total, page = list(first), self._head[0], 2
        while len(documents) < total:
            rows = await self.setup.server.documents.list(
                self.dataset_id, page=page, limit=HEAD_SIZE
            )
            if not rows.data or rows.total != total:
                # A document was deleted or made meanwhile, so that others have changed places.
                return await self._list_again()
            documents += rows.data
            page += 1
        return DatasetDocuments.from_list(documents)

    async def _list_again(self) -> DatasetDocuments:
        """List all documents twice, as one list may miss some while others are deleted."""
        pages = [self.setup.server.documents.iter(self.dataset_id) for _ in range(2)]
        return DatasetDocuments.from_list([row for rows in pages async for row in rows])

    async def _decide_with(
        self,
        items: Sequence[FoundFile | ItemResult],
        journal_rows: Mapping[str, JournalRow],
        documents: DatasetDocuments,
    ) -> SyncPlan:
        rows, leftovers = dict(journal_rows), list[Document]()
        if documents.is_complete and (self.options.state == "base" or not rows):
            rows, leftovers = read_rows(documents, self.sync_id, journal_rows)
            await anyio.to_thread.run_sync(self.journal.files.replace_rows, list(rows.values()))
        ids = {row.document_id for row in rows.values() if row.document_id is not None}
        ids |= {one.id for row in rows.values() for one in documents.find_versions(row)}
        planner = self._planner()
        decider = SyncDecider(
            options=self.options,
            sync_id=self.sync_id,
            documents=documents,
            ownership=Ownership(self.sync_id, frozenset(ids), leftovers),
            rows=rows,
            plan_files=planner.plan_known,
            find_existing=lambda keys: self.source.exists(self.options.load.rules, keys),
            now=time.time(),
        )
        plan = await anyio.to_thread.run_sync(decider.decide, items)
        planner.record_changes()
        if self.options.protect_edits and documents.is_complete:
            await keep_edited(plan, self.setup.sender, self.dataset_id)
        return plan

    def _planner(self) -> Planner:
        server, options = self.setup.server, self.options.load
        return Planner(
            journal=self.journal,
            documents=server.documents,
            dataset=Dataset(id=self.dataset_id, name=""),
            source=self.source,
            rules=options.rules,
            options=options.plan_options,
            metadata=self.setup.metadata,
            checksum=options.checksum,
            breaker=server.breaker,
            added=AddedDocuments(),
        )

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
            self.journal.set_value(HEAD, _encode_head(self._head))
            return
        rows = await anyio.to_thread.run_sync(self.journal.files.list_rows)
        page = await self._read(limit=1)
        newest = page.data[0].id if page.data else ""
        ids = {row.document_id for row in rows}
        expected = len(ids - {None}) + self._plan.foreign
        known = newest in ids or newest == self._head[1]
        head = _encode_head((page.total, newest)) if known and page.total == expected else ""
        self.journal.set_value(HEAD, head)

    # The report

    def _make_report(self) -> SyncReport:
        plan, load, deleter = self._plan, self._load, self._deleter
        counts = Counter(one.action for one in plan.changes)
        kept = Counter(one.reason or "" for one in plan.changes if one.action is SyncAction.KEEP)
        renamed, deleted = counts[SyncAction.RENAME], counts[SyncAction.DELETE]
        if load is not None:
            renamed, deleted = (deleter.renamed, deleter.deleted) if deleter else (0, 0)
        base = self._predict() if load is None else load
        fields = {
            one.name: getattr(base, one.name)
            for one in attrs.fields(LoadReport)
            if one.name != "_failures"
        }
        requests = self.setup.requests
        fields |= {
            "added": base.added - renamed,
            "requests": requests.total,
            "retries": base.retries,
            "seconds": time.monotonic() - self._started,
        }
        if base.stopped is None and self._hold is not None and self._hold.stop is not None:
            fields |= {"stopped": self._hold.stop, "stop_message": _sentence(self._hold.reason)}
        return SyncReport(
            **fields,
            renamed=renamed,
            deleted=deleted,
            kept_back=sum(kept.values()),
            foreign=plan.foreign,
            conflicts=plan.conflicts,
            held=plan.held,
            kept_back_reasons=dict(kept),
            changes=tuple(plan.changes),
            _failures=make_failure_reader(self.journal),
        )

    def _predict(self) -> LoadReport:
        """Return the report of a run that changes nothing, with what it would do."""
        plan, requests = self._plan, self.setup.requests
        counts = Counter(one.action for one in plan.changes)
        skipped = Counter(
            one.reason or ""
            for one in plan.files
            if isinstance(one, ItemResult) and one.outcome is Outcome.SKIPPED
        )
        failed = counts[SyncAction.FAIL]
        added = counts[SyncAction.ADD] + counts[SyncAction.RENAME]
        found = len(plan.files)
        return LoadReport(
            found=found,
            added=added,
            updated=counts[SyncAction.UPDATE],
            unchanged=found - added - counts[SyncAction.UPDATE] - failed - skipped.total(),
            skipped=skipped.total(),
            failed=failed,
            requests=requests.total,
            retries=requests.retries,
            seconds=time.monotonic() - self._started,
            skipped_reasons=dict(skipped),
            dry_run=self.options.load.dry_run,
            journal=str(self.journal.path) if self.journal.path else None,
        )


def missing_source_report(path: str) -> SyncReport:
    """Return the report of a sync whose source does not exist."""
    reason = f"the source {path} does not exist"
    return SyncReport(
        stopped=StopReason.SOURCE_MISSING, stop_message=_sentence(reason), held=reason
    )


HEAD = "sync_head"
"""The name of the value in the journal that identifies the state of the dataset."""


def _encode_head(head: tuple[int, str]) -> str:
    return json.dumps(head)


def _count_failed(report: LoadReport) -> int:
    return report.failed + report.stalled + report.unknown + report.pending


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def find_missing_path(source: Source) -> str | None:
    """Return the first path of a source that does not exist. Blocking."""
    elements = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    for element in elements:
        if not isinstance(element, str | os.PathLike) or parse_scheme(element):
            continue
        if os.fspath(element) and not os.path.lexists(element):
            return os.fspath(element)
    return None
