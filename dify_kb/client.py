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
from .transport import Attempted, OnAttempt, RequestLimiter, Sender, Session, connect
from .wire import catalog

if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import aiohttp

    from .emulator import Emulator
    from .ingest import (
        Admission,
        ItemResult,
        LoadEvent,
        LoadMetadata,
        LoadReport,
        OnError,
        OnExisting,
        OnLoadEvent,
        Options,
        Results,
        Source,
        Tally,
        Wait,
    )

EMULATOR = "emulator:"


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
        self._emulator = _emulator(address) if address.startswith(EMULATOR) else None
        # A key of the environment is for a real server, so the embedded one does not read it.
        self._config = (
            Config(base_url=address, api_key=api_key or self._emulator.api_key)
            if self._emulator
            else Config.read(base_url, api_key)
        )
        self._policy = _policy(policy or Policy(), timeout, retry)
        limit = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        self._pace = RequestLimiter(_positive(limit, "concurrency"), fixed=concurrency is not None)
        self._headers = dict(headers or {})
        self._network = (proxy, trust_env, ssl)
        self._given = session
        self._on_attempt = on_event
        self._sender: Sender | None = None
        self._own: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self._sender is not None:
            raise ConfigError("The client is open already.", hint="Open it once, in one loop.")
        if self._emulator is not None:
            with anyio.CancelScope(shield=True):  # one that has begun must be given back to stop
                await anyio.to_thread.run_sync(self._emulator.start)
            self._config = attrs.evolve(self._config, base_url=self._emulator.url)
        proxy, trust_env, ssl = self._network
        http = self._given or connect(proxy=proxy, trust_env=trust_env, ssl=ssl)
        self._own = None if self._given else http
        self._sender = Sender(
            session=Session(http, self._config, self._headers),
            pace=self._pace,
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
            if self._own is not None:
                await self._own.close()
            if self._emulator is not None:
                await anyio.to_thread.run_sync(self._emulator.stop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    @property
    def datasets(self) -> Datasets:
        """Knowledge bases."""
        return Datasets(self._open())

    @property
    def documents(self) -> Documents:
        """The documents of a knowledge base."""
        return Documents(self._open(), self._policy.watch)

    @property
    def segments(self) -> Segments:
        """The chunks of a document."""
        return Segments(self._open())

    @property
    def child_chunks(self) -> ChildChunks:
        """The child chunks of a segment."""
        return ChildChunks(self._open())

    @property
    def metadata(self) -> Metadata:
        """Metadata fields, and their values on documents."""
        return Metadata(self._open())

    @property
    def tags(self) -> Tags:
        """Tags of knowledge bases."""
        return Tags(self._open())

    @property
    def pipeline(self) -> Pipeline:
        """Knowledge pipelines."""
        return Pipeline(self._open())

    @property
    def workspace(self) -> Workspace:
        """The workspace that the key belongs to."""
        return Workspace(self._open())

    @property
    def base_url(self) -> str:
        """The address, with `/v1`; that of an embedded server is known once the client is open."""
        return self._config.base_url

    @property
    def server_version(self) -> str | None:
        """The version that the server last sent; None before the first reply, or behind a proxy
        that takes the header away.
        """
        return self._open().seen.version

    def with_options(self, *, timeout: Timeout | None = None, retry: Retry | None = None) -> Self:
        """Give a view of this open client with other settings, over the same connections."""
        view = copy.copy(self)
        policy = _policy(self._policy, timeout, retry)
        view._policy = policy  # noqa: SLF001 -- our own class
        view._sender = attrs.evolve(self._open(), policy=policy)  # noqa: SLF001 -- likewise
        return view

    async def ping(self) -> ServerInfo:
        """Ask the server what it is; needs no key. One request.

        Raises:
            TransportError: it cannot be reached.
            ProtocolError: it is no Dify.
        """
        send = self._open()
        try:
            return await send(catalog.GET_SERVER_INFO.at())
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
        """Bring thousands of files into a knowledge base and tell how each ended.

        Each file becomes a document named after its path. A journal remembers what was sent, so
        that the same load again sends only what is new or changed, and one that was cut off, even
        by `kill -9`, goes on where it stood: nothing is lost, and nothing sent twice unless it
        cannot have arrived. Cancelled, it lets requests that are under way finish for up to 10 s.

        Costs a request per file that is sent, a page of the list per 50 documents that are
        indexed, at intervals that follow the server's speed, and a page per 100 documents of a
        base that holds some which the journal does not know. Memory does not grow with the files.

        Args:
            source: a folder, a file, an `Item`, or several of them, also from a generator, async
                or not. Keys are paths relative to the folder; of several folders, they begin
                with the folder's name. One that gives nothing is no error.
            include: globs; a pattern without `/` is tried on names at any depth. What begins with
                a dot is left out unless a pattern names it.
            exclude: globs of what is left out.
            as_text: globs of files to send as text, with `.txt` appended to their name, because
                the server does not take their extension (rst, py, json, …).
            process_rule: how documents are cut; None is that of the base, or automatic if it has
                no document yet. Another one than the time before sends everything again.
            doc_form: None is that of the base.
            metadata: values by field name, for every document, or a function of the item (called
                in a thread); set once a document is indexed, one request per 50 documents. Fields
                that the base does not have are made.
            on_existing: what to do with a file whose document exists and is not known to come
                from the same file: `overwrite`, `skip`, `fail`.
            wait: `indexed` follows each document to its end, `accepted` does not. `verified` looks
                at all of them once more: one request for each document that was sent, and one
                per 100 of the base.
            concurrency: uploads at once; None finds it, (low, high) bounds what is found.
            rate: uploads in a time, like `100/min`; None learns it when the server refuses.
            max_unindexed: uploads wait while so many documents are not indexed yet; those of
                earlier runs count until nothing has moved for half of `stall_after`.
            stall_after: seconds without progress after which a document counts as stalled.
            deadline: seconds after which the run stops; what is left is `pending`.
            max_failures: more failed files than this stop the run.
            max_file_size: bytes; larger files are not sent. 15 MiB is the server's default limit.
            journal: a file; None is one in `~/.local/state/dify-kb` (`XDG_STATE_HOME`) for each
                server, dataset and source. Items and generators are no name for a source, so
                without a journal they are remembered in memory only.
            retry_failed: send files again that failed in an earlier run.
            errors: `stop` ends the run at the first file that fails and raises.
            dry_run: send nothing; files that would be sent are `pending`, with the reason.
            on_event: called in the loop thread with `Progress` and each `ItemResult`; must return
                at once.

        Returns:
            A report whenever the load could start, also when it had to stop (`report.stopped`).

        Raises:
            ConfigError: the source does not exist, an option is none, `metadata` has a value that
                no document can have, or the journal is of another load.
            JournalError: the journal is in use, damaged, newer, or cannot be written.
            LoadError: a file failed, under `errors="stop"`.
            UnauthorizedError: the key is not of this server.
            NotFoundError: no such dataset.
            TransportError: the server cannot be reached.
        """
        from .ingest import Options, Rules

        options = Options(
            rules=Rules(
                include=include, exclude=exclude, as_text=as_text, max_file_size=max_file_size
            ),
            process_rule=process_rule,
            doc_form=DocForm(doc_form) if doc_form else UNSET,
            metadata=metadata,
            on_existing=on_existing,
            wait=wait,
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
        """Do what `load` does and give each result as its file ends.

        `async for result in client.load_iter(…)`; the load runs while it is gone through, and
        pauses while 256 results wait to be taken. `break` ends it as a cancellation would, with
        nothing lost: the same load again goes on. The options are those of `load`.

        Raises:
            KnowledgeError: from the iteration, as `load`.
        """
        from .ingest import ItemResult as Result
        from .ingest import Options, ResultBuffer, Results, Rules

        async def begin(water: ResultBuffer[ItemResult]) -> LoadReport:
            def put(event: LoadEvent) -> None:
                if isinstance(event, Result):
                    water.put(event)

            options = Options(
                rules=Rules(
                    include=include, exclude=exclude, as_text=as_text, max_file_size=max_file_size
                ),
                process_rule=process_rule,
                doc_form=DocForm(doc_form) if doc_form else UNSET,
                metadata=metadata,
                on_existing=on_existing,
                wait=wait,
                max_unindexed=max_unindexed,
                stall_after=stall_after,
                deadline=deadline,
                max_failures=max_failures,
                journal=Path(journal) if journal is not None else None,
                retry_failed=retry_failed,
                errors=errors,
                on_event=put,
                pause=water.room,
            )
            return await self._load(dataset_id, source, options, concurrency, rate)

        return Results(begin)

    async def _load(
        self,
        dataset_id: Dataset | str,
        source: Source,
        options: Options,
        concurrency: int | tuple[int, int] | None,
        rate: str | None,
    ) -> LoadReport:
        from .ingest import Admission, Server, Tally, load, source_reader

        admission = Admission(concurrency, rate, self._pace, unit=self._policy.loading.pace)
        taken = await source_reader(source)
        tally = Tally()
        send = attrs.evolve(self._open(), on_attempt=_seen_by(tally, admission, self._on_attempt))
        # What fails comes back through the admission, which knows why it waits.
        once = attrs.evolve(self._policy.retry, reads=1, writes=1, throttled=1)
        sparing = attrs.evolve(send, policy=attrs.evolve(self._policy, retry=once))
        server = Server(
            identity=self._identity,
            datasets=Datasets(send),
            probe=Datasets(sparing),
            documents=Documents(send),
            uploads=Documents(sparing),
            metadata=Metadata(send),
            admission=admission,
            policy=self._policy,
        )
        try:
            return await load(server, dataset_id, taken, options, tally)
        finally:
            admission.close()

    @property
    def _identity(self) -> str | None:
        """What journals know the server by; None for one that ends with this client."""
        return self.base_url if self._emulator is None else self._emulator.identity

    def _open(self) -> Sender:
        if self._sender is None:
            raise ConfigError(
                "The client is not open.", hint="Use it inside `async with AsyncClient(…)`."
            )
        return self._sender


def _seen_by(tally: Tally, admission: Admission, listener: OnAttempt | None) -> OnAttempt:
    def see(event: Attempted) -> None:
        tally.requests += 1
        tally.retries += event.attempt > 1
        admission.observe(event)
        if listener is not None:
            listener(event)

    return see


def _policy(policy: Policy, timeout: Timeout | None, retry: Retry | None) -> Policy:
    return attrs.evolve(policy, timeout=timeout or policy.timeout, retry=retry or policy.retry)


def _positive(value: int, option: str) -> int:
    if value < 1:
        raise ConfigError(f"{option} is {value}.", hint="It must be at least 1.")
    return value


def _emulator(address: str) -> Emulator:
    """Make the embedded server of `emulator:PATH?version=…`, not started yet."""
    from .emulator import Emulator

    path, _, query = address.removeprefix(EMULATOR).partition("?")
    options = dict(parse_qsl(query))
    version = options.pop("version", None)
    if options:
        raise ConfigError(
            f"{address!r} has the unknown option {next(iter(options))!r}.",
            hint="It can be emulator:PATH?version=1.16.",
        )
    where = Path(path).expanduser() if path else None
    return Emulator(where, version=version) if version else Emulator(where)
