"""Files that a list names, instead of all that a folder holds."""

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
"""Bytes of a list that are read at once."""

GLANCE = 0.2
"""Seconds after which a reader of a silent pipe looks whether it is still wanted."""

OUTSIDE = "listed, but it leads out of the folder"


@define(kw_only=True)
class FilesFrom:
    """Files of `folder` by the lines of `source` (`-` is standard input), as `Item`s whose keys
    are those that a scan of the folder gives.

    A line may be an absolute path. One that leads out of the folder, also by a link, is refused;
    one that comes again is passed over. Lines are told apart by NUL if `null`, which leaves names
    with a newline whole.
    """

    folder: Path
    source: str
    null: bool
    on_refused: Callable[[ItemResult], None]
    given_up: Callable[[], bool] = lambda: False
    refused: int = 0
    """Lines that led out of the folder."""

    _seen: set[int] = field(factory=set)

    def check(self) -> None:
        """Look whether there are a folder and a list.

        Raises:
            ConfigError: there are not.
        """
        if not self.folder.is_dir():
            raise ConfigError(
                f"{self.folder} is no folder.", hint="--files-from lists files of one folder."
            )
        if sys.stdin is None if self.source == "-" else not os.access(self.source, os.R_OK):
            raise ConfigError(
                f"--files-from is {self.source}, which cannot be read.",
                hint="Name a file with one path per line, or - for standard input.",
            )

    def items(self) -> Iterator[Item]:
        """Give the files as they are read. Blocking; give it a thread."""
        root = Path(os.path.abspath(self.folder))  # noqa: PTH100 -- resolve() would follow links
        whole = root.resolve()
        for line in self._lines():
            key = os.path.relpath(root / line, root)
            path = root / key
            # 64 bits of each, so that a million take some 60 MB.
            if hash(key) in self._seen:
                continue
            self._seen.add(hash(key))
            below = key.split("/", 1)[0] != ".." and path.resolve().is_relative_to(whole)
            if below and key.strip("/ "):
                yield Item(key, path=path)
            else:
                self.refused += 1
                self.on_refused(ItemResult(key=line, outcome=Outcome.FAILED, reason=OUTSIDE))

    def _lines(self) -> Iterator[str]:
        end = b"\0" if self.null else b"\n"
        left = b""
        for block in self._blocks():
            *lines, left = (left + block).split(end)
            yield from filter(None, map(self._name, lines))
        yield from filter(None, [self._name(left)])

    def _name(self, line: bytes) -> str:
        if self.null:
            return os.fsdecode(line)
        return os.fsdecode(line.rstrip(b"\r")) if line.strip() else ""

    def _blocks(self) -> Iterator[bytes]:
        if self.source == "-":
            yield from self._piped(sys.stdin.fileno())
            return
        with Path(self.source).open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    def _piped(self, descriptor: int) -> Iterator[bytes]:
        """Read a pipe that may be silent for hours, and not outlive who wants it."""
        while not self.given_up():
            ready, _, _ = select.select([descriptor], [], [], GLANCE)
            if ready:
                block = os.read(descriptor, BLOCK)
                if not block:
                    return
                yield block
