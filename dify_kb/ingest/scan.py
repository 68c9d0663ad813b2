"""Paths become files to load, each with its key; what cannot be loaded is told at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE

from .globs import matcher
from .names import extension_of, name_of
from .report import ItemResult, Outcome, refused

Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A folder, a file, or several of them."""


@frozen(kw_only=True)
class Found:
    """A file that can be loaded. `key` is its path below its root, with `/`; `size` in bytes."""

    key: str
    path: Path
    size: int
    as_text: bool = False

    @property
    def name(self) -> str:
        """The name of its document."""
        return name_of(self.key, as_text=self.as_text)


@frozen(kw_only=True)
class Rules:
    """Which files are taken."""

    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    as_text: Sequence[str] = ()
    max_file_size: int = MAX_FILE_SIZE


@frozen
class Root:
    """Where a scan begins, and what its keys begin with ("" or a path with `/` at its end)."""

    path: Path
    label: str = ""


def roots_of(source: Source) -> list[Root]:
    """Name the folders and files to begin at, and how their keys begin.

    One folder: keys are relative to it. Several: keys begin with the folder's name, or, where two
    are called the same, with its path below their common parent. Files given one by one have
    their path below their common parent as key. What lies in another root is left to that.

    Raises:
        ConfigError: one of them does not exist, or there is none.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not given:
        raise ConfigError("There is nothing to load.", hint="Name a folder or a file.")
    paths = list(dict.fromkeys(_existing(Path(path)) for path in given))
    folders = [path for path in paths if path.is_dir()]
    folders = [path for path in folders if not any(other in path.parents for other in folders)]
    inside = set(folders)
    files = [path for path in paths if not path.is_dir() and not inside.intersection(path.parents)]
    return [*_folders(folders, alone=not files), *_files(files)]


def _existing(path: Path) -> Path:
    try:
        path.stat()
        return Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be loaded: {(error.strerror or str(error)).lower()}.",
            hint="Check the path; a folder is loaded with all that is in it.",
        ) from error


def _folders(folders: Sequence[Path], *, alone: bool) -> list[Root]:
    if len(folders) == 1 and alone:
        return [Root(folders[0])]
    if len({folder.name for folder in folders}) == len(folders):
        return [Root(folder, f"{folder.name}/") for folder in folders]
    common = Path(os.path.commonpath(folders))
    return [Root(folder, f"{folder.relative_to(common).as_posix()}/") for folder in folders]


def _files(files: Sequence[Path]) -> list[Root]:
    if not files:
        return []
    common = Path(os.path.commonpath([file.parent for file in files]))
    below = [file.parent.relative_to(common).as_posix() for file in files]
    return [
        Root(file, "" if folder == "." else f"{folder}/")
        for file, folder in zip(files, below, strict=True)
    ]


def scan(roots: Sequence[Root], rules: Rules) -> Iterator[Found | ItemResult]:
    """Go through `roots`, each in the order of names. Blocking; give it a thread."""
    scanner = _Scanner.of(rules)
    seen: set[str] = set()
    for root in roots:
        for item in scanner.items(root):
            if len(roots) > 1 and item.key in seen:
                yield refused(item.key, Outcome.FAILED, "another file has the same key")
                continue
            seen.add(item.key) if len(roots) > 1 else None
            yield item


@frozen
class _Scanner:
    _rules: Rules
    _included: Callable[[str], bool]
    _excluded: Callable[[str], bool]
    _as_text: Callable[[str], bool]
    _names_hidden: Callable[[str], bool]

    @classmethod
    def of(cls, rules: Rules) -> _Scanner:
        hidden = [
            pattern
            for pattern in rules.include
            if any(part.startswith(".") for part in pattern.split("/"))
        ]
        return cls(
            rules,
            matcher(rules.include),
            matcher(rules.exclude),
            matcher(rules.as_text),
            matcher(hidden),
        )

    def items(self, root: Root) -> Iterator[Found | ItemResult]:
        if not root.path.is_dir():
            yield self._judged(root.path, f"{root.label}{root.path.name}", root.path.parent)
            return
        whole = root.path.resolve()
        pending = [(root.path, "")]
        while pending:
            folder, below = pending.pop()
            folders: list[tuple[Path, str]] = []
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                yield refused(f"{root.label}{below}", Outcome.FAILED, _why(error))
                continue
            for entry in entries:
                relative = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if not self._excluded(relative):
                        folders.append((Path(entry.path), f"{relative}/"))
                elif self._wanted(relative):
                    yield self._judged(Path(entry.path), f"{root.label}{relative}", whole)
            pending.extend(reversed(folders))

    def _wanted(self, relative: str) -> bool:
        hidden = any(part.startswith(".") for part in relative.split("/"))
        if hidden and not self._names_hidden(relative):
            return False
        return self._included(relative) and not self._excluded(relative)

    def _judged(self, path: Path, key: str, whole: Path) -> Found | ItemResult:
        """Tell whether a file can be loaded; `whole` is what a link must not lead out of."""
        try:
            status = path.stat()
        except OSError as error:
            if path.is_symlink():
                return refused(key, Outcome.SKIPPED, f"a link that leads nowhere ({_why(error)})")
            return refused(key, Outcome.FAILED, f"unreadable: {_why(error)}")
        as_text = extension_of(key) not in DOCUMENT_EXTENSIONS
        if rule := self._skipping(path, key, status, whole, as_text=as_text):
            return refused(key, Outcome.SKIPPED, rule, size=status.st_size)
        if status.st_size > self._rules.max_file_size:
            sizes = f"{status.st_size / 2**20:.1f} of {self._rules.max_file_size / 2**20:g} MiB"
            return refused(key, Outcome.FAILED, f"too large: {sizes}", size=status.st_size)
        if not os.access(path, os.R_OK):
            why = "unreadable: permission denied"
            return refused(key, Outcome.FAILED, why, size=status.st_size)
        return Found(key=key, path=path, size=status.st_size, as_text=as_text)

    def _skipping(
        self, path: Path, key: str, status: os.stat_result, whole: Path, *, as_text: bool
    ) -> str | None:
        """Name the rule by which a file is left out."""
        if path.is_symlink() and not path.resolve().is_relative_to(whole):
            return "a link that leads out of the folder"
        if not stat.S_ISREG(status.st_mode):
            return "a link to a folder" if path.is_symlink() else "not a regular file"
        if as_text and not self._as_text(key):
            extension = extension_of(key)
            return (
                f"unsupported type .{extension}" if extension else "unsupported type: no extension"
            )
        return None if status.st_size else "empty"


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
