"""Paths become files to load, each with its key; what cannot be loaded is told at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from dify_kb.errors import ConfigError
from dify_kb.ingest.report import ItemResult, Outcome, refused
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE

from .document_names import extension_of, name_of
from .glob_patterns import matcher
from .items import Element, Item

File = Path | os.DirEntry[str]
"""A file that is looked at; an entry of a folder knows what listing that told."""

ANYBODY = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
"""A file with all of these need not be asked whether it may be read."""

_LATEST = 2**63
"""Nanoseconds: later than the year 2262, a journal cannot hold a time, and contents tell."""


@frozen(kw_only=True)
class FoundFile:
    """Something that can be loaded: a file at `path`, or `data` in memory.

    `key` is its path below its root, with `/`; `size` in bytes. `metadata` is what its item
    brought along.
    """

    key: str
    size: int
    path: str | os.PathLike[str] | None = None
    data: bytes | None = field(default=None, repr=False)
    mtime_ns: int | None = None
    as_text: bool = False
    metadata: Mapping[str, object] | None = None

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


def roots_of(source: str | os.PathLike[str] | Iterable[Element]) -> list[Root]:
    """Name the folders and files to begin at, and how their keys begin.

    One folder: keys are relative to it. Several: keys begin with the folder's name, or, where two
    are called the same, with its path below their common parent. Files given one by one have
    their path below their common parent as key. What lies in another root is left to that.

    Raises:
        ConfigError: one of them does not exist, or they are mixed with items.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths = list(dict.fromkeys(_existing(_path(path)) for path in given))
    folders = [path for path in paths if path.is_dir()]
    folders = [path for path in folders if not any(other in path.parents for other in folders)]
    inside = set(folders)
    files = [path for path in paths if not path.is_dir() and not inside.intersection(path.parents)]
    return [*_folders(folders, alone=not files), *_files(files)]


def _path(element: Element) -> Path:
    if isinstance(element, Item):
        raise ConfigError(
            "Paths and items are mixed in one source.", hint="Give files as Item(key, path=…) too."
        )
    return Path(element)


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


def scan(roots: Sequence[Root], rules: Rules) -> Iterator[FoundFile | ItemResult]:
    """Go through `roots`, each in the order of names. Blocking; give it a thread."""
    scanner = Scanner.of(rules)
    seen = SeenKeys()
    for root in roots:
        for item in scanner.items(root):
            yield item if len(roots) == 1 else seen.once(item)


class SeenKeys:
    """Which keys came by: 64 bits of each, so that a million take some 60 MB."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def once(self, item: FoundFile | ItemResult) -> FoundFile | ItemResult:
        """Let a key through once."""
        mark = hash(item.key)
        if mark in self._keys:
            return refused(item.key, Outcome.FAILED, "another file has the same key")
        self._keys.add(mark)
        return item


@frozen
class Scanner:
    """Judges files by the rules."""

    _rules: Rules
    _included: Callable[[str], bool]
    _excluded: Callable[[str], bool]
    _as_text: Callable[[str], bool]
    _names_hidden: Callable[[str], bool]

    @classmethod
    def of(cls, rules: Rules) -> Scanner:
        """Make the patterns of `rules` ready.

        Raises:
            ConfigError: one of them is no pattern.
        """
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

    def item(self, item: Item) -> FoundFile | ItemResult | None:
        """Judge one item; None when a pattern leaves it out. Blocking for one with a path."""
        if not self._included(item.key) or self._excluded(item.key):
            return None
        if item.path is not None:
            found = self._judged(Path(item.path), item.key, None)
            return evolve(found, metadata=item.metadata) if isinstance(found, FoundFile) else found
        try:
            data = item.data or b""
        except UnicodeEncodeError:
            return refused(item.key, Outcome.FAILED, "its text holds half a character of Unicode")
        as_text = extension_of(item.key) not in DOCUMENT_EXTENSIONS
        rule = self._unsupported(item.key) if as_text and item.text is None else None
        if rule := rule or (None if data else "empty"):
            return refused(item.key, Outcome.SKIPPED, rule, size=len(data))
        if too_large := self._too_large(len(data)):
            return refused(item.key, Outcome.FAILED, too_large, size=len(data))
        return FoundFile(
            key=item.key, size=len(data), data=data, as_text=as_text, metadata=item.metadata
        )

    def items(self, root: Root) -> Iterator[FoundFile | ItemResult]:
        """Give what is below a root."""
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
                    yield self._judged(entry, f"{root.label}{relative}", whole)
            pending.extend(reversed(folders))

    def _wanted(self, relative: str) -> bool:
        hidden = relative.startswith(".") or "/." in relative
        if hidden and not self._names_hidden(relative):
            return False
        return self._included(relative) and not self._excluded(relative)

    def _judged(self, file: File, key: str, whole: Path | None) -> FoundFile | ItemResult:
        """Tell whether a file can be loaded; `whole` is what a link must not lead out of."""
        try:
            status = file.stat()
        except OSError as error:
            if file.is_symlink():
                return refused(key, Outcome.SKIPPED, f"a link that leads nowhere ({_why(error)})")
            return refused(key, Outcome.FAILED, f"unreadable: {_why(error)}")
        as_text = extension_of(key) not in DOCUMENT_EXTENSIONS
        if rule := self._skipping(file, key, status, whole, as_text=as_text):
            return refused(key, Outcome.SKIPPED, rule, size=status.st_size)
        if too_large := self._too_large(status.st_size):
            return refused(key, Outcome.FAILED, too_large, size=status.st_size)
        if status.st_mode & ANYBODY != ANYBODY and not os.access(file, os.R_OK):
            why = "unreadable: permission denied"
            return refused(key, Outcome.FAILED, why, size=status.st_size)
        path, mtime = os.fspath(file), status.st_mtime_ns
        return FoundFile(key=key, path=path, size=status.st_size, mtime_ns=mtime, as_text=as_text)

    def _too_large(self, size: int) -> str | None:
        limit = self._rules.max_file_size
        if size <= limit:
            return None
        return f"too large: {size / 2**20:.1f} of {limit / 2**20:g} MiB"

    def _skipping(
        self, file: File, key: str, status: os.stat_result, whole: Path | None, *, as_text: bool
    ) -> str | None:
        """Name the rule by which a file is left out."""
        link = file.is_symlink()
        if link and whole and not Path(file).resolve().is_relative_to(whole):
            return "a link that leads out of the folder"
        if not stat.S_ISREG(status.st_mode):
            return "a link to a folder" if link else "not a regular file"
        if as_text and (unsupported := self._unsupported(key)):
            return unsupported
        return None if status.st_size else "empty"

    def _unsupported(self, key: str) -> str | None:
        if self._as_text(key):
            return None
        extension = extension_of(key)
        return f"unsupported type .{extension}" if extension else "unsupported type: no extension"


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
