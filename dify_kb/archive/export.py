"""Export a dataset to an archive."""

from __future__ import annotations

import fnmatch
import json
import math
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from attrs import asdict, define, evolve, field, frozen

from dify_kb.errors import BadRequestError, ConfigError, NotFoundError
from dify_kb.ingest import StopReason
from dify_kb.models import Condition, Dataset, MetadataFilter
from dify_kb.rag.filter_evaluation import matches_filter
from dify_kb.wire.version_bugs import is_older

from .archive_format import MANIFEST, STATE, Manifest
from .archive_session import ArchiveSession, OnArchiveEvent, open_archive_session, run_workers
from .archived_document import ArchivedDocument, ArchivedFile, compute_digest, dump_canonical
from .download_files import FIRST_WITH_ZIP, LAST_WITH_LINK, FileDownloader
from .export_state import ExportState, ListedRow, StoredDocument
from .read_archive import pack_zip
from .read_dataset import (
    FIRST_WITH_DETAIL,
    DatasetReader,
    check_exportable,
    describe_dataset,
    describe_row,
)
from .restore_plan import FOREIGN_SOURCE
from .write_archive import (
    forget_missing_files,
    prepare_folder,
    remove_leftovers,
    store_file,
    write_members,
)

if TYPE_CHECKING:
    import os

    from dify_kb.models import Document
    from dify_kb.transport import Sender

MAX_LISTS: Final = 3
"""Times that the list is read while documents are deleted during it."""


@frozen(kw_only=True)
class ExportReport:
    """The result of an export. Truthy if the archive is complete.

    `documents`, `chunks`, `child_chunks` and `files` count the content of the archive; `exported`
    documents were read in this run, `unchanged` ones by an earlier run, `removed` ones no longer
    exist. `missing_files` maps each reason to the number of documents without a file. After a dry
    run `exported` counts the documents that would be read, with about `planned_requests` requests.
    """

    path: str
    documents: int = 0
    chunks: int = 0
    child_chunks: int = 0
    files: int = 0
    exported: int = 0
    unchanged: int = 0
    removed: int = 0
    missing_files: Mapping[str, int] = field(factory=dict)
    requests: int = 0
    planned_requests: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: StopReason | None = None
    stop_message: str | None = None
    warnings: Sequence[str] = ()

    def __bool__(self) -> bool:
        return self.stopped is None

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return self.stopped.exit_code if self.stopped else 0

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the report as JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}


@frozen(kw_only=True)
class ExportOptions:
    """The options of an export; `AsyncClient.export` documents them."""

    files: bool = True
    only: Sequence[str] = ()
    filter: MetadataFilter | None = None
    full: bool = False
    dry_run: bool = False
    concurrency: int = 4

    def selects(self, row: Document) -> bool:
        """Return whether a document is exported."""
        return (
            not self.only or any(fnmatch.fnmatchcase(row.name, glob) for glob in self.only)
        ) and (self.filter is None or matches_filter(row.metadata_values, self.filter))

    @property
    def selection(self) -> str | None:
        """What is selected, as text; None for everything."""
        parts = [f"name {' or '.join(self.only)}"] if self.only else []
        if self.filter is not None:
            joined = f" {self.filter.logical_operator} ".join(
                _describe_condition(condition) for condition in self.filter.conditions
            )
            parts.append(joined)
        return "; ".join(parts) or None


def _describe_condition(condition: Condition) -> str:
    value = "" if condition.value is None else f" {condition.value}"
    return f"{condition.name} {condition.comparison_operator}{value}"


async def export_dataset(
    sender: Sender,
    dataset_id: str,
    path: str | os.PathLike[str],
    options: ExportOptions,
    on_event: OnArchiveEvent | None = None,
) -> ExportReport:
    """Export a dataset; see `AsyncClient.export`.

    Raises:
        ArchiveError: the folder is in use, or not one of an export.
        ConfigError: the dataset is external or has a pipeline, or the folder has another dataset.
        KnowledgeError: the dataset could not be fetched.
    """
    target = Path(path)
    as_zip = target.suffix == ".zip"
    folder = target.with_name(f"{target.name}.parts") if as_zip else target
    started = time.monotonic()
    async with open_archive_session(sender, dataset_id, on_event=on_event) as session:
        dataset = await session.datasets.get(dataset_id)
        check_exportable(dataset)
        if not options.dry_run:
            await anyio.to_thread.run_sync(prepare_folder, folder)
        is_new = options.dry_run and not (folder / STATE).exists()
        state = await anyio.to_thread.run_sync(ExportState.open, None if is_new else folder / STATE)
        try:
            report = await ExportRun(session, state, dataset, folder, options).execute()
        finally:
            state.close()
        if as_zip and report and not report.dry_run:
            await anyio.to_thread.run_sync(_pack, folder, target)
        seconds = time.monotonic() - started
        return evolve(report, path=str(target), seconds=seconds, requests=session.requests)


@define
class ExportRun:
    """One run of an export."""

    session: ArchiveSession
    state: ExportState
    dataset: Dataset
    folder: Path
    options: ExportOptions
    _reader: DatasetReader = field(init=False)
    _removed: int = field(default=0, init=False)
    _pending: int = field(default=0, init=False)
    _read: int = field(default=0, init=False)
    _manifest: Manifest | None = field(default=None, init=False)

    async def execute(self) -> ExportReport:
        """Run until the archive is complete, or the server stops responding."""
        await self.state.call(self._claim)
        self._reader = DatasetReader(self.session, self.dataset)
        stop = await self.session.run(self._export)
        documents, chunks, children = await self.state.call(self.state.sum_counts)
        manifest = self._manifest
        return ExportReport(
            path=str(self.folder),
            documents=documents,
            chunks=chunks,
            child_chunks=children,
            files=manifest.files if manifest else 0,
            exported=self._pending if self.options.dry_run else self._read,
            unchanged=max(0, documents - self._read),
            removed=self._removed,
            missing_files=await self.state.call(self.state.count_missing_files)
            if self.options.files
            else {},
            planned_requests=self.session.planned_requests or 0,
            dry_run=self.options.dry_run,
            stopped=stop.reason if stop else None,
            stop_message=stop.message if stop else None,
            warnings=await self.state.call(self._list_warnings),
        )

    def _claim(self) -> None:
        """Record which dataset the folder is of.

        Raises:
            ConfigError: it is of another one.
        """
        previous = self.state.get_meta("dataset")
        if previous not in {None, self.dataset.id}:
            raise ConfigError(
                f"{self.folder} is the archive of another dataset, {previous}.",
                hint="Pass another folder.",
            )
        self.state.set_meta("dataset", self.dataset.id)
        settings = compute_digest([self.options.files])
        if self.options.full or self.state.get_meta("settings") not in {None, settings}:
            self.state.forget_exports()
        self.state.set_meta("settings", settings)
        if not self.options.dry_run:
            remove_leftovers(self.folder)
            forget_missing_files(self.folder, self.state)

    async def _export(self) -> None:
        await self._list()
        self._pending = await self.state.call(lambda: self.state.count(pending=True))
        self._plan_requests()
        self.session.show("read", 0, self._pending)
        if self.options.dry_run:
            return
        await run_workers(self._iter_pending(), self._export_document, self.options.concurrency)
        self.session.show("write", 0, None)
        self._manifest = await self.state.call(self._write)

    async def _list(self) -> None:
        """Read the list of documents; again while deletes during it may have hidden some."""
        await self.state.call(self.state.start_list)
        for _ in range(MAX_LISTS):
            totals, listed = set[int](), set[str]()
            async for rows, total in self._reader.iter_row_pages():
                totals.add(total)
                listed |= {row.id for row in rows}
                described = [describe_row(row) for row in rows if self.options.selects(row)]
                await self.state.call(self.state.add_rows, described)
                self.session.show("list", len(listed), total)
            if len(totals) < 2 and len(listed) >= max(totals, default=0):  # noqa: PLR2004 -- unchanged
                break
        self._removed = await self.state.call(self.state.finish_list)

    def _plan_requests(self) -> None:
        """Estimate the requests: detail, first page of chunks, and file of each document."""
        version = self.session.sender.server_version
        per_document = (
            1 + _has_detail(version) + (_file_requests(version) if self.options.files else 0)
        )
        self.session.planned_requests = self.session.requests + per_document * self._pending

    async def _iter_pending(self) -> AsyncIterator[ListedRow]:
        place = (-math.inf, 0, "")
        while rows := await self.state.call(self.state.list_pending, place):
            for row in rows:
                yield row
            place = (rows[-1].created, rows[-1].position, rows[-1].id)

    async def _export_document(self, listed: ListedRow) -> None:
        try:
            document = await self._reader.read_document(listed)
        except NotFoundError:
            await self.state.call(self.state.remove, listed.id)
            return
        if self.options.files:
            document = await self._add_file(document, json.loads(listed.row))
        stored = StoredDocument(
            id=document.id,
            fingerprint=listed.fingerprint,
            line=dump_canonical(document.to_json()),
            chunks=len(document.chunks),
            children=sum(len(chunk.children) for chunk in document.chunks),
            file=document.file.sha256 if document.file else None,
            file_size=document.file.size if document.file else None,
            file_reason=document.file_reason,
            finished=document.status == "completed",
        )
        # The rule that new documents inherit; only a change of a document changes it.
        rule = None if self._reader.rule is None else dump_canonical(self._reader.rule).decode()
        await self.state.call(self.state.store, stored, rule)
        self._read += 1
        self.session.show("read", self._read, self._pending)

    async def _add_file(
        self, document: ArchivedDocument, row: Mapping[str, object]
    ) -> ArchivedDocument:
        if row["source"] not in {None, "upload_file"}:
            return evolve(document, file_reason=f"{FOREIGN_SOURCE}{row['source']}")
        try:
            content = await FileDownloader(self.session, self.dataset).fetch(document.id)
        except BadRequestError as error:
            content = error.summary
        if isinstance(content, str):
            return evolve(document, file_reason=content)
        upload = row["file"]
        name = str(upload[1]) if isinstance(upload, list) and upload[1] else document.name
        sha256 = await anyio.to_thread.run_sync(store_file, self.folder, content)
        return evolve(document, file=ArchivedFile(sha256=sha256, size=len(content), name=name))

    def _write(self) -> Manifest:
        rule = self.state.get_meta("rule")
        return write_members(
            self.folder,
            self.state,
            describe_dataset(self.dataset, json.loads(rule) if rule else None),
            self.session.sender.server_version,
            self.options.selection,
            has_files=self.options.files,
        )

    def _list_warnings(self) -> list[str]:
        unfinished = self.state.count_unfinished()
        return (
            [f"{unfinished} documents were not completely indexed when they were exported."]
            if unfinished
            else []
        )


def _has_detail(version: str | None) -> bool:
    return not (version and is_older(version, FIRST_WITH_DETAIL))


def _file_requests(version: str | None) -> int:
    """Return the requests for a file: a zip, a link and its file, or none."""
    if version is None or not is_older(version, FIRST_WITH_ZIP):
        return 1
    return 2 if is_older(version, LAST_WITH_LINK) else 0


def _pack(folder: Path, target: Path) -> None:
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    pack_zip(folder, manifest, target)
    shutil.rmtree(folder)
