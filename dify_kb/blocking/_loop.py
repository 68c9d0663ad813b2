"""The thread in which the event loop of a blocking client runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal
from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

R = TypeVar("R")

_STOP: Final = 5.0
"""Seconds after which a stop goes on without the thread, which then dies with the process."""

_LEAVE: Final = 1.0
"""Seconds that other threads get to learn that the loop stops."""

_Signal = Future[None]
"""Given by `cancel()`, in any thread, once or more often, before or after anybody listens."""


@frozen
class Task(Generic[R]):
    """What runs in the loop for another thread."""

    _future: Future[R]
    _given_up: _Signal

    def result(self) -> R:
        """Wait for it. Whatever ends the wait early, such as Ctrl-C, cancels it.

        Raises:
            KnowledgeError: another thread closed the client meanwhile.
        """
        try:
            return self._future.result()
        except concurrent.futures.CancelledError:
            raise KnowledgeError(
                "The client was closed during the call.",
                hint="What was asked for may have been done.",
            ) from None
        except BaseException:
            if not self._future.done():
                self._given_up.cancel()
            raise

    def cancel(self) -> None:
        """Cancel it, in any thread; its cleanup goes on in the loop."""
        self._given_up.cancel()


class Loop:
    """A thread with an event loop, which runs coroutines for any other thread.

    It starts, and opens `resource`, with the first call; until then a fork does no harm. It ends,
    and closes `resource`, with `close`, else with the process or when nobody holds this object.
    """

    def __init__(self, resource: AbstractAsyncContextManager[object]) -> None:
        self._resource = resource
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._stop: Callable[[], object] = lambda: None
        self._closed = False

    def start(self) -> _Running:
        """Start the thread if it does not run yet.

        Raises:
            ConfigError: it was closed, or belongs to the process that this one was forked from.
        """
        running = self._running
        if running is not None and running.forked:
            raise ConfigError(
                "The client was opened before the process was forked.",
                hint="Make a client in each process, or use it only after the fork.",
            )
        with self._lock:
            if self._closed:
                raise _closed()
            if self._running is None:
                self._running = _Running(self._resource)
                # Not a method of this object, so that it can be collected; also run at exit.
                self._stop = weakref.finalize(self, self._running.stop)
            return self._running

    def begin(self, make: Callable[[], Coroutine[Any, Any, R]]) -> Task[R]:
        """Start what `make` gives in the loop, with the caller's context variables.

        Raises:
            ConfigError: see `start`; or the caller is in the loop's own thread.
        """
        return self.start().begin(make)

    def wait(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run what `make` gives in the loop; see `begin` and `Task.result`."""
        return self.begin(make).result()

    def close(self) -> None:
        """Cancel what runs, close `resource` and end the thread; may be repeated.

        Raises:
            ConfigError: the caller is in the loop's own thread.
        """
        running = self._running
        if running is not None and running.forked:
            return
        if running is not None:
            running.check_thread()
        with self._lock:
            self._closed = True
        self._stop()
        if running is not None and running.failure is not None:
            failure, running.failure = running.failure, None
            raise failure


class _Running:
    """The thread while it runs. It does not know the `Loop`, which could else never be freed."""

    def __init__(self, resource: AbstractAsyncContextManager[object]) -> None:
        self.failure: Exception | None = None
        self._resource = resource
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._entered = 0
        self._stopping = _Signal()
        self._ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._main, name="dify-kb", daemon=True)
        self._thread.start()
        try:
            self._portal = self._ready.result()
        except BaseException:
            self.stop()
            raise

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one in which the thread runs."""
        return os.getpid() != self._process

    def check_thread(self) -> None:
        """Refuse the loop's own thread, where waiting would be for ever."""
        if threading.current_thread() is self._thread:
            raise ConfigError(
                "A blocking client was called in its own loop thread, by a callback.",
                hint="Callbacks must return at once; pass the work to another thread.",
            )

    def begin(self, make: Callable[[], Coroutine[Any, Any, R]]) -> Task[R]:
        self.check_thread()
        given_up = _Signal()
        with self._entering():
            try:
                future = self._portal.start_task_soon(_unless, given_up, make)
            except RuntimeError:
                raise _closed() from None
            except BaseException:
                # Ctrl-C: the task may have begun although nobody was told of it.
                given_up.cancel()
                raise
        return Task(future, given_up)

    def stop(self) -> None:
        """End the thread; by then the resource is closed, unless that takes too long."""
        if self.forked:
            return
        with self._lock:
            self._stopping.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP)

    @contextlib.contextmanager
    def _entering(self) -> Iterator[None]:
        with self._lock:
            if self._stopping.done():
                raise _closed()
            self._entered += 1
        try:
            yield
        finally:
            with self._lock:
                self._entered -= 1

    def _main(self) -> None:
        uvloop = importlib.util.find_spec("uvloop") is not None
        try:
            anyio.run(self._run, backend_options={"use_uvloop": uvloop})
        except BaseException as error:  # noqa: BLE001 -- the thread's edge: told to who waits
            if not self._ready.done():
                self._ready.set_exception(error)
            elif isinstance(error, Exception):
                self.failure = error

    async def _run(self) -> None:
        stopping = anyio.Event()
        async with self._resource, BlockingPortal() as portal:
            _when(self._stopping, stopping.set)
            self._ready.set_result(portal)
            await stopping.wait()
            await portal.stop(cancel_remaining=True)
        # Who hands something to a loop that has ended waits for ever.
        with anyio.move_on_after(_LEAVE):
            while self._entered:  # noqa: ASYNC110 -- other threads change it
                await anyio.sleep(0.001)


async def _unless(given_up: _Signal, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
    with anyio.CancelScope() as scope:
        _when(given_up, scope.cancel)
        return await make()
    raise concurrent.futures.CancelledError


def _when(signal: _Signal, act: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def soon(_: _Signal) -> None:
        # The loop is closed when the thread ended by itself.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(act)

    signal.add_done_callback(soon)


def _closed() -> ConfigError:
    return ConfigError("The client is closed.", hint="Make a new one; nothing reopens it.")
