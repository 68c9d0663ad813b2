"""Files that wait for requests of their own: for their metadata, or to finish a replacement."""

from __future__ import annotations

import anyio
from attrs import define, field

from .tracked_file import TrackedFile


@define
class FileQueue:
    """Files that gather until somebody takes all of them."""

    _files: list[TrackedFile] = field(factory=list)
    _more: anyio.Event = field(factory=anyio.Event)

    def put(self, file: TrackedFile) -> None:
        """Add a file."""
        self._files.append(file)
        self._more.set()

    async def get_all(self) -> list[TrackedFile]:
        """Wait until there are files, and take all of them."""
        while not self._files:
            self._more = anyio.Event()
            await self._more.wait()
        files, self._files = self._files, []
        return files
