"""Run the event loop of a blocking client in a background thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal
from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.event_loops import EventLoopName, exiting_error, is_exiting, run_in_thread_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

R = TypeVar("R")

_STOP_TIMEOUT: Final = 5.0
"""Seconds that a stop waits for the thread, which otherwise ends with the process."""

_LEAVE_TIMEOUT: Final = 1.0
"""Seconds that other threads get to notice that the loop is stopping."""

_Signal = Future[None]
"""A signal set by `cancel()`, in any thread, before or after callbacks are added; repeatable."""


@frozen
class LoopTask(Generic[R]):
    """A coroutine that runs in the loop on behalf of another thread."""

    _future: Future[R]
    _cancel_signal: _Signal

    def result(self) -> R:
        """Wait for the coroutine and return its result. Ctrl-C, for example, cancels it.

        Raises:
            KnowledgeError: another thread closed the client during the call.
        """
        try:
            return self._future.result()
        except concurrent.futures.CancelledError:
            raise KnowledgeError(
                "The client was closed during the call.",
                hint="Check on the server whether the operation succeeded.",
            ) from None
        except BaseException:
            if not self._future.done():
                self._cancel_signal.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the coroutine, from any thread. Its cleanup continues in the loop."""
        self._cancel_signal.cancel()


class LoopThread:
    """A thread with an event loop that runs coroutines for other threads.

    The first call starts the thread and opens `resource`; a fork before that is safe. `close`, the
    end of the process, or the deletion of this object ends the thread and closes `resource`.
    """

    def __init__(
        self, resource: AbstractAsyncContextManager[object], loop: EventLoopName = "asyncio"
    ) -> None:
        self._resource = resource
        self._loop_name: EventLoopName = loop
        self._lock = threading.RLock()
        self._running: _RunningThread | None = None
        self._stop: Callable[[], object] = lambda: None
        self._closed = False

    def start(self) -> _RunningThread:
        """Start the thread if it is not running yet.

        Raises:
            ConfigError: the thread was closed, or belongs to the parent of this forked process.
        """
        running = self._running
        if running is not None and running.is_forked:
            raise ConfigError(
                "The client was opened before the process was forked.",
                hint="Create a client in each process, or first use it after the fork.",
            )
        with self._lock:
            if self._closed:
                raise _closed_error()
            if self._running is None:
                self._running = _RunningThread(self._resource, self._loop_name)
                # Not a method of this object, which could otherwise not be collected. Also runs
                # at exit.
                self._stop = weakref.finalize(self, self._running.stop)
            return self._running

    def start_task(self, create_coroutine: Callable[[], Coroutine[Any, Any, R]]) -> LoopTask[R]:
        """Start a new coroutine in the loop, with the caller's context variables.

        Raises:
            ConfigError: see `start`; or the caller is in the loop's thread.
        """
        return self.start().start_task(create_coroutine)

    def run(self, create_coroutine: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a new coroutine in the loop and return its result; see `LoopTask.result`."""
        return self.start_task(create_coroutine).result()

    def close(self) -> None:
        """Cancel all tasks, close `resource` and end the thread. Safe to repeat.

        Raises:
            ConfigError: the caller is in the loop's thread.
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
    """The running thread. Has no reference to `LoopThread`, which could otherwise not be freed."""

    def __init__(self, resource: AbstractAsyncContextManager[object], loop: EventLoopName) -> None:
        self.failure: Exception | None = None
        self._resource = resource
        self._loop_name: EventLoopName = loop
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._handovers = 0
        self._stopping = _Signal()
        self._ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._run_thread, name="dify-kb", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise (exiting_error() if is_exiting() else error) from None
        try:
            self._portal = self._ready.result()
        except BaseException:
            self.stop()
            raise

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one in which the thread runs."""
        return os.getpid() != self._process

    def check_thread(self) -> None:
        """Raise an error in the loop's thread, where waiting for the loop would never end."""
        if threading.current_thread() is self._thread:
            raise ConfigError(
                "A callback called the blocking client in the client's own thread.",
                hint="Pass the work to another thread: callbacks must not block.",
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
                # Ctrl-C: the task may have started although no future was returned.
                cancel_signal.cancel()
                raise
        return LoopTask(future, cancel_signal)

    def stop(self) -> None:
        """Close the resource and end the thread; do not wait for it longer than the timeout."""
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
        try:
            run_in_thread_loop(self._run_loop, self._loop_name)
        except BaseException as error:  # noqa: BLE001 -- raised in the waiting thread
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
        # A thread that passes a coroutine to a loop that has ended would wait forever.
        with anyio.move_on_after(_LEAVE_TIMEOUT):
            while self._handovers:  # noqa: ASYNC110 -- changed by other threads
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
        # The loop is closed if the thread has already ended.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)

    signal.add_done_callback(schedule)


def _closed_error() -> ConfigError:
    return ConfigError(
        "The client is closed.", hint="Create a new client: a closed one cannot be reopened."
    )
