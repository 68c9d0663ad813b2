"""Queues of files to be uploaded, and of files that need a request after indexing."""

from __future__ import annotations

from collections import deque

import anyio
from attrs import define, field

from .tracked_file import TrackedFile


@define
class FileQueue:
    """An unbounded queue whose files are all removed at the same time."""

    _files: list[TrackedFile] = field(factory=list)
    _added: anyio.Event = field(factory=anyio.Event)

    def put(self, file: TrackedFile) -> None:
        """Add a file."""
        self._files.append(file)
        self._added.set()

    async def get_all(self) -> list[TrackedFile]:
        """Wait until there are files; remove and return all of them."""
        while not self._files:
            self._added = anyio.Event()
            await self._added.wait()
        files, self._files = self._files, []
        return files


MAX_FILES = 200
"""Maximum number of new files in the queue: one batch of the scan."""

MAX_BYTES = 64 * 2**20
"""Maximum total size in bytes of in-memory items in the queue."""


@define
class UploadQueue:
    """A queue that is bounded for new files and unbounded for files that are sent again.

    One producer; multiple consumers, served in order.
    """

    _files: deque[TrackedFile] = field(factory=deque)
    _ready: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(0, fast_acquire=True))
    """Number of files. `fast_acquire`, because consumers yield to the event loop when they send."""

    _weights: dict[str, int] = field(factory=dict)
    """Sizes in bytes of in-memory items that were queued and not yet released, by key."""

    _bytes: int = 0
    _space_available: anyio.Event = field(factory=anyio.Event)

    async def wait_for_space(self, size: int) -> None:
        """Wait until a file with `size` bytes in memory may be added.

        A file larger than the limit may be added once no other content is in memory.
        """
        while len(self._files) >= MAX_FILES or (self._bytes and self._bytes + size > MAX_BYTES):
            self._space_available = anyio.Event()
            await self._space_available.wait()

    def put(self, file: TrackedFile, *, first: bool = False) -> None:
        """Add a file; with `first`, at the head of the queue."""
        size = len(file.planned.found.data or b"")
        if size and file.key not in self._weights:
            self._weights[file.key] = size
            self._bytes += size
        if first:
            self._files.appendleft(file)
        else:
            self._files.append(file)
        self._ready.release()

    async def get(self) -> TrackedFile:
        """Wait for the next file; remove and return it."""
        await self._ready.acquire()
        while not self._files:  # cleared after this consumer was woken up
            await self._ready.acquire()
        if len(self._files) <= MAX_FILES // 2:
            self._space_available.set()
        return self._files.popleft()

    def release(self, file: TrackedFile) -> None:
        """Release the memory accounted for a file's content."""
        if size := self._weights.pop(file.key, 0):
            self._bytes -= size
            self._space_available.set()

    def clear(self) -> None:
        """Remove all files, and wake up a waiting producer."""
        self._files.clear()
        while True:
            try:
                self._ready.acquire_nowait()
            except anyio.WouldBlock:
                break
        self._space_available.set()
