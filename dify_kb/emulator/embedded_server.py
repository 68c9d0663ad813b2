from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio
import anyio.to_thread
from aiohttp import web
from attrs import frozen

from dify_kb.errors import ConfigError

from .capacity_model import CapacityModel
from .clocks import Clock, SystemClock
from .external_knowledge import ExternalKnowledge
from .faults import Faults
from .history import Exchange, History, RunEvent
from .indexer import Indexer
from .request_context import RequestContext
from .server_versions import get_profile
from .settings import Settings
from .signed_urls import SignedUrls
from .store import DocumentState, Store
from .web_app import build_app

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

_SHUTDOWN_TIMEOUT: Final = 0.5
"""Seconds that open requests get when the server stops."""

_IDLE_KEEP_ALIVE: Final = 3600.0
"""Seconds that an idle connection stays open where nobody waits for its place."""

_JOIN_TIMEOUT: Final = 5.0
"""Seconds after which a stop goes on without the server's thread, which dies with the process."""


class Emulator:
    """A Dify-compatible server on a loopback port, with its state in memory or in a file.

    It runs in a thread of its own, so it neither blocks nor depends on the caller's event loop.
    A file belongs to one emulator at a time; what was not indexed when it stopped goes on when
    it is opened again. `version` is one of `VERSIONS`; `port` 0 takes a free one.

    Raises:
        ConfigError: an unknown version; from `start` also a port that is taken, or a file that
            is in use, cannot be opened or is not an emulator's.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        version: str = "1.16",
        api_key: str = "dataset-emulator",
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._profile = get_profile(version)
        self._settings = settings or Settings()
        self._host = host
        self._port = port
        self._server_thread: _ServerThread | None = None
        self._history = History(self._settings.history_size)
        self.api_key = api_key
        self.clock: Clock = clock or SystemClock()
        self.faults = Faults()
        self._capacity: CapacityModel | None = None

    @property
    def url(self) -> str:
        """The base URL, e.g. `http://127.0.0.1:41234/v1`."""
        return self._require_server_thread().url

    @property
    def identity(self) -> str | None:
        """What stays the same though the port changes: the file; None for one in memory."""
        return None if self._path is None else f"emulator:{self._path.resolve()}"

    @property
    def history(self) -> list[Exchange]:
        """The latest calls, the one that was over first at the beginning."""
        return self._history.list_exchanges()

    @property
    def runs(self) -> list[RunEvent]:
        """The latest starts and ends of runs of the indexer, the oldest first."""
        return self._history.list_runs()

    @property
    def starved_connections(self) -> int:
        """How many connections waited over 0.5 s for their place since the start."""
        return self._capacity.starved_connections if self._capacity else 0

    def documents(self, dataset_id: str) -> list[DocumentState]:
        """Tell the documents of a dataset in the order of their creation, without a call.

        Raises:
            ConfigError: the emulator is not running.
        """
        return self._require_server_thread().list_documents(dataset_id)

    def register_external(self, name: str, endpoint: str, api_key: str) -> str:
        """Register an external knowledge API, as the console does, and give its id.

        It is probed first. Blocks; give it a thread where your own loop serves the endpoint. From
        another process: `POST /_emulator/external-apis`.

        Raises:
            ConfigError: Dify would refuse it, or the emulator is not running.
        """
        server_thread = self._require_server_thread()
        return server_thread.run_in_loop(
            lambda external: external.register(name, endpoint, api_key)
        )

    def retrieve_external(
        self,
        dataset_id: str,
        query: str,
        *,
        metadata_condition: Mapping[str, object] | None = None,
        console: bool = False,
    ) -> list[dict[str, Any]]:
        """Ask the API of an external dataset, and give what an app gets: `content`, `metadata`.

        Searches of the Knowledge API never do this; only apps do, and with `console` the retrieval
        test, which escapes quotes. Blocks, as `register_external` does. From another process:
        `POST /_emulator/external-datasets/{dataset_id}/retrieve`.

        Raises:
            ConfigError: no such dataset, it is bound to no API, or the emulator is not running.
            InvalidReplyError: the API answered what makes Dify's step fail.
        """
        return self._require_server_thread().run_in_loop(
            lambda external: external.retrieve(
                dataset_id, query, metadata_condition=metadata_condition, console=console
            )
        )

    def start(self) -> str:
        """Start serving and return the base URL; again while it runs, only that."""
        if self._server_thread is None:
            store = Store(self._path)
            try:
                self._server_thread = _ServerThread(
                    self._build_server, store, self._host, self._port
                )
            except BaseException:
                store.close()
                raise
        return self._server_thread.url

    def stop(self) -> None:
        """Stop serving and let go of port and file; takes seconds at most, and may be repeated."""
        server_thread, self._server_thread = self._server_thread, None
        if server_thread is not None:
            server_thread.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _require_server_thread(self) -> _ServerThread:
        if self._server_thread is None:
            raise ConfigError("The emulator is not running.", hint="Call start() first.")
        return self._server_thread

    def _build_server(self, store: Store) -> _ServerParts:
        settings, clock = self._settings, self.clock
        indexer = Indexer(store, settings, clock, self.faults, self._history, self._profile)
        context = RequestContext(
            store=store,
            settings=settings,
            profile=self._profile,
            clock=clock,
            enqueue=indexer.enqueue,
            signed_urls=SignedUrls(store.secret),
            invoke_model=self.faults.call_model,
        )
        self._capacity = CapacityModel.from_settings(settings)
        app = build_app(context, self.api_key, self.faults, self._history, self._capacity)
        return _ServerParts(
            app,
            indexer,
            self.faults,
            settings,
            ExternalKnowledge(context),
            lambda: store.documents.keep_versions(clock.now),
        )


async def serve(emulator: Emulator, on_start: Callable[[str], None]) -> None:
    """Serve until cancelled; `on_start` is called with the base URL and must return at once."""
    url = await anyio.to_thread.run_sync(emulator.start)
    try:
        on_start(url)
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(emulator.stop)


@frozen
class _ServerParts:
    """What a server consists of."""

    app: web.Application
    indexer: Indexer
    faults: Faults
    settings: Settings
    external: ExternalKnowledge
    keep_versions: Callable[[], None]

    def create_runner(self) -> web.AppRunner:
        keep_alive = self.settings.keep_alive if self.settings.connections else _IDLE_KEEP_ALIVE
        return web.AppRunner(
            self.app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
            keepalive_timeout=keep_alive,
        )

    def connect_faults(self) -> None:
        """Let what faults ask for reach the indexer and the store, from any thread."""
        loop = asyncio.get_running_loop()
        self.faults.on_restart = lambda: _call_soon(loop, self.indexer.restart_workers)
        self.faults.on_kill = lambda lose: _call_soon(loop, lambda: self.indexer.kill_workers(lose))
        self.faults.on_stale_list = lambda: _call_soon(loop, self.keep_versions)
        if self.faults.needs_versions:
            self.keep_versions()


class _ServerThread:
    """The thread of a server that runs."""

    def __init__(
        self, build_parts: Callable[[Store], _ServerParts], store: Store, host: str, port: int
    ) -> None:
        self._build_parts = build_parts
        self._store = store
        self._address = (host, port)
        self._stop: Callable[[], None] = lambda: None
        self._ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, name="dify-kb-emulator", daemon=True)
        self._thread.start()
        try:
            self.url = self._ready.result()
        except OSError as error:
            self._thread.join(_JOIN_TIMEOUT)
            raise _bind_error(host, port, error) from error

    def list_documents(self, dataset_id: str) -> list[DocumentState]:
        return self._store.documents.list_states(dataset_id)

    def run_in_loop(self, request: Callable[[ExternalKnowledge], Coroutine[Any, Any, T]]) -> T:
        """Do something in the server's loop, and wait for it in this thread."""
        return asyncio.run_coroutine_threadsafe(request(self._external), self._loop).result()

    def stop(self) -> None:
        """End the thread, then close the store."""
        self._stop()
        self._thread.join(_JOIN_TIMEOUT)
        self._store.close()

    def _main(self) -> None:
        try:
            anyio.run(self._run)
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _run(self) -> None:
        parts = self._build_parts(self._store)
        self._external = parts.external
        indexer, runner = parts.indexer, parts.create_runner()
        await runner.setup()
        parts.connect_faults()
        try:
            indexer.enqueue_unfinished()
            await web.TCPSite(runner, *self._address).start()
            async with anyio.create_task_group() as group:
                group.start_soon(indexer.run)
                self._publish_address(runner, group.cancel_scope)
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()
            indexer.close()

    def _publish_address(self, runner: web.AppRunner, scope: anyio.CancelScope) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stop = lambda: _call_soon(loop, scope.cancel)
        host, port = runner.addresses[0][:2]
        self._ready.set_result(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")


def _call_soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    # The loop is closed when the thread ended by itself.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


def _bind_error(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} on {host} is taken.",
            hint="Choose another port, or 0 for a free one.",
        )
    return ConfigError(
        f"The emulator cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Use 127.0.0.1 and a port above 1023.",
    )
