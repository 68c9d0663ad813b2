"""The event loops that clients run in: the running one, and those of their own threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

R = TypeVar("R")

EventLoopName = Literal["asyncio", "uvloop"]
"""An implementation of event loops: that of the standard library, or the package uvloop."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigError: no asyncio event loop is running, as under trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "No asyncio event loop is running: AsyncClient requires asyncio, not trio.",
            hint="Call it in a coroutine run by asyncio.run(), or use the blocking Client.",
        ) from None


def check_loop_name(name: str | None) -> None:
    """Check the name of an event loop; None accepts any.

    Raises:
        ConfigError: the name is unknown, or uvloop is not installed.
    """
    if name not in {None, "asyncio", "uvloop"}:
        raise ConfigError(f"Invalid loop {name!r}.", hint="Pass asyncio or uvloop.")
    if name == "uvloop":
        try:
            import uvloop  # noqa: F401 -- imported when the loop starts
        except ImportError:
            raise ConfigError(
                "loop='uvloop' requires the package uvloop.", hint="pip install 'dify-kb[fast]'"
            ) from None


def check_loop(loop: asyncio.AbstractEventLoop, name: str | None) -> None:
    """Check that an event loop is the named one; None accepts any.

    Raises:
        ConfigError: it is another one.
    """
    is_uvloop = type(loop).__module__.partition(".")[0] == "uvloop"
    if name is not None and is_uvloop != (name == "uvloop"):
        raise ConfigError(
            f"The running event loop is not {name}'s.",
            hint=f"Start the program with {name}.run(), or remove loop=.",
        )


def run_in_thread_loop(
    main: Callable[[], Coroutine[Any, Any, R]], name: EventLoopName = "asyncio"
) -> R:
    """Run a coroutine in a new event loop of the current thread.

    Raises:
        ConfigError: gevent or eventlet runs this "thread" within one that has a running loop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError(
            "Another event loop is running in this thread: gevent or eventlet has replaced threads"
            " by greenlets, of which only one can have a loop.",
            hint="Share one Client, or keep threads: gevent.monkey.patch_all(thread=False,"
            " queue=False) or eventlet.monkey_patch(thread=False).",
        )
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def is_exiting() -> bool:
    """Return whether the interpreter is exiting, so that no thread can be started."""
    return not threading.main_thread().is_alive()


def exiting_error() -> ConfigError:
    """Return the error of a call that needs a thread while the interpreter exits."""
    return ConfigError(
        "The client cannot be used while the interpreter exits.",
        hint="Call it before the end of the program, not in an atexit handler.",
    )
