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

_STOP_TIMEOUT: Final = 5.0
"""Seconds after which a stop goes on without the thread, which then dies with the process."""

_LEAVE_TIMEOUT: Final = 1.0
"""Seconds that other threads get to learn that the loop stops."""

_Signal = Future[None]
"""Given by `cancel()`, in any thread, once or more often, before or after anybody listens."""


@frozen
class LoopTask(Generic[R]):
    """What runs in the loop for another thread."""

    _future: Future[R]
    _cancel_signal: _Signal

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
                self._cancel_signal.cancel()
            raise

    def cancel(self) -> None:
        """Cancel it, in any thread; its cleanup goes on in the loop."""
        self._cancel_signal.cancel()


class LoopThread:
    """A thread with an event loop, which runs coroutines for any other thread.

    It starts, and opens `resource`, with the first call; until then a fork does no harm. It ends,
    and closes `resource`, with `close`, else with the process or when nobody holds this object.
    """

    def __init__(self, resource: AbstractAsyncContextManager[object]) -> None:
        self._resource = resource
        self._lock = threading.RLock()
        self._running: _RunningThread | None = None
        self._stop: Callable[[], object] = lambda: None
        self._closed = False

    def start(self) -> _RunningThread:
        """Start the thread if it does not run yet.

        Raises:
            ConfigError: it was closed, or belongs to the process that this one was forked from.
        """
        running = self._running
        if running is not None and running.is_forked:
            raise ConfigError(
                "The client was opened before the process was forked.",
                hint="Make a client in each process, or use it only after the fork.",
            )
        with self._lock:
            if self._closed:
                raise _closed_error()
            if self._running is None:
                self._running = _RunningThread(self._resource)
                # Not a method of this object, so that it can be collected; also run at exit.
                self._stop = weakref.finalize(self, self._running.stop)
            return self._running

    def start_task(self, create_coroutine: Callable[[], Coroutine[Any, Any, R]]) -> LoopTask[R]:
        """Start what `create_coroutine` gives in the loop, with the caller's context variables.

        Raises:
            ConfigError: see `start`; or the caller is in the loop's own thread.
        """
        return self.start().start_task(create_coroutine)

    def run(self, create_coroutine: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run what `create_coroutine` gives in the loop; see `start_task` and `LoopTask.result`."""
        return self.start_task(create_coroutine).result()

    def close(self) -> None:
        """Cancel what runs, close `resource` and end the thread; may be repeated.

        Raises:
            ConfigError: the caller is in the loop's own thread.
        """
        running = self._running
        if running is not None and running.is_forked:
            return
        if running is not None:
            running.check_thread()
        with self._lock:
            self._closed = True
        self._stop()
        if running is not None and running.failure is not None:
            failure, running.failure = running.failure, None
            raise failure


class _RunningThread:
    """The thread while it runs. It does not know `LoopThread`, which could else never be freed."""

    def __init__(self, resource: AbstractAsyncContextManager[object]) -> None:
        self.failure: Exception | None = None
        self._resource = resource
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._handovers = 0
        self._stopping = _Signal()
        self._ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._run_thread, name="dify-kb", daemon=True)
        self._thread.start()
        try:
            self._portal = self._ready.result()
        except BaseException:
            self.stop()
            raise

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child of the one in which the thread runs."""
        return os.getpid() != self._process

    def check_thread(self) -> None:
        """Refuse the loop's own thread, where waiting would be for ever."""
        if threading.current_thread() is self._thread:
            raise ConfigError(
                "A blocking client was called in its own loop thread, by a callback.",
                hint="Callbacks must return at once; pass the work to another thread.",
            )

    def start_task(self, create_coroutine: Callable[[], Coroutine[Any, Any, R]]) -> LoopTask[R]:
        self.check_thread()
        cancel_signal = _Signal()
        with self._track_handover():
            try:
                future = self._portal.start_task_soon(
                    _run_until_cancelled, cancel_signal, create_coroutine
                )
            except RuntimeError:
                raise _closed_error() from None
            except BaseException:
                # Ctrl-C: the task may have begun although nobody was told of it.
                cancel_signal.cancel()
                raise
        return LoopTask(future, cancel_signal)

    def stop(self) -> None:
        """End the thread; by then the resource is closed, unless that takes too long."""
        if self.is_forked:
            return
        with self._lock:
            self._stopping.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_TIMEOUT)

    @contextlib.contextmanager
    def _track_handover(self) -> Iterator[None]:
        with self._lock:
            if self._stopping.done():
                raise _closed_error()
            self._handovers += 1
        try:
            yield
        finally:
            with self._lock:
                self._handovers -= 1

    def _run_thread(self) -> None:
        uvloop = importlib.util.find_spec("uvloop") is not None
        try:
            anyio.run(self._run_loop, backend_options={"use_uvloop": uvloop})
        except BaseException as error:  # noqa: BLE001 -- the thread's edge: told to who waits
            if not self._ready.done():
                self._ready.set_exception(error)
            elif isinstance(error, Exception):
                self.failure = error

    async def _run_loop(self) -> None:
        stopping = anyio.Event()
        async with self._resource, BlockingPortal() as portal:
            _call_when_signalled(self._stopping, stopping.set)
            self._ready.set_result(portal)
            await stopping.wait()
            await portal.stop(cancel_remaining=True)
        # Who hands something to a loop that has ended waits for ever.
        with anyio.move_on_after(_LEAVE_TIMEOUT):
            while self._handovers:  # noqa: ASYNC110 -- other threads change it
                await anyio.sleep(0.001)


async def _run_until_cancelled(
    cancel_signal: _Signal, create_coroutine: Callable[[], Coroutine[Any, Any, R]]
) -> R:
    with anyio.CancelScope() as scope:
        _call_when_signalled(cancel_signal, scope.cancel)
        return await create_coroutine()
    raise concurrent.futures.CancelledError


def _call_when_signalled(signal: _Signal, callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def schedule(_: _Signal) -> None:
        # The loop is closed when the thread ended by itself.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)

    signal.add_done_callback(schedule)


def _closed_error() -> ConfigError:
    return ConfigError("The client is closed.", hint="Make a new one; nothing reopens it.")
