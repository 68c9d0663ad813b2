"""The composition root: opens the session, hands `send` to the resources, `load` to the user."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
import attrs

from .config import DEFAULT_CONCURRENCY, Config, Policy, Retry, Timeout
from .errors import ConfigError, NotFoundError
from .models import MAX_FILE_SIZE, UNSET, Dataset, DocForm, ProcessRule, ServerInfo
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
from .transport import HTTPSession, OnAttempt, RequestLimiter, Sender, open_session
from .wire import catalog

if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import aiohttp

    from dify_kb.ingest.load_options import Replace

    from .emulator import Emulator
    from .ingest import (
        ItemResult,
        LoadEvent,
        LoadMetadata,
        LoadOptions,
        LoadReport,
        OnError,
        OnExisting,
        OnLoadEvent,
        Results,
        Source,
        Wait,
    )

EMULATOR_PREFIX = "emulator:"


class AsyncClient:
    """A client of one Dify server: `async with AsyncClient(url, key) as client`.

    Args:
        base_url: with or without `/v1`. `emulator:` (in memory) or `emulator:PATH` (a file that
            stays) starts the embedded server for the life of the client, as version 1.16 or as
            `emulator:PATH?version=…` says. None reads `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: how long one attempt may take.
        retry: how often and when to try again.
        concurrency: requests in flight, and so connections; None is 8.
        headers: sent with every request.
        proxy: address of an HTTP proxy.
        trust_env: whether proxies and credentials of the environment are used.
        ssl: for a certificate authority of your own.
        session: used instead of an own one, and never closed; it carries its own proxy and ssl.
        on_event: called in the loop thread after each attempt; must return at once.
        policy: every time that the client waits; `timeout` and `retry` replace their part of it.

    Raises:
        ConfigError: no address or key was found, or they are none.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
    ) -> None:
        address = base_url or os.environ.get("DIFY_BASE_URL", "")
        self._emulator = _create_emulator(address) if address.startswith(EMULATOR_PREFIX) else None
        # A key of the environment is for a real server, so the embedded one does not read it.
        self._config = (
            Config(base_url=address, api_key=api_key or self._emulator.api_key)
            if self._emulator
            else Config.from_environment(base_url, api_key)
        )
        self._policy = _merge_policy(policy or Policy(), timeout, retry)
        limit = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        self._limiter = RequestLimiter(
            _check_positive(limit, "concurrency"), fixed=concurrency is not None
        )
        self._headers = dict(headers or {})
        self._connection_options = (proxy, trust_env, ssl)
        self._external_session = session
        self._on_attempt = on_event
        self._sender: Sender | None = None
        self._own_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self._sender is not None:
            raise ConfigError("The client is open already.", hint="Open it once, in one loop.")
        if self._emulator is not None:
            with anyio.CancelScope(shield=True):  # one that has begun must be given back to stop
                await anyio.to_thread.run_sync(self._emulator.start)
            self._config = attrs.evolve(self._config, base_url=self._emulator.url)
        proxy, trust_env, ssl = self._connection_options
        http = self._external_session or open_session(proxy=proxy, trust_env=trust_env, ssl=ssl)
        self._own_session = None if self._external_session else http
        self._sender = Sender(
            session=HTTPSession(http, self._config, self._headers),
            limiter=self._limiter,
            policy=self._policy,
            on_attempt=self._on_attempt,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sender = None
        with anyio.CancelScope(shield=True):
            if self._own_session is not None:
                await self._own_session.close()
            if self._emulator is not None:
                await anyio.to_thread.run_sync(self._emulator.stop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    @property
    def datasets(self) -> Datasets:
        """Knowledge bases."""
        return Datasets(self._require_sender())

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        return Documents(self._require_sender(), self._policy.polling)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        return Segments(self._require_sender())

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        return ChildChunks(self._require_sender())

    @property
    def metadata(self) -> Metadata:
        """Metadata fields, and their values on documents."""
        return Metadata(self._require_sender())

    @property
    def tags(self) -> Tags:
        """Tags of knowledge bases."""
        return Tags(self._require_sender())

    @property
    def pipeline(self) -> Pipeline:
        """Knowledge pipelines."""
        return Pipeline(self._require_sender())

    @property
    def workspace(self) -> Workspace:
        """The workspace that the key belongs to."""
        return Workspace(self._require_sender())

    @property
    def base_url(self) -> str:
        """The address, with `/v1`; that of an embedded server is known once the client is open."""
        return self._config.base_url

    @property
    def server_version(self) -> str | None:
        """The version that the server last sent; None before the first reply, or behind a proxy
        that takes the header away.
        """
        return self._require_sender().server.version

    def with_options(self, *, timeout: Timeout | None = None, retry: Retry | None = None) -> Self:
        """Give a view of this open client with other settings, over the same connections."""
        view = copy.copy(self)
        policy = _merge_policy(self._policy, timeout, retry)
        view._policy = policy  # noqa: SLF001 -- our own class
        view._sender = attrs.evolve(self._require_sender(), policy=policy)  # noqa: SLF001 -- likewise
        return view

    async def ping(self) -> ServerInfo:
        """Ask the server what it is; needs no key. One request.

        Raises:
            TransportError: it cannot be reached.
            ProtocolError: it is no Dify.
        """
        send = self._require_sender()
        try:
            return await send(catalog.GET_SERVER_INFO.call())
        except NotFoundError as error:
            if error.server_version is None:
                raise
            # 1.12.1 has no such route, but tells its version on every reply (recording 009).
            return ServerInfo(server_version=error.server_version)

    async def load(
        self,
        dataset_id: Dataset | str,
        source: Source,
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        as_text: Sequence[str] = (),
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | str | None = None,
        metadata: LoadMetadata = None,
        on_existing: OnExisting = "overwrite",
        wait: Wait = "indexed",
        checksum: bool = False,
        overwrite_archived: bool = False,
        replace: Replace = "in_place",
        concurrency: int | tuple[int, int] | None = None,
        rate: str | None = None,
        max_unindexed: int = 5000,
        stall_after: float = 900.0,
        deadline: float | None = None,
        max_failures: int | None = None,
        max_file_size: int = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
        dry_run: bool = False,
        on_event: OnLoadEvent | None = None,
    ) -> LoadReport:
        """Load thousands of files into a knowledge base and report the outcome of each.

        Each file becomes a document named after its path. A journal records what was sent: the
        same load again sends only new and changed files, and an interrupted load, even one ended
        by `kill -9`, resumes where it stopped. No file is lost, and none is sent again while its
        first upload may have arrived. When cancelled, requests in flight get up to 10 s to finish.

        Costs one request per file that is sent, one page of the document list per 50 documents
        being indexed, at intervals that follow the server's speed, and one page per 100 documents
        of a knowledge base that holds documents unknown to the journal. Memory does not grow with
        the number of files.

        Args:
            source: a folder, a file, an `Item`, or an iterable of them (a generator too, async or
                not). Keys are paths relative to the folder; with several folders, they begin with
                the folder's name. A source without files is not an error.
            include: globs of files to load. A pattern without `/` matches names at any depth.
                Names that begin with a dot are left out unless a pattern names them.
            exclude: globs of files to leave out.
            as_text: globs of files to send as text, with `.txt` appended to their name, for
                extensions that the server does not accept (rst, py, json, …).
            process_rule: the chunking rule; None uses the rule of the knowledge base, or
                `automatic` while it has no document. A rule that differs from the earlier load
                sends every file again.
            doc_form: the document form; None uses that of the knowledge base.
            metadata: values by field name for every document, or a function of the item that
                returns them (called in a thread). Set once a document is indexed, one request per
                50 documents. Missing fields are created.
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
                but retrieval finds nothing of the document while the new version is indexed, and
                a failed replacement leaves it empty. `swap` creates the new version beside the
                old one, waits until it is indexed, then deletes the old one: no gap in
                retrieval, the document id changes. It costs one more request per replaced
                document, and both versions are found for a moment. Requires `wait` to be
                `indexed` or `verified`. (All measured on 1.4.3, 1.12.1 and 1.14.2.)
            concurrency: concurrent uploads; None tunes it automatically, a number fixes it,
                (low, high) bounds the automatic value.
            rate: maximum upload rate, as `100/min`, `5/s` or `1000/h`; None has no limit until
                the server reports one.
            max_unindexed: maximum number of documents accepted and not indexed yet; uploads wait
                above it. Documents of earlier runs count until none of them has moved for half of
                `stall_after`.
            stall_after: seconds without indexing progress after which a document is `stalled`.
            deadline: seconds after which the run stops; the remaining files are `pending`.
            max_failures: number of failed files above which the run stops; None has no limit.
            max_file_size: maximum size in bytes; larger files are failed, not sent. The default
                is the server's default limit, 15 MiB.
            journal: path of the journal. None uses one file per server, dataset and source in
                `~/.local/state/dify-kb` (or `XDG_STATE_HOME`). Items and iterables do not identify
                a source: without `journal`, their journal is kept in memory only.
            retry_failed: send files again that failed in an earlier run, and create documents
                again whose indexing stalled.
            errors: `stop` ends the run at the first failed file and raises; `collect` goes on.
            dry_run: send nothing. Files that would be sent are `pending`, with the reason.
            on_event: listener for `Progress` and each `ItemResult`; called in the loop thread,
                must return at once.

        Returns:
            A report whenever the load could start, also if it was stopped (`report.stopped`).

        Raises:
            ConfigError: the source does not exist, an option is invalid, `metadata` has a value
                that no document can have, or the journal belongs to another load.
            JournalError: the journal is in use, damaged, of a newer version, or not writable.
            LoadError: a file failed, with `errors="stop"`.
            UnauthorizedError: the server does not accept the key.
            NotFoundError: the dataset does not exist.
            TransportError: the server cannot be reached.
        """
        from .ingest import LoadOptions, ScanRules

        options = LoadOptions(
            rules=ScanRules(
                include=include, exclude=exclude, as_text=as_text, max_file_size=max_file_size
            ),
            process_rule=process_rule,
            doc_form=DocForm(doc_form) if doc_form else UNSET,
            metadata=metadata,
            on_existing=on_existing,
            wait=wait,
            checksum=checksum,
            overwrite_archived=overwrite_archived,
            replace=replace,
            max_unindexed=max_unindexed,
            stall_after=stall_after,
            deadline=deadline,
            max_failures=max_failures,
            journal=Path(journal) if journal is not None else None,
            retry_failed=retry_failed,
            errors=errors,
            dry_run=dry_run,
            on_event=on_event,
        )
        return await self._load(dataset_id, source, options, concurrency, rate)

    def load_iter(
        self,
        dataset_id: Dataset | str,
        source: Source,
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        as_text: Sequence[str] = (),
        process_rule: ProcessRule | None = None,
        doc_form: DocForm | str | None = None,
        metadata: LoadMetadata = None,
        on_existing: OnExisting = "overwrite",
        wait: Wait = "indexed",
        checksum: bool = False,
        overwrite_archived: bool = False,
        replace: Replace = "in_place",
        concurrency: int | tuple[int, int] | None = None,
        rate: str | None = None,
        max_unindexed: int = 5000,
        stall_after: float = 900.0,
        deadline: float | None = None,
        max_failures: int | None = None,
        max_file_size: int = MAX_FILE_SIZE,
        journal: str | os.PathLike[str] | None = None,
        retry_failed: bool = False,
        errors: OnError = "collect",
    ) -> Results[ItemResult]:
        """Load files as `load` does, and yield each result as its file ends.

        `async for result in client.load_iter(…)`: the load runs during the iteration, and pauses
        while 256 results wait to be consumed. `break` ends it as a cancellation does, without
        loss: the same load again resumes it. The options are those of `load`. Costs the same
        requests.

        Raises:
            KnowledgeError: raised by the iteration, as by `load`.
        """
        from .ingest import ItemResult as Result
        from .ingest import LoadOptions, ResultBuffer, Results, ScanRules

        async def run_load(buffer: ResultBuffer[ItemResult]) -> LoadReport:
            def put(event: LoadEvent) -> None:
                if isinstance(event, Result):
                    buffer.put(event)

            options = LoadOptions(
                rules=ScanRules(
                    include=include, exclude=exclude, as_text=as_text, max_file_size=max_file_size
                ),
                process_rule=process_rule,
                doc_form=DocForm(doc_form) if doc_form else UNSET,
                metadata=metadata,
                on_existing=on_existing,
                wait=wait,
                checksum=checksum,
                overwrite_archived=overwrite_archived,
                replace=replace,
                max_unindexed=max_unindexed,
                stall_after=stall_after,
                deadline=deadline,
                max_failures=max_failures,
                journal=Path(journal) if journal is not None else None,
                retry_failed=retry_failed,
                errors=errors,
                on_event=put,
                pause=buffer.wait_for_room,
            )
            return await self._load(dataset_id, source, options, concurrency, rate)

        return Results(run_load)

    async def _load(
        self,
        dataset_id: Dataset | str,
        source: Source,
        options: LoadOptions,
        concurrency: int | tuple[int, int] | None,
        rate: str | None,
    ) -> LoadReport:
        from .ingest import load

        return await load(
            self._require_sender(),
            self._identity,
            dataset_id,
            source,
            options,
            concurrency=concurrency,
            rate=rate,
        )

    @property
    def _identity(self) -> str | None:
        """What journals know the server by; None for one that ends with this client."""
        return self.base_url if self._emulator is None else self._emulator.identity

    def _require_sender(self) -> Sender:
        if self._sender is None:
            raise ConfigError(
                "The client is not open.", hint="Use it inside `async with AsyncClient(…)`."
            )
        return self._sender


def _merge_policy(policy: Policy, timeout: Timeout | None, retry: Retry | None) -> Policy:
    return attrs.evolve(policy, timeout=timeout or policy.timeout, retry=retry or policy.retry)


def _check_positive(value: int, option: str) -> int:
    if value < 1:
        raise ConfigError(f"{option} is {value}.", hint="It must be at least 1.")
    return value


def _create_emulator(address: str) -> Emulator:
    """Make the embedded server of `emulator:PATH?version=…`, not started yet."""
    from .emulator import Emulator

    path, _, query = address.removeprefix(EMULATOR_PREFIX).partition("?")
    options = dict(parse_qsl(query))
    version = options.pop("version", None)
    if options:
        raise ConfigError(
            f"{address!r} has the unknown option {next(iter(options))!r}.",
            hint="It can be emulator:PATH?version=1.16.",
        )
    database_path = Path(path).expanduser() if path else None
    return Emulator(database_path, version=version) if version else Emulator(database_path)
