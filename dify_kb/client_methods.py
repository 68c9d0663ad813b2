"""The methods of the asynchronous client: its resources, `ping` and loads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .argument_checks import check_methods
from .config import MAX_FILE_SIZE
from .errors import ApiError, NotFoundError

# Resources, models and endpoints are imported by the first call: `import dify_kb` is for all
# programs, also for those that only print their help.
if TYPE_CHECKING:
    import os

    from .arguments import Duration
    from .emulator import Emulator
    from .ingest import (
        ItemResult,
        LoadMetadata,
        LoadOptions,
        LoadReport,
        OnError,
        OnExisting,
        OnLoadEvent,
        Replace,
        Results,
        Source,
        Wait,
    )
    from .models import Dataset, DocForm, DocFormName, ProcessRule, ServerInfo
    from .resources import (
        ChildChunks,
        Datasets,
        Documents,
        Metadata,
        Pipeline,
        Segments,
        Tags,
        Workspace,
    )
    from .transport import Connection, Sender


@check_methods
class ClientMethods:
    """The methods of an asynchronous client, except those that open, close and configure it."""

    _sender: Sender
    _connection: Connection
    _emulator: Emulator | None

    @property
    def datasets(self) -> Datasets:
        """The knowledge bases."""
        from .resources import Datasets

        return Datasets(self._sender)

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        from .resources import Documents

        return Documents(self._sender, self._sender.policy.polling)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        from .resources import Segments

        return Segments(self._sender)

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        from .resources import ChildChunks

        return ChildChunks(self._sender)

    @property
    def metadata(self) -> Metadata:
        """The metadata fields, and their values on documents."""
        from .resources import Metadata

        return Metadata(self._sender)

    @property
    def tags(self) -> Tags:
        """The tags of knowledge bases."""
        from .resources import Tags

        return Tags(self._sender)

    @property
    def pipeline(self) -> Pipeline:
        """The knowledge pipelines."""
        from .resources import Pipeline

        return Pipeline(self._sender)

    @property
    def workspace(self) -> Workspace:
        """The workspace that the API key belongs to."""
        from .resources import Workspace

        return Workspace(self._sender)

    async def ping(self) -> ServerInfo:
        """Request the server's name and version. Needs no valid key.

        Costs one request, or two where the server lacks this route: 1.12.1 and 1.14.2 (measured).

        Raises:
            TransportError: the server cannot be reached.
            ProtocolError: the server is not a Dify server.
            NotFoundError: there is no Dify API at this address.
        """
        from .models import ServerInfo
        from .wire import catalog

        try:
            return await self._sender(catalog.GET_SERVER_INFO.call())
        except NotFoundError as error:
            version = error.server_version
        # A wrong path of a Dify server, such as its console's, has the version too.
        try:
            await self.datasets.list(limit=1)
        except ApiError as error:
            if not error.code:  # an answer of a proxy or another application
                raise
        return ServerInfo(server_version=version)

    async def load(
        self,
        dataset_id: Dataset | str | Sequence[Dataset | str],
        source: Source,
        *,
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        as_text: str | Sequence[str] = (),
        gitignore: bool = False,
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | DocFormName | None = None,
        metadata: LoadMetadata = None,
        on_existing: OnExisting = "overwrite",
        wait: Wait = "indexed",
        checksum: bool = False,
        overwrite_archived: bool = False,
        replace: Replace = "in_place",
        concurrency: int | tuple[int, int] | None = None,
        rate: str | float | None = None,
        max_unindexed: int = 5000,
        stall_after: Duration = 900.0,
        deadline: Duration | None = None,
        max_failures: int | None = None,
        per_dataset: int | None = None,
        max_file_size: int | str = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
        dry_run: bool = False,
        progress: bool = False,
        on_event: OnLoadEvent | None = None,
    ) -> LoadReport:
        """Load files into a knowledge base and report the outcome of each file.

        Each file becomes a document named after its path. A journal records what was sent: the
        same load again sends only new and changed files, and an interrupted load, even one ended
        by `kill -9`, resumes where it stopped. No file is lost, and none is sent again while its
        first upload may have arrived. When cancelled, requests in flight get up to 10 s to finish.

        Costs one request per uploaded file, one page of the document list per 50 documents being
        indexed, at intervals that follow the server's speed, and one page per 100 documents of a
        knowledge base with documents unknown to the journal. Large loads need no more memory.

        Args:
            dataset_id: a knowledge base, or several, over which the files are spread: each file
                stays in the one that contains it, as its journal or its list of documents tells,
                and new files are distributed evenly. They are loaded one after the other; the
                report is the sum. `journal` and generators as a source are not possible then.
            source: a folder, a file, an `Item`, or an iterable of these (generators too, also
                async). Keys are paths relative to the folder; with several folders, they begin
                with the folder's name.
            include: globs of files to load, as in `.gitignore`. A pattern without `/` matches names
                at any depth. Names that begin with a dot are left out unless a pattern names them.
            exclude: globs of files to leave out, in addition to those of `.difyignore` files.
            as_text: globs of files to send as text, with `.txt` appended to their name, for
                extensions that the server does not accept (rst, py, json, …).
            gitignore: leave out what `.gitignore` files ignore, too.
            process_rule: the chunking rule; None uses that of the knowledge base, or `automatic`
                while it is empty. A rule other than in the earlier load sends every file again.
            doc_form: the document form; None uses that of the knowledge base.
            metadata: values by field name for every document, or a function of the item that
                returns them (called in a thread), or `PathPattern`, `Auto`, `FileTimes`,
                `FrontMatter`, `Sidecar` or `Table`, or a list of these: later ones win. Set once a
                document is indexed, one request per 50 documents, also if only they changed.
                Missing fields are created with the type of the first value, or that in a name
                such as `year:number`. A value that its field cannot have is a warning.
            on_existing: what to do if a document has the name of a file and is not known to come
                from it: `overwrite`, `skip` or `fail`.
            wait: `indexed` follows each document until its indexing ends, `accepted` does not.
                `verified` also checks every document at the end: one request per document sent,
                and one per 100 documents of the knowledge base.
            checksum: compare file contents with the journal, not only size, times and inode.
                Reads every file in each run.
            overwrite_archived: also replace archived documents, and archive them again. By
                default a changed file whose document is archived is skipped: replacing it would
                return it to retrieval (measured on 1.4.3, 1.12.1 and 1.14.2).
            replace: how a changed file replaces its document. `in_place` keeps the document id,
                but retrieval finds nothing of the document while the new version is indexed, and a
                failed replacement leaves it empty. `swap` creates the new version next to the old
                one, waits until it is indexed, then deletes the old one: no gap in retrieval, but
                the document id changes. Costs one more request per replaced document; both
                versions are found for a moment. Requires `wait` to be `indexed` or `verified`.
                (Measured on 1.4.3, 1.12.1 and 1.14.2.)
            concurrency: concurrent uploads; None tunes it automatically, a number fixes it,
                (low, high) bounds the automatic value.
            rate: maximum upload rate: 5 (per second), `100/min` or `1000/h`; None has no limit
                until the server reports one.
            max_unindexed: maximum number of accepted, unindexed documents; uploads pause above it.
                Those of earlier runs count until none has made progress for half of `stall_after`.
            stall_after: time without indexing progress after which a document is `stalled`, in
                seconds or as `15m`.
            deadline: time after which the run stops, in seconds or as `2h`; the remaining files
                are `pending`.
            max_failures: number of failed files above which the run stops; None has no limit.
            per_dataset: with several knowledge bases, the number of documents above which one gets
                no new files while another has fewer.
            max_file_size: maximum size in bytes or as `15MB`; larger files fail without being
                sent. The default, 15 MiB, is that of the server.
            journal: path of the journal. None uses one file per server, dataset and source in
                `~/.local/state/dify-kb` (or `XDG_STATE_HOME`); items and iterables do not identify
                a source, so their journal is kept in memory only.
            retry_failed: send failed files of earlier runs again, and recreate stalled documents.
            errors: `stop` ends the run at the first failed file and raises; `collect` continues.
            dry_run: send nothing. Files that would be sent are `pending`, with the reason.
            progress: show bars on stderr, or in a notebook its cell, and lines if stderr is not a
                terminal. Requires rich (extra `cli`).
            on_event: receives `Progress` and each `ItemResult` in the loop thread; must not block.
                An error that it raises ends the load and is raised.

        Returns:
            A report, also of a load that was stopped early (`report.stopped`), or whose folders
                contain no files to load (`StopReason.NO_FILES`).

        Raises:
            ConfigError: the source does not exist, an option is invalid, `metadata` has an
                unsupported value, or the journal belongs to another load.
            JournalError: the journal is in use, damaged, of a newer version, or not writable.
            LoadError: a file failed, with `errors="stop"`.
            UnauthorizedError: the server does not accept the key.
            NotFoundError: the dataset does not exist.
            TransportError: the server cannot be reached.
        """
        from .ingest import LoadOptions

        return await self._load(dataset_id, source, LoadOptions.from_arguments(locals()))

    def load_iter(
        self,
        dataset_id: Dataset | str | Sequence[Dataset | str],
        source: Source,
        *,
        include: str | Sequence[str] = ("*",),
        exclude: str | Sequence[str] = (),
        as_text: str | Sequence[str] = (),
        gitignore: bool = False,
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | DocFormName | None = None,
        metadata: LoadMetadata = None,
        on_existing: OnExisting = "overwrite",
        wait: Wait = "indexed",
        checksum: bool = False,
        overwrite_archived: bool = False,
        replace: Replace = "in_place",
        concurrency: int | tuple[int, int] | None = None,
        rate: str | float | None = None,
        max_unindexed: int = 5000,
        stall_after: Duration = 900.0,
        deadline: Duration | None = None,
        max_failures: int | None = None,
        per_dataset: int | None = None,
        max_file_size: int | str = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
        progress: bool = False,
    ) -> Results[ItemResult]:
        """Load files as `load` does, and yield each result as soon as its file is finished.

        `async for result in client.load_iter(…)`: the load runs during the iteration, and pauses
        while 256 results wait to be consumed. `break` cancels it without loss: the same load
        again resumes it. Options and costs are those of `load`.

        Raises:
            KnowledgeError: raised by the iteration, as by `load`.
        """
        from .ingest import LoadOptions, iter_results

        return iter_results(
            functools.partial(self._load, dataset_id, source),
            locals(),
            LoadOptions.from_arguments,
        )

    async def _load(
        self,
        dataset_id: Dataset | str | Sequence[Dataset | str],
        source: Source,
        options: LoadOptions,
    ) -> LoadReport:
        from .ingest import load, load_spread

        identity = self._emulator.identity if self._emulator else self._connection.config.base_url
        if isinstance(dataset_id, Sequence) and not isinstance(dataset_id, str):
            return await load_spread(self._sender, identity, dataset_id, source, options)
        return await load(self._sender, identity, dataset_id, source, options)
