"""Timed locks that block document creation in a dataset."""

from __future__ import annotations

import time
from collections import defaultdict

import anyio

_POLL_INTERVAL = 0.02
"""Seconds between checks whether a lock was released early."""


class DatasetLocks:
    """Locks by dataset, timed in real seconds. `lock` and `release_all` are thread-safe."""

    def __init__(self) -> None:
        self._end_times: dict[str, float] = {}
        self._queues: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    def lock(self, dataset_id: str, seconds: float) -> None:
        """Lock a dataset for `seconds` from now."""
        self._end_times[dataset_id] = time.monotonic() + seconds

    def release_all(self) -> None:
        """Release all locks."""
        self._end_times = {}

    def is_locked(self, dataset_id: str) -> bool:
        """Return whether creates in the dataset are blocked."""
        return self._remaining_seconds(dataset_id) > 0

    async def wait(self, dataset_id: str) -> None:
        """Wait until the lock ends; waiters continue in order of arrival."""
        async with self._queues[dataset_id]:
            while (remaining := self._remaining_seconds(dataset_id)) > 0:  # noqa: ASYNC110 -- threads end it
                await anyio.sleep(min(remaining, _POLL_INTERVAL))

    def _remaining_seconds(self, dataset_id: str) -> float:
        return self._end_times.get(dataset_id, 0.0) - time.monotonic()
