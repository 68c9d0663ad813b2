"""The methods of the asynchronous client that keep a knowledge base true to a source."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .argument_checks import check_methods
from .config import MAX_FILE_SIZE

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from .arguments import Duration
    from .emulator import Emulator
    from .ingest import ItemResult, LoadMetadata, OnError, OnLoadEvent, Results, Source
    from .models import Dataset, DocForm, DocFormName, ProcessRule
    from .sync import DeleteMode, MayDelete, SyncOptions, SyncReport, SyncState
    from .transport import Connection, Sender


@check_methods
class ClientSyncMethods:
    """The methods `sync`, `sync_iter` and `diff` of an asynchronous client."""

    _sender: Sender
    _connection: Connection
    _emulator: Emulator | None

    async def sync(
        self,
        dataset_id: Dataset | str,
        source: Source,
        *,
        state: SyncState = "journal",
        id: str | None = None,  # noqa: A002 -- the term of the report and the command line
        delete: DeleteMode = "delete",
        max_delete: int | str | None = None,
        adopt: bool = False,
        keep_ids: bool = False,
        allow_empty: bool = False,
        delete_excluded: bool = False,
        ignore_errors: bool = False,
        respect_deletes: bool = False,
        protect_edits: bool = False,
        may_delete: MayDelete | None = None,
        check: str | Sequence[str] = (),
        empty_trash: Duration | None = None,
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        as_text: str | Sequence[str] = (),
        gitignore: bool = False,
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | DocFormName | None = None,
        metadata: LoadMetadata = None,
        checksum: bool = False,
        concurrency: int | tuple[int, int] | None = None,
        rate: str | float | None = None,
        max_unindexed: int = 5000,
        stall_after: Duration = 900.0,
        deadline: Duration | None = None,
        max_failures: int | None = None,
        max_file_size: int | str = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
        dry_run: bool = False,
        progress: bool = False,
        on_event: OnLoadEvent | None = None,
    ) -> SyncReport:
        """Sync a knowledge base with a source: add, update, rename and delete documents.

        As `load`, and in addition documents whose file is gone are deleted, and renamed files get
        a new document with the metadata and state of the old one, without a gap in retrieval.
        A changed file gets a new document next to the old one, which is deleted once the new one is
        indexed. Only documents that this sync made or adopted are ever changed or deleted; all
        others are `foreign`. Documents that a person disabled or archived are kept as they are.
        Interrupted at any time, even by `kill -9`, the next sync ends in the same state.

        Nothing is deleted in a run in which the scan failed for a file or folder, the source is
        empty, a file of `check` is missing, a file could not be loaded, or more than `max_delete`
        documents would be deleted (`report.held`). Files that exist but are left out by `include`,
        `exclude` or ignore files keep their documents.

        An unchanged source costs one request, or with `state="base"` one per 100 documents of the
        knowledge base. A run with changes costs in addition those of a load, one request per 100
        documents if more than 10 names are affected or another client made or deleted documents,
        and two or three per deleted document.

        Args:
            dataset_id: the knowledge base.
            source: as in `load`. Items and generators require `id`.
            state: where the sync remembers its documents: `journal`, a file on this machine, or
                `base`, the metadata fields `sync_source` and `sync_hash` of the documents, for CI,
                containers and several machines. A lost journal is rebuilt from these fields.
            id: identifies the sync; by default a hash of the knowledge base and the path of the
                source. Pass a name if the path differs between machines.
            delete: what to do with the document of a file that is gone: `delete`; `disable` or
                `archive` (a trash: it is not found any more, and comes back with its file); `keep`.
                Archived documents cannot be deleted by hand; 1.4.3 has neither state.
            max_delete: maximum number of documents that a run may delete, or a share such as
                `"30%"`; by default 50 %, at least 20. Above it, none is deleted.
            adopt: take over documents that this sync did not make, if their name and size are those
                of a file.
            keep_ids: replace documents in place: they keep their id, but are not found while the
                new version is indexed, and are empty if that fails.
            allow_empty: accept a source without files.
            delete_excluded: delete the documents of files that exist but are now left out, too.
            ignore_errors: delete although files could not be loaded.
            respect_deletes: do not make the document again that a person deleted.
            protect_edits: keep documents back whose chunks a person edited; costs one request per
                100 chunks of each document that would be overwritten or deleted.
            may_delete: called with the key of each file that is gone, in a worker thread; if it
                returns False, the document is kept in this run.
            check: keys that must exist in the source, such as a file that shows that a share is
                mounted; otherwise nothing is done.
            empty_trash: delete documents that `disable` or `archive` put into the trash longer ago.
            include: see `load`, as for the other arguments.
            dry_run: change nothing; `report.changes` are exactly those of a run.

        Returns:
            A report, also of a sync that was stopped early or whose source does not exist.

        Raises:
            ConfigError: an option is invalid, items have no `id`, or the journal belongs to another
                sync.
            JournalError: the journal is in use, damaged, of a newer version, or not writable.
            LoadError: a file failed, with `errors="stop"`.
            NotFoundError: the dataset does not exist.
            TransportError: the server cannot be reached.
        """
        from .sync import SyncOptions

        return await self._sync(dataset_id, source, SyncOptions.from_arguments(locals()))

    async def diff(
        self,
        dataset_id: Dataset | str,
        source: Source,
        *,
        state: SyncState = "journal",
        id: str | None = None,  # noqa: A002 -- see `sync`
        delete: DeleteMode = "delete",
        max_delete: int | str | None = None,
        adopt: bool = False,
        allow_empty: bool = False,
        delete_excluded: bool = False,
        respect_deletes: bool = False,
        protect_edits: bool = False,
        may_delete: MayDelete | None = None,
        check: str | Sequence[str] = (),
        empty_trash: Duration | None = None,
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        as_text: str | Sequence[str] = (),
        gitignore: bool = False,
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | DocFormName | None = None,
        metadata: LoadMetadata = None,
        checksum: bool = False,
        max_file_size: int | str = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
    ) -> SyncReport:
        """Return what a `sync` with these arguments would do. Changes nothing.

        `report.changes` lists the differences, `report.has_differences` tells whether there are
        any. Costs one request, or one per 100 documents if there are differences.

        Raises:
            ConfigError: as `sync`.
            JournalError: as `sync`.
            NotFoundError: the dataset does not exist.
            TransportError: the server cannot be reached.
        """
        from .sync import SyncOptions

        options = SyncOptions.from_arguments({**locals(), "dry_run": True})
        return await self._sync(dataset_id, source, options)

    def sync_iter(
        self,
        dataset_id: Dataset | str,
        source: Source,
        *,
        state: SyncState = "journal",
        id: str | None = None,  # noqa: A002 -- see `sync`
        delete: DeleteMode = "delete",
        max_delete: int | str | None = None,
        adopt: bool = False,
        keep_ids: bool = False,
        allow_empty: bool = False,
        delete_excluded: bool = False,
        ignore_errors: bool = False,
        respect_deletes: bool = False,
        protect_edits: bool = False,
        may_delete: MayDelete | None = None,
        check: str | Sequence[str] = (),
        empty_trash: Duration | None = None,
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        as_text: str | Sequence[str] = (),
        gitignore: bool = False,
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | DocFormName | None = None,
        metadata: LoadMetadata = None,
        checksum: bool = False,
        concurrency: int | tuple[int, int] | None = None,
        rate: str | float | None = None,
        max_unindexed: int = 5000,
        stall_after: Duration = 900.0,
        deadline: Duration | None = None,
        max_failures: int | None = None,
        max_file_size: int | str = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
        progress: bool = False,
    ) -> Results[ItemResult]:
        """Sync as `sync` does, and yield the result of each file as soon as it is finished.

        The sync runs during the iteration, as with `load_iter`; `report` of the returned object is
        the `SyncReport` at the end, with the deletes. `break` cancels the sync without loss.

        Raises:
            KnowledgeError: raised by the iteration, as by `sync`.
        """
        from .ingest import iter_results
        from .sync import SyncOptions

        return iter_results(
            functools.partial(self._sync, dataset_id, source), locals(), SyncOptions.from_arguments
        )

    async def _sync(
        self, dataset_id: Dataset | str, source: Source, options: SyncOptions
    ) -> SyncReport:
        from .sync.sync import sync

        identity = self._emulator.identity if self._emulator else self._connection.config.base_url
        return await sync(self._sender, identity, dataset_id, source, options)
