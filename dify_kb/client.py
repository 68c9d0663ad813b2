"""The asynchronous client: open the session, provide the resources, load files."""

from __future__ import annotations

import copy
import functools
import os
import ssl as _ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import aiohttp
import attrs

from .client_resources import ClientResources
from .config import (
    DEFAULT_CONCURRENCY,
    Config,
    Duration,
    Policy,
    Retry,
    Timeout,
    check_headers,
    check_type,
)
from .errors import ConfigError
from .event_loops import EventLoopName, check_loop_name
from .models import MAX_FILE_SIZE, Dataset, DocForm, ProcessRule
from .profiles import require_profile
from .transport import (
    Connection,
    OnAttempt,
    RequestLimiter,
    Sender,
    choose_proxy,
    open_session,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

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


class AsyncClient(ClientResources):
    """An asynchronous client of one Dify server.

    Use it as a context manager, `async with AsyncClient(url, key) as client`, or call `aclose` at
    the end. It opens with `async with` or its first request, and belongs to the event loop that is
    running then. Requires asyncio, or uvloop; trio is not supported.

    Args:
        base_url: address of the server, with or without `/v1`. `emulator:` (in memory) or
            `emulator:PATH` (persistent, in a file) starts the embedded server while the client is
            open; append `?version=…` for another Dify version than 1.16. None reads
            `DIFY_BASE_URL`; there is no default host.
        api_key: a knowledge API key (`dataset-…`). None reads `DIFY_API_KEY`.
        timeout: timeouts of one attempt; a single duration, such as `30` (seconds) or `"2m"`, sets
            all of them.
        retry: number of attempts, and the backoff between them.
        concurrency: maximum requests in flight, which is also the number of connections; None is 8.
        headers: additional headers of every request.
        proxy: address of an HTTP proxy, such as `http://proxy.example:3128`; SOCKS is not
            supported. Ignored by the embedded server.
        trust_env: whether to use the proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
            and NO_PROXY, which lists host names, ports, addresses and networks (10.0.0.0/8).
            Credentials of a netrc file are never used.
        ssl: SSL context, for a private certificate authority.
        session: an aiohttp session to use instead of a new one. It is not closed, and its own
            proxy and SSL settings apply.
        on_event: callback after each attempt; called in the loop thread, must not block.
        policy: all timeouts, retry limits and intervals; `timeout` and `retry` override its parts.
        loop: event loop that must be running, `asyncio` or `uvloop`; None accepts both.

    Raises:
        ConfigError: the address or the key is missing or invalid, or another argument is invalid.
        TypeError: an argument has the wrong type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
    ) -> None:
        for name, value, expected, words in (
            ("base_url", base_url, str, "a text"),
            ("api_key", api_key, str, "a text"),
            ("concurrency", concurrency, int, "a whole number"),
            ("ssl", ssl, _ssl.SSLContext, "an ssl.SSLContext"),
            ("session", session, aiohttp.ClientSession, "an aiohttp.ClientSession"),
            ("on_event", on_event, Callable, "a function"),
        ):
            if value is not None:
                check_type(value, expected, name, words)
        address = base_url or os.environ.get("DIFY_BASE_URL", "")
        self._emulator: Emulator | None = None
        if address.startswith(EMULATOR_PREFIX):
            from .emulator.embedded_server import create_emulator

            self._emulator = create_emulator(address.removeprefix(EMULATOR_PREFIX))
        # DIFY_API_KEY belongs to a real server: the embedded one ignores it.
        config = (
            Config(base_url=address, api_key=api_key or self._emulator.api_key)
            if self._emulator
            else Config.from_environment(base_url, api_key)
        )
        limit = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        if limit < 1:
            raise ConfigError(f"Invalid concurrency: {limit}.", hint="Use 1 or more.")
        check_loop_name(loop)
        # The embedded server is on this machine.
        chosen_proxy = (
            None if self._emulator else choose_proxy(proxy, config.base_url, trust_env=trust_env)
        )
        self._connection = Connection(
            config,
            check_headers(headers),
            open_http=functools.partial(open_session, proxy=chosen_proxy, ssl=ssl)
            if session is None
            else lambda: session,
            owned=session is None,
            server=self._emulator,
            loop_name=loop,
        )
        self._sender = Sender(
            session=self._connection,
            limiter=RequestLimiter(limit, fixed=concurrency is not None),
            policy=(Policy() if policy is None else policy).merge(timeout, retry),
            on_attempt=on_event,
        )
        self._entered = self._view = False

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        timeout: Timeout | Duration | None = None,
        retry: Retry | None = None,
        concurrency: int | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        ssl: _ssl.SSLContext | None = None,
        on_event: OnAttempt | None = None,
        policy: Policy | None = None,
        loop: EventLoopName | None = None,
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
            loop=loop,
        )

    async def __aenter__(self) -> Self:
        self._check_owner()
        if self._entered:
            raise ConfigError(
                "The client is already open.", hint="Open each client once, in one event loop."
            )
        await self._connection.open()
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, and stop an embedded server. Safe to repeat.

        All later calls raise `ConfigError`. Has no effect in a forked process, as the connections
        belong to its parent.

        Raises:
            ConfigError: the client was returned by `with_options`, or is open in another event
                loop.
        """
        self._check_owner()
        self._entered = False
        await self._connection.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    @property
    def base_url(self) -> str:
        """The address, with `/v1`. An embedded server has one only while the client is open."""
        return self._connection.config.base_url

    @property
    def server_version(self) -> str | None:
        """The version in the server's last response.

        None before the first response, or behind a proxy that removes the header.
        """
        return self._sender.server.version

    def with_options(
        self, *, timeout: Timeout | Duration | None = None, retry: Retry | None = None
    ) -> Self:
        """Return a client with other settings that shares the connections of this client.

        The returned client is closed together with this client.
        """
        view = copy.copy(self)
        policy = self._sender.policy.merge(timeout, retry)
        view._sender = attrs.evolve(self._sender, policy=policy)  # noqa: SLF001 -- our own class
        view._view = True  # noqa: SLF001 -- likewise
        return view

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
        return await load(self._sender, identity, dataset_id, source, options)

    def _check_owner(self) -> None:
        if self._view:
            raise ConfigError(
                "A client of with_options cannot be opened or closed.",
                hint="Open and close the client whose with_options returned it.",
            )
