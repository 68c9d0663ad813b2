"""A server with a fixed capacity: requests beyond it wait."""

from __future__ import annotations

import anyio


class QueuedServer:
    """Serves `capacity` requests at a time, each in `seconds`, and counts them."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self._slots = anyio.Semaphore(capacity)
        self._seconds = seconds
        self.in_flight = self.max_in_flight = self.served = self.started = 0

    async def __call__(self) -> None:
        self.started += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            async with self._slots:
                await anyio.sleep(self._seconds)
            self.served += 1
        finally:
            self.in_flight -= 1
