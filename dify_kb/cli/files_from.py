"""Read the files of a load from a list (--files-from)."""

from __future__ import annotations

import os
import re
import select
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import define, field

from dify_kb import Item, ItemResult, Outcome
from dify_kb.errors import ConfigError, SourceError
from dify_kb.ingest.sources.document_names import PathNormalizer
from dify_kb.ingest.sources.ignore_files import IgnoredPaths

BLOCK = 64 * 1024
"""Bytes of the list read at a time."""

POLL_INTERVAL = 0.2
"""Seconds between checks whether the reader of a silent pipe was cancelled."""

OUTSIDE_REASON = "listed path is outside the folder"
MISSING_REASON = "listed file does not exist"

_QUOTED = re.compile(rb'"(.*\\.*)"', re.DOTALL)
"""A name that git has quoted, as it does without -z: `"\\303\\244.md"`."""


@define(kw_only=True)
class FilesFrom:
    """The files of a load that are listed with --files-from.

    `source` (`-` is standard input) lists files of `folder`; each becomes an `Item` with the key
    that a scan of the folder would give it.

    A relative path is relative to the current folder, as `find` prints it, to the root of the
    folder's repository, as `git diff` does, or to the folder itself: of those that lie in the
    folder, the first that exists. A path that does not exist is skipped, as `git diff` also lists
    deleted files. A path outside the folder, even through a link, is refused; an ignored or
    repeated path is omitted. With `null`, the paths are separated by NUL, for names that contain a
    newline.
    """

    folder: Path
    source: str
    null: bool
    on_result: Callable[[ItemResult], None]
    is_cancelled: Callable[[], bool] = lambda: False
    counts: Counter[Outcome] = field(factory=Counter)
    """The number of paths that are not loaded, by outcome: skipped or failed."""

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
        resolved_root, bases = root.resolve(), _list_bases(root)
        normalizer, ignored = PathNormalizer(), _open_ignore_files(root)
        for line in self._read_lines():
            if "\0" in line:
                raise ConfigError(
                    "The list (--files-from) contains NUL characters.",
                    hint="Pass --null (-0) if the paths are separated by NUL characters.",
                )
            path = _find_path(line, root, bases)
            name = line if path is None else os.path.relpath(path, root)
            # Hashes instead of texts: a million keys take some 60 MB.
            if hash(name) in self._seen:
                continue
            self._seen.add(hash(name))
            if path is None or not path.resolve().is_relative_to(resolved_root):
                self._report(line, Outcome.FAILED, OUTSIDE_REASON)
            elif not _exists(path):
                self._report(name, Outcome.SKIPPED, MISSING_REASON)
            elif not _is_ignored(ignored, key := normalizer.normalize(name, str(root))):
                yield Item(key, path=path)

    def _report(self, key: str, outcome: Outcome, reason: str) -> None:
        self.counts[outcome] += 1
        self.on_result(ItemResult(key=key, outcome=outcome, reason=reason))

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
        line = line.rstrip(b"\r") if line.strip() else b""
        if (quoted := _QUOTED.fullmatch(line)) and not os.path.lexists(line):
            line = quoted[1].decode("unicode_escape").encode("latin-1")
        return os.fsdecode(line)

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


def _list_bases(root: Path) -> Sequence[Path]:
    """Return the folders to which listed paths may be relative, the most likely first."""
    repository = [path for path in (root, *root.parents) if (path / ".git").exists()]
    return [Path.cwd(), *repository[:1], root]


def _find_path(line: str, root: Path, bases: Sequence[Path]) -> Path | None:
    """Return the absolute path of a listed file; None if it is not in the folder."""
    paths = [Path(os.path.abspath(base / line)) for base in bases]  # noqa: PTH100 -- as above
    inside = [path for path in paths if path != root and path.is_relative_to(root)]
    existing = [path for path in paths if _exists(path)]
    found = next((path for path in existing if path in inside), None)
    return found if found or existing or not inside else inside[0]


def _exists(path: Path) -> bool:
    """Return whether there is a file, even one that cannot be inspected."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _open_ignore_files(root: Path) -> IgnoredPaths:
    try:
        return IgnoredPaths.from_folder(root)
    except OSError as error:
        raise _unreadable(error) from error


def _is_ignored(ignored: IgnoredPaths, key: str) -> bool:
    try:
        return ignored.contains(key)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> SourceError:
    return SourceError(
        f"Cannot read an ignore file ({error.filename}): {error.strerror}.",
        hint="Make it readable: files that it ignores must not be loaded.",
    )


def _wait_for_input(descriptor: int) -> bool:
    """Return whether a pipe can be read within `POLL_INTERVAL`."""
    try:
        return bool(select.select([descriptor], [], [], POLL_INTERVAL)[0])
    except OSError:  # Windows waits for sockets only: a cancelled load ends with the next block
        return True
