"""From what happened to what the shell sees."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from dify_kb.errors import (
    ConfigError,
    ForbiddenError,
    KnowledgeError,
    QuotaExceededError,
    RateLimitedError,
    UnauthorizedError,
)

ERROR, USAGE, REFUSED, LATER = 1, 2, 4, 5
INTERRUPTED, TERMINATED = 130, 143


def exit_code(error: KnowledgeError) -> int:
    """Tell the exit code of an error."""
    match error:
        case ConfigError():
            return USAGE
        case UnauthorizedError() | ForbiddenError() | QuotaExceededError():
            return REFUSED
        case RateLimitedError():
            return LATER
        case _:
            return ERROR


@contextmanager
def terminated() -> Iterator[Event]:
    """Let SIGTERM end the block the way Ctrl-C does; the event tells that it came."""
    met = Event()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        met.set()
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield met
    finally:
        signal.signal(signal.SIGTERM, before)
