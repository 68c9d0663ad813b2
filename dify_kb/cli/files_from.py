"""Read the files of a load from a list (--files-from)."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from dify_kb import Item, ItemResult, Outcome
from dify_kb.errors import ConfigError

BLOCK = 64 * 1024
"""Bytes of the list read at a time."""

POLL_INTERVAL = 0.2
"""Seconds between checks whether the reader of a silent pipe was cancelled."""

OUTSIDE_REASON = "listed path is outside the folder"


@define(kw_only=True)
class FilesFrom:
    """The files of a load that are listed with --files-from.

    `source` (`-` is standard input) lists files of `folder`; each becomes an `Item` with the key
    that a scan of the folder would give it.

    A line may be an absolute path. A path outside the folder, even through a link, is refused; a
    repeated path is ignored. With `null`, the paths are separated by NUL, for names that contain a
    newline.
    """

    folder: Path
    source: str
    null: bool
    on_refused: Callable[[ItemResult], None]
    is_cancelled: Callable[[], bool] = lambda: False
    refused_count: int = 0
    """The number of paths outside the folder."""

    _seen: set[int] = field(factory=set)

    def check(self) -> None:
        """Check that the folder and the list exist.

        Raises:
            ConfigError: the folder does not exist, or the list cannot be read.
        """
        if not self.folder.is_dir():
            raise ConfigError(
                f"Not a directory: {self.folder}",
                hint="Pass the folder of the files in --files-from.",
            )
        is_readable = self.source == "-" or (
            os.access(self.source, os.R_OK) and not os.path.isdir(self.source)  # noqa: PTH112 -- text
        )
        if not is_readable or (self.source == "-" and sys.stdin is None):
            raise ConfigError(
                f"Cannot read the list {self.source!r} (--files-from).",
                hint="Pass a file with one path per line, or - for standard input.",
            )

    def iter_items(self) -> Iterator[Item]:
        """Iterate over the files as the list is read. Blocking; run it in a thread."""
        root = Path(os.path.abspath(self.folder))  # noqa: PTH100 -- resolve() would follow links
        resolved_root = root.resolve()
        for line in self._read_lines():
            if "\0" in line:
                raise ConfigError(
                    "The list (--files-from) contains NUL characters.",
                    hint="Pass --null (-0) if the paths are separated by NUL characters.",
                )
            key = os.path.relpath(root / line, root)
            path = root / key
            # Hashes instead of texts: a million keys take some 60 MB.
            if hash(key) in self._seen:
                continue
            self._seen.add(hash(key))
            is_inside = key.split("/", 1)[0] != ".." and path.resolve().is_relative_to(
                resolved_root
            )
            if is_inside and key.strip("/ "):
                yield Item(key, path=path)
            else:
                self.refused_count += 1
                self.on_refused(ItemResult(key=line, outcome=Outcome.FAILED, reason=OUTSIDE_REASON))

    def _read_lines(self) -> Iterator[str]:
        end = b"\0" if self.null else b"\n"
        rest = b""
        for block in self._read_blocks():
            *lines, rest = (rest + block).split(end)
            yield from filter(None, map(self._decode_name, lines))
        yield from filter(None, [self._decode_name(rest)])

    def _decode_name(self, line: bytes) -> str:
        if self.null:
            return os.fsdecode(line)
        return os.fsdecode(line.rstrip(b"\r")) if line.strip() else ""

    def _read_blocks(self) -> Iterator[bytes]:
        if self.source == "-":
            yield from self._read_pipe(sys.stdin.fileno())
            return
        with Path(self.source).open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    def _read_pipe(self, descriptor: int) -> Iterator[bytes]:
        """Read a pipe that may be silent for hours, until it ends or the load is cancelled."""
        while not self.is_cancelled():
            if _wait_for_input(descriptor):
                block = os.read(descriptor, BLOCK)
                if not block:
                    return
                yield block


def _wait_for_input(descriptor: int) -> bool:
    """Return whether a pipe can be read within `POLL_INTERVAL`."""
    try:
        return bool(select.select([descriptor], [], [], POLL_INTERVAL)[0])
    except OSError:  # Windows waits for sockets only: a cancelled load ends with the next block
        return True
