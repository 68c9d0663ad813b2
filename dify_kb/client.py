"""The asynchronous client: open the session, provide the resources, load files."""

from __future__ import annotations

import copy
import functools
import os
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread
import attrs

from .config import DEFAULT_CONCURRENCY, Config, Policy, Retry, Timeout
from .errors import ConfigError, NotFoundError
from .models import MAX_FILE_SIZE, Dataset, DocForm, ProcessRule, ServerInfo
from .profiles import require_profile
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

EMULATOR_PREFIX = "emulator:"


class AsyncClient:
    """An asynchronous client of one Dify server.

    Use it as a context manager: `async with AsyncClient(url, key) as client`.

    Args:
        base_url: address of the server, with or without `/v1`. `emulator:` (in memory) or
            `emulator:PATH` (persistent, in a file) starts the embedded server while the client is
            open; append `?version=…` for another Dify version than 1.16. None reads
            `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge API key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: timeouts of one attempt.
        retry: number of attempts, and the backoff between them.
        concurrency: maximum requests in flight, which is also the number of connections; None is 8.
        headers: additional headers of every request.
        proxy: address of an HTTP proxy.
        trust_env: whether to use the proxies and credentials of the environment.
        ssl: SSL context, for a private certificate authority.
        session: an aiohttp session to use instead of a new one. It is not closed, and its own
            proxy and SSL settings apply.
        on_event: callback after each attempt; called in the loop thread, must not block.
        policy: all timeouts, retry limits and intervals; `timeout` and `retry` override its parts.

    Raises:
        ConfigError: the address or the key is missing or invalid.
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
        self._emulator: Emulator | None = None
        if address.startswith(EMULATOR_PREFIX):
            from .emulator.embedded_server import create_emulator

            self._emulator = create_emulator(address.removeprefix(EMULATOR_PREFIX))
        # DIFY_API_KEY belongs to a real server: the embedded one ignores it.
        self._config = (
            Config(base_url=address, api_key=api_key or self._emulator.api_key)
            if self._emulator
            else Config.from_environment(base_url, api_key)
        )
        self._policy = _merge_policy(policy or Policy(), timeout, retry)
        limit = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        if limit < 1:
            raise ConfigError(f"Invalid concurrency: {limit}.", hint="Use 1 or more.")
        self._limiter = RequestLimiter(limit, fixed=concurrency is not None)
        self._headers = dict(headers or {})
        self._connection_options = (proxy, trust_env, ssl)
        self._external_session = session
        self._on_attempt = on_event
        self._sender: Sender | None = None
        self._own_session: aiohttp.ClientSession | None = None

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """Create a client with the address and key of a profile in `~/.config/dify-kb/config.toml`.

        Blocks while the `key_command` of the profile runs, for 60 s at most. A profile without a
        key uses `DIFY_API_KEY`.

        Args:
            name: None uses `DIFY_PROFILE`, or the file's `default_profile`.

        Raises:
            ConfigError: the profile does not exist, or its configuration or key is invalid.
        """
        profile = require_profile(name)
        return cls(
            profile.url,
            profile.read_key(),
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            headers=headers,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            on_event=on_event,
            policy=policy,
        )

    async def __aenter__(self) -> Self:
        if self._sender is not None:
            raise ConfigError(
                "The client is already open.", hint="Open each client once, in one event loop."
            )
        if self._emulator is not None:
            with anyio.CancelScope(shield=True):  # a server that has started must be stopped
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
        """The knowledge bases."""
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
        """The metadata fields, and their values on documents."""
        return Metadata(self._require_sender())

    @property
    def tags(self) -> Tags:
        """The tags of knowledge bases."""
        return Tags(self._require_sender())

    @property
    def pipeline(self) -> Pipeline:
        """The knowledge pipelines."""
        return Pipeline(self._require_sender())

    @property
    def workspace(self) -> Workspace:
        """The workspace that the API key belongs to."""
        return Workspace(self._require_sender())

    @property
    def base_url(self) -> str:
        """The address, with `/v1`. An embedded server has one only while the client is open."""
        return self._config.base_url

    @property
    def server_version(self) -> str | None:
        """The version in the server's last response.

        None before the first response, or behind a proxy that removes the header.
        """
        return self._require_sender().server.version

    def with_options(self, *, timeout: Timeout | None = None, retry: Retry | None = None) -> Self:
        """Return a client with other settings that shares the connections of this open client."""
        view = copy.copy(self)
        policy = _merge_policy(self._policy, timeout, retry)
        view._policy = policy  # noqa: SLF001 -- our own class
        view._sender = attrs.evolve(self._require_sender(), policy=policy)  # noqa: SLF001 -- likewise
        return view

    async def ping(self) -> ServerInfo:
        """Request the server's name and version. Costs one request; needs no valid key.

        Raises:
            TransportError: the server cannot be reached.
            ProtocolError: the server is not a Dify server.
        """
        send = self._require_sender()
        try:
            return await send(catalog.GET_SERVER_INFO.call())
        except NotFoundError as error:
            if error.server_version is None:
                raise
            # 1.12.1 lacks this route, but every response has its version (recording 009).
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
        """Load files into a knowledge base and report the outcome of each file.

        Each file becomes a document named after its path. A journal records what was sent: the
        same load again sends only new and changed files, and an interrupted load, even one ended
        by `kill -9`, resumes where it stopped. No file is lost, and none is sent again while its
        first upload may have arrived. When cancelled, requests in flight get up to 10 s to finish.

        Costs one request per uploaded file, one page of the document list per 50 documents being
        indexed, at intervals that follow the server's speed, and one page per 100 documents of a
        knowledge base with documents unknown to the journal. Large loads need no more memory.

        Args:
            source: a folder, a file, an `Item`, or an iterable of these (generators too, also
                async). Keys are paths relative to the folder; with several folders, they begin
                with the folder's name. A source without files is not an error.
            include: globs of files to load. A pattern without `/` matches names at any depth.
                Names that begin with a dot are left out unless a pattern names them.
            exclude: globs of files to leave out.
            as_text: globs of files to send as text, with `.txt` appended to their name, for
                extensions that the server does not accept (rst, py, json, …).
            process_rule: the chunking rule; None uses that of the knowledge base, or `automatic`
                while it is empty. A rule other than in the earlier load sends every file again.
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
                but retrieval finds nothing of the document while the new version is indexed, and a
                failed replacement leaves it empty. `swap` creates the new version next to the old
                one, waits until it is indexed, then deletes the old one: no gap in retrieval, but
                the document id changes. Costs one more request per replaced document; both
                versions are found for a moment. Requires `wait` to be `indexed` or `verified`.
                (Measured on 1.4.3, 1.12.1 and 1.14.2.)
            concurrency: concurrent uploads; None tunes it automatically, a number fixes it,
                (low, high) bounds the automatic value.
            rate: maximum upload rate, as `100/min`, `5/s` or `1000/h`; None has no limit until
                the server reports one.
            max_unindexed: maximum number of accepted, unindexed documents; uploads pause above it.
                Those of earlier runs count until none has made progress for half of `stall_after`.
            stall_after: seconds without indexing progress after which a document is `stalled`.
            deadline: seconds after which the run stops; the remaining files are `pending`.
            max_failures: number of failed files above which the run stops; None has no limit.
            max_file_size: maximum size in bytes; larger files fail without being sent. The
                default, 15 MiB, is that of the server.
            journal: path of the journal. None uses one file per server, dataset and source in
                `~/.local/state/dify-kb` (or `XDG_STATE_HOME`); items and iterables do not identify
                a source, so their journal is kept in memory only.
            retry_failed: send failed files of earlier runs again, and recreate stalled documents.
            errors: `stop` ends the run at the first failed file and raises; `collect` continues.
            dry_run: send nothing. Files that would be sent are `pending`, with the reason.
            on_event: receives `Progress` and each `ItemResult` in the loop thread; must not block.

        Returns:
            A report, also of a load that was stopped early (`report.stopped`).

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
        """Load files as `load` does, and yield each result as soon as its file is finished.

        `async for result in client.load_iter(…)`: the load runs during the iteration, and pauses
        while 256 results wait to be consumed. `break` cancels it without loss: the same load
        again resumes it. Options and costs are those of `load`.

        Raises:
            KnowledgeError: raised by the iteration, as by `load`.
        """
        from .ingest import iter_results

        return iter_results(functools.partial(self._load, dataset_id, source), locals())

    async def _load(
        self, dataset_id: Dataset | str, source: Source, options: LoadOptions
    ) -> LoadReport:
        from .ingest import load

        identity = self._emulator.identity if self._emulator else self.base_url
        return await load(self._require_sender(), identity, dataset_id, source, options)

    def _require_sender(self) -> Sender:
        if self._sender is None:
            raise ConfigError(
                "The client is not open.", hint="Use it inside `async with AsyncClient(…)`."
            )
        return self._sender


def _merge_policy(policy: Policy, timeout: Timeout | None, retry: Retry | None) -> Policy:
    return attrs.evolve(policy, timeout=timeout or policy.timeout, retry=retry or policy.retry)
