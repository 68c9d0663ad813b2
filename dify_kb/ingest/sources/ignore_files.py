"""The ignore files of folders: `.difyignore`, and `.gitignore` on request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from attrs import define, field, frozen

from .path_patterns import IgnorePattern, compile_lines, find_match

if TYPE_CHECKING:
    import os

IGNORE_FILE = ".difyignore"
"""The ignore file that always applies."""

_GIT_FILES = (".gitignore",)
_DEFAULTS = ("~$*", "Thumbs.db", ".DS_Store")
"""Lock files of office programs, and files that file managers create. `!` re-includes them."""


@frozen
class IgnoreLevel:
    """The patterns of one ignore file; `prefix` is its folder's path below the root, with `/`."""

    prefix: str
    patterns: Sequence[IgnorePattern]


IgnoreLevels = Sequence[IgnoreLevel]
"""The patterns that apply in a folder, innermost last."""


@define
class IgnoreFiles:
    """The ignore files below one root.

    The patterns of the innermost folder win, and in one file the last that matches, as in git. A
    file in an ignored folder cannot be re-included.

    Args:
        use_gitignore: whether `.gitignore` applies, too, and that of the folders above the root up
            to that of the repository. In one folder `.difyignore` wins.
    """

    use_gitignore: bool = False
    _read: dict[str, bytes] = field(factory=dict)

    def open_root(self, root: str | os.PathLike[str]) -> IgnoreLevels:
        """Return the patterns that apply above and in a root, without its own files. Blocking."""
        levels = [IgnoreLevel("", compile_lines(_DEFAULTS))]
        if self.use_gitignore:
            levels += self._read_parents(Path(root).absolute())
        return levels

    def enter(
        self, levels: IgnoreLevels, folder: str | os.PathLike[str], below: str
    ) -> IgnoreLevels:
        """Return the patterns that apply in a folder, from those of the folder above it. Blocking.

        Args:
            below: the folder's path below the root: "" or a path that ends with `/`.

        Raises:
            OSError: an ignore file cannot be read; `filename` is its name.
        """
        names = (*(_GIT_FILES if self.use_gitignore else ()), IGNORE_FILE)
        lines = [line for name in names for line in self._read_lines(Path(folder, name), below)]
        return [*levels, IgnoreLevel(below, compile_lines(lines))] if lines else levels

    def fingerprint(self) -> str:
        """Return a hash of all ignore files read so far."""
        digest = hashlib.sha256()
        for place in sorted(self._read):
            digest.update(f"{place}\0{len(self._read[place])}\0".encode(errors="surrogatepass"))
            digest.update(self._read[place])
        return digest.hexdigest()[:16]

    def _read_parents(self, root: Path) -> IgnoreLevels:
        """Return the patterns of the repository's folders above the root, outermost first."""
        parents = [root, *root.parents]
        top = next((number for number, path in enumerate(parents) if (path / ".git").exists()), 0)
        levels = list[IgnoreLevel]()
        for number in range(top, 0, -1):
            # A pattern of a parent is matched against the path from that parent.
            prefix = "/".join(path.name for path in reversed(parents[:number]))
            lines = self._read_lines(parents[number] / _GIT_FILES[0], f"../{number}")
            levels.append(IgnoreLevel(f"\0{prefix}/", compile_lines(lines)))
        return levels

    def _read_lines(self, path: Path, place: str) -> Sequence[str]:
        try:
            content = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return []
        except OSError as error:
            error.filename = path.name
            raise
        self._read[f"{place}{path.name}"] = content
        return _split_lines(content)


@define
class IgnoredPaths:
    """Tells which single paths below a root are ignored; remembers folders, not files.

    `enter` returns the patterns that apply in a folder, from those of the folder above it and its
    path below the root, which ends with `/`.
    """

    root: IgnoreLevels
    enter: Callable[[IgnoreLevels, str], IgnoreLevels] = lambda levels, _: levels
    _folders: dict[str, IgnoreLevels | None] = field(factory=dict)

    @classmethod
    def from_content(cls, content: bytes) -> IgnoredPaths:
        """Create it from the content of the only ignore file, that of the root."""
        lines = [*_DEFAULTS, *_split_lines(content)]
        return cls([IgnoreLevel("", compile_lines(lines))])

    @classmethod
    def from_folder(cls, root: str | os.PathLike[str]) -> IgnoredPaths:
        """Create it from the `.difyignore` files of a folder, which are read when needed."""
        files = IgnoreFiles()
        return cls(
            files.enter(files.open_root(root), root, ""),
            lambda levels, below: files.enter(levels, Path(root, below), below),
        )

    def contains(self, path: str) -> bool:
        """Return whether a file, or a folder above it, is ignored. May block to read ignore files.

        Raises:
            OSError: an ignore file cannot be read.
        """
        levels = self._find_levels(path.rpartition("/")[0])
        return levels is None or is_ignored(levels, path, is_folder=False)

    def _find_levels(self, folder: str) -> IgnoreLevels | None:
        """Return the patterns that apply in a folder; None if it is ignored."""
        if not folder:
            return self.root
        if folder not in self._folders:
            outer = self._find_levels(folder.rpartition("/")[0])
            if outer is None or is_ignored(outer, folder, is_folder=True):
                self._folders[folder] = None
            else:
                self._folders[folder] = self.enter(outer, f"{folder}/")
        return self._folders[folder]


def _split_lines(content: bytes) -> Sequence[str]:
    text = content.decode("utf-8-sig", errors="surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def is_ignored(levels: IgnoreLevels, path: str, *, is_folder: bool) -> bool:
    """Return whether the innermost pattern that matches a path below the root ignores it."""
    path = path if path.isascii() else normalize("NFC", path)
    name = f"{path}/" if is_folder else path
    for level in reversed(levels):
        outer = level.prefix.startswith("\0")
        relative = f"{level.prefix[1:]}{name}" if outer else name[len(level.prefix) :]
        if (ignored := find_match(level.patterns, relative)) is not None:
            return ignored
    return False
