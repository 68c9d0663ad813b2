"""Import an archive into a dataset."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import evolve

from dify_kb.ingest import state_folder
from dify_kb.models import Dataset

from .archive_session import OnArchiveEvent, open_archive_session
from .import_report import ImportOptions, ImportReport
from .import_run import ImportRun, estimate_requests
from .import_state import ImportState
from .read_archive import ArchiveReader
from .target_dataset import DatasetChoice
from .verify_archive import verify_archive

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from dify_kb.transport import Sender


def default_import_journal(identity: str, target: str, source_id: str) -> Path:
    """Return the default path of an import's journal, in the user's state folder."""
    digest = hashlib.sha256(f"{identity}\x00{target}\x00{source_id}".encode()).hexdigest()
    return state_folder() / "imports" / f"{digest[:16]}.db"


async def import_archive(
    sender: Sender,
    identity: str | None,
    path: str | os.PathLike[str],
    target: Dataset | str | None,
    name: str | None,
    options: ImportOptions,
    on_event: OnArchiveEvent | None = None,
) -> ImportReport:
    """Import an archive; see `AsyncClient.import_`.

    Args:
        identity: identifies the server in journals; None for an embedded server in memory.

    Raises:
        ArchiveError: the archive is damaged, or its journal is in use. Nothing was changed.
        ConfigError: the dataset does not fit, or has some of the documents. Nothing was changed.
    """
    started = time.monotonic()
    (await anyio.to_thread.run_sync(verify_archive, path)).raise_for_problems()
    archive = await anyio.to_thread.run_sync(ArchiveReader.open, path)
    try:
        settings = archive.manifest.dataset
        wanted = name or settings.name
        key = target.id if isinstance(target, Dataset) else target or wanted
        place = options.journal
        if place is None and identity is not None and not options.dry_run:
            place = default_import_journal(identity, key, settings.id)
        if place is not None:
            await anyio.to_thread.run_sync(lambda: place.parent.mkdir(parents=True, exist_ok=True))
        state = await anyio.to_thread.run_sync(ImportState.open, place)
        try:
            choice = DatasetChoice(sender, archive, state, options)
            dataset = await choice.find(target, wanted)
            if options.dry_run and dataset is None:
                return _plan_new(archive, str(path), wanted, options)
            dataset = dataset or await choice.create(wanted)
            async with open_archive_session(
                sender,
                dataset.id,
                concurrency=options.concurrency,
                rate=options.rate,
                on_event=on_event,
            ) as session:
                run = ImportRun(session, dataset, archive, state, options)
                report = await run.execute()
                return evolve(
                    report,
                    path=str(path),
                    requests=session.requests,
                    planned_requests=session.planned_requests or 0,
                    seconds=time.monotonic() - started,
                    journal=None if place is None else str(place),
                )
        finally:
            state.close()
    finally:
        archive.close()


def _plan_new(archive: ArchiveReader, path: str, name: str, options: ImportOptions) -> ImportReport:
    documents = archive.manifest.documents
    return ImportReport(
        path=path,
        dataset_name=name,
        documents=documents,
        pending=documents,
        planned_requests=1 + estimate_requests(documents, archive.manifest.chunks),
        dry_run=options.dry_run,
    )
