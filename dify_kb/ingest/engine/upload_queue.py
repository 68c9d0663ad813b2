"""The files that are to be sent, in order, and those that come back to be sent again."""

from __future__ import annotations

from collections import deque

import anyio
from attrs import define, field

from dify_kb.ingest.planning.plan import Planned

LONGEST = 200
"""Planned files that are kept ready: a page of the scan."""

MOST_BYTES = 64 * 2**20
"""Bytes of items in memory that are on their way, so that large ones do not pile up."""


@define
class UploadQueue:
    """A queue that is bounded for new files, and not for those that come back.

    One producer, many consumers, which are served in their order.
    """

    _files: deque[Planned] = field(factory=deque)
    _ready: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(0, fast_acquire=True))
    """Counts the files, and the end once for whoever comes then. Who takes one goes on to wait for
    a server: it need not let others run first."""

    _closed: bool = False
    _weights: dict[str, int] = field(factory=dict)
    """The bytes of items in memory that came through here and have not ended, by their keys."""

    _bytes: int = 0
    _room: anyio.Event = field(factory=anyio.Event)

    async def put(self, planned: Planned) -> None:
        """Add a file, once there is room for it; one that is larger than all room comes alone."""
        size = _weight(planned)
        while len(self._files) >= LONGEST or (self._bytes and self._bytes + size > MOST_BYTES):
            self._room = anyio.Event()
            await self._room.wait()
        if size:
            self._weights[planned.found.key] = size
            self._bytes += size
        self.again(planned)

    def again(self, planned: Planned) -> None:
        """Add a file that comes back."""
        self._files.append(planned)
        self._ready.release()

    def close(self) -> None:
        """Tell that no more will come."""
        if not self._closed:
            self._closed = True
            self._ready.release()

    async def next(self) -> Planned | None:
        """Give the next file; None when there will be none."""
        await self._ready.acquire()
        if not self._files:
            self._ready.release()  # the next one is to see the end too
            return None
        if len(self._files) == LONGEST // 2:
            self._room.set()
        return self._files.popleft()

    def done(self, planned: Planned) -> None:
        """Let go of the content of a file, which will not be sent again."""
        if size := self._weights.pop(planned.found.key, 0):
            self._bytes -= size
            self._room.set()

    def discard(self) -> None:
        """Forget what is left; nobody takes it any more."""
        self._files.clear()


def _weight(planned: Planned) -> int:
    return len(planned.found.data or b"")
