from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple


class Exchange(NamedTuple):
    """A call that came in. `status` is 0 where a fault left it without an answer."""

    endpoint: str
    status: int
    document: str | None = None
    """The name of the document that was to be created."""


class History:
    """The latest calls, for assertions from another thread."""

    def __init__(self, size: int) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, exchange: Exchange) -> None:
        """Remember a call."""
        with self._lock:
            self._exchanges.append(exchange)

    def copy(self) -> list[Exchange]:
        """Tell the calls, the oldest first."""
        with self._lock:
            return list(self._exchanges)
