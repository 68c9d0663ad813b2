"""The embedded Dify server, run in its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
from aiohttp import web
from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.event_loops import run_in_thread_loop

from .clocks import Clock, SystemClock
from .external_knowledge import ExternalKnowledge
from .faults import Faults
from .history import Exchange, History, RunEvent
from .indexer import Indexer
from .request_capacity import CapacityModel
from .request_context import RequestContext
from .settings import Settings
from .signed_urls import SignedUrls
from .store import DocumentState, Store
from .version_profiles import get_profile
from .web_app import build_app

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from types import TracebackType

T = TypeVar("T")

_SHUTDOWN_TIMEOUT: Final = 0.5
"""Seconds that active requests get to finish when the server stops."""

_IDLE_KEEP_ALIVE: Final = 3600.0
"""Seconds that an idle connection stays open if connections are not limited."""

_JOIN_TIMEOUT: Final = 5.0
"""Seconds that `stop` waits for the server's thread, a daemon that dies with the process."""


class Emulator:
    """A Dify-compatible server on a loopback port, with its state in memory or in a file.

    The server runs in its own thread, so it neither blocks nor needs the caller's event loop.
    Only one emulator can use a file at a time. Indexing that was unfinished at `stop` continues
    when the file is opened again.

    Args:
        path: database file; created if missing. None keeps the state in memory.
        version: emulated server version, one of `VERSIONS`.
        api_key: the only API key that the server accepts.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        settings: sizes, limits and durations of the server.
        clock: source of time; `ManualClock` gives tests control of it.

    Raises:
        ConfigError: the version is unknown; from `start` also: the port is in use, or the file is
            in use, cannot be opened or was not created by an emulator.
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
        """A stable identifier of the file, independent of the port; None without a file."""
        return None if self._path is None else f"emulator:{self._path.resolve()}"

    @property
    def history(self) -> list[Exchange]:
        """The latest requests, ordered by the time they ended."""
        return self._history.list_exchanges()

    @property
    def runs(self) -> list[RunEvent]:
        """The latest starts and ends of indexing runs, oldest first."""
        return self._history.list_runs()

    @property
    def starved_connections(self) -> int:
        """Number of connections since the start that waited over 0.5 s for a slot."""
        return self._capacity.starved_connections if self._capacity else 0

    def documents(self, dataset_id: str) -> list[DocumentState]:
        """Return the documents of a dataset in order of creation, without an HTTP request.

        Raises:
            ConfigError: the emulator is not running.
        """
        return self._require_server_thread().list_documents(dataset_id)

    def register_external(self, name: str, endpoint: str, api_key: str) -> str:
        """Register an external knowledge API, as the console does, and return its id.

        The endpoint is probed first. Blocks: call this in a thread if your event loop serves the
        endpoint. From another process: `POST /_emulator/external-apis`.

        Raises:
            ConfigError: Dify would reject the API, or the emulator is not running.
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
        """Query the API of an external dataset; return what an app gets: `content`, `metadata`.

        Only apps and the console query external APIs; searches of the Knowledge API do not.
        Blocks, as `register_external` does. From another process:
        `POST /_emulator/external-datasets/{dataset_id}/retrieve`.

        Args:
            console: query as the console's retrieval test does, which escapes quotes.

        Raises:
            ConfigError: the dataset does not exist or is not bound to an API, or the emulator is
                not running.
            InvalidResponseError: Dify's retrieval step would fail with the API's response.
        """
        return self._require_server_thread().run_in_loop(
            lambda external: external.retrieve(
                dataset_id, query, metadata_condition=metadata_condition, console=console
            )
        )

    def start(self) -> str:
        """Start the server if it is not running, and return the base URL."""
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
        """Stop the server and release port and file, within seconds. May be called repeatedly."""
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
    """Run an emulator until cancelled; `on_start(base_url)` must return immediately."""
    url = await anyio.to_thread.run_sync(emulator.start)
    try:
        on_start(url)
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(emulator.stop)


def create_emulator(location: str) -> Emulator:
    """Create the emulator of a client's `emulator:` address, without starting it.

    Args:
        location: the part after `emulator:`: `PATH?version=…`; both may be omitted.

    Raises:
        ConfigError: the location has an unknown option, or the version is unknown.
    """
    path, _, query = location.partition("?")
    options = dict(parse_qsl(query))
    version = options.pop("version", None)
    if options:
        raise ConfigError(
            f"Unknown option {next(iter(options))!r} in address {f'emulator:{location}'!r}.",
            hint="Use emulator:FILE or emulator:FILE?version=1.16.",
        )
    if "\0" in path:
        raise ConfigError(f"The path {path!r} contains a NUL character.", hint="Use another path.")
    try:
        database_path = Path(path).expanduser() if path else None
    except RuntimeError as error:  # a user without a home
        raise ConfigError(f"Invalid path {path!r}: {error}.", hint="Use another path.") from error
    return Emulator(database_path, version=version) if version else Emulator(database_path)


@frozen
class _ServerParts:
    """The components of a running server."""

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
        """Connect the callbacks of the fault plans to the indexer and the store, thread-safely."""
        loop = asyncio.get_running_loop()
        self.faults.on_restart = lambda: _call_soon(loop, self.indexer.restart_workers)
        self.faults.on_kill = lambda lose: _call_soon(loop, lambda: self.indexer.kill_workers(lose))
        self.faults.on_stale_list = lambda: _call_soon(loop, self.keep_versions)
        if self.faults.needs_versions:
            self.keep_versions()


class _ServerThread:
    """The thread of a running server."""

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
        """Run a coroutine in the server's event loop, blocking the calling thread."""
        return asyncio.run_coroutine_threadsafe(request(self._external), self._loop).result()

    def stop(self) -> None:
        """Stop the thread, then close the store."""
        self._stop()
        self._thread.join(_JOIN_TIMEOUT)
        self._store.close()

    def _main(self) -> None:
        try:
            run_in_thread_loop(self._run)
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
    # The loop is already closed if the thread has ended.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


def _bind_error(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} on {host} is already in use.",
            hint="Choose another port, or 0 for a free one.",
        )
    return ConfigError(
        f"Cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Use 127.0.0.1 and a port above 1023.",
    )
