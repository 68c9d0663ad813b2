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
from .transport import Attempted, OnAttempt, Pace, Sender, Session, connect
from .wire import catalog

if TYPE_CHECKING:
    import ssl as _ssl
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import aiohttp

    from .emulator import Emulator
    from .ingest import LoadReport, OnExisting, OnLoadEvent, Source, Tally, Wait

EMULATOR = "emulator:"
UPLOADS = 4
"""Uploads at once when nothing is said: a default server is full at 2 to 3, and 4 costs little
latency (measured on 1.4.3 and 1.12.1)."""


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
        self._pace = Pace(
            _positive(DEFAULT_CONCURRENCY if concurrency is None else concurrency, "concurrency")
        )
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
        on_existing: OnExisting = "overwrite",
        wait: Wait = "indexed",
        concurrency: int | None = None,
        max_unindexed: int = 5000,
        stall_after: float = 900.0,
        max_file_size: int = MAX_FILE_SIZE,
        on_event: OnLoadEvent | None = None,
    ) -> LoadReport:
        """Bring thousands of files into a knowledge base and tell how each ended.

        Each file becomes a document named after its path, so that a second load of the same
        folder replaces it instead of adding another. Costs a request per file, one per 100
        documents that the base holds already, and a page of the list per 100 documents that are
        being indexed, at growing intervals. Memory grows with the failures, not with the files
        or their sizes.

        Args:
            source: a folder, a file, or several of them. Keys are paths relative to the folder;
                of several, they begin with the folder's name.
            include: globs; a pattern without `/` is tried on names at any depth. What begins with
                a dot is left out unless a pattern names it.
            exclude: globs of what is left out.
            as_text: globs of files to send as text, with `.txt` appended to their name, because
                the server does not take their extension (rst, py, json, …).
            process_rule: how documents are cut; None is that of the base, or automatic if it has
                no document yet.
            doc_form: None is that of the base.
            on_existing: what to do with a file whose document exists: `overwrite`, `skip`, `fail`.
            wait: `indexed` follows each document to its end, `accepted` does not.
            concurrency: uploads at once; None is 4.
            max_unindexed: uploads wait while so many documents are not indexed yet.
            stall_after: seconds without progress after which a document counts as stalled.
            max_file_size: bytes; larger files are not sent. 15 MiB is the server's default limit.
            on_event: called in the loop thread with `Progress` and each `ItemResult`; must return
                at once.

        Returns:
            A report whenever the load could start, also when it had to stop (`report.stopped`).

        Raises:
            ConfigError: the source does not exist, or an option is none.
            UnauthorizedError: the key is not of this server.
            NotFoundError: no such dataset.
            TransportError: the server cannot be reached.
        """
        from .ingest import Options, Rules, Tally, load, roots_of

        for option, value, known in (
            ("on_existing", on_existing, ("overwrite", "skip", "fail")),
            ("wait", wait, ("accepted", "indexed")),
        ):
            if value not in known:
                raise ConfigError(f"{option} is {value!r}.", hint=f"It can be {', '.join(known)}.")
        options = Options(
            rules=Rules(
                include=include, exclude=exclude, as_text=as_text, max_file_size=max_file_size
            ),
            process_rule=process_rule,
            doc_form=DocForm(doc_form) if doc_form else UNSET,
            on_existing=on_existing,
            wait=wait,
            concurrency=_positive(UPLOADS if concurrency is None else concurrency, "concurrency"),
            max_unindexed=_positive(max_unindexed, "max_unindexed"),
            stall_after=stall_after,
            on_event=on_event,
        )
        roots = await anyio.to_thread.run_sync(roots_of, source)
        self._pace.widen(options.concurrency)
        tally = Tally()
        send = attrs.evolve(self._open(), on_attempt=_counted(tally, self._on_attempt))
        return await load(
            Datasets(send), Documents(send), dataset_id, roots, options, self._policy.watch, tally
        )

    def _open(self) -> Sender:
        if self._sender is None:
            raise ConfigError(
                "The client is not open.", hint="Use it inside `async with AsyncClient(…)`."
            )
        return self._sender


def _counted(tally: Tally, listener: OnAttempt | None) -> OnAttempt:
    def count(event: Attempted) -> None:
        tally.requests += 1
        tally.retries += event.attempt > 1
        if listener is not None:
            listener(event)

    return count


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
