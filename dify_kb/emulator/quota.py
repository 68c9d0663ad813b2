from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .refused import RATE_LIMIT, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dify_kb.wire.endpoint import Endpoint

    from .settings import Settings


class Quota:
    """The calls of a subscription in a sliding window; refused ones count too (measured)."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._limit = settings.quota
        self._window = settings.quota_window
        self._now = now
        self._calls: deque[float] = deque()

    def charge(self, endpoint: Endpoint[Any, Any]) -> None:
        """Count a call that is a write or a search; others are free (measured).

        Raises:
            RefusedError: there were too many in the window.
        """
        if self._limit is None or endpoint.method == "GET" or _is_free(endpoint.name):
            return
        now = self._now()
        self._calls.append(now)
        while self._calls[0] <= now - self._window:
            self._calls.popleft()
        if len(self._calls) > self._limit:
            raise RefusedError(403, "forbidden", RATE_LIMIT)


def _is_free(name: str) -> bool:
    return name == "documents.set_status" or name.startswith("tags.")
