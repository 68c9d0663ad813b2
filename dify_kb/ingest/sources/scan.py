"""Scan folders for files to load, and check each file against the rules."""

from __future__ import annotations

import enum
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.ingest.report import ItemResult, Outcome, refused_result
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE

from .document_names import UNSTRUCTURED_EXTENSIONS, file_extension, normalize_names
from .found_file import FoundFile, describe_excess_size, describe_os_error, make_token
from .ignore_files import IgnoreFiles, IgnoreLevels, is_ignored
from .path_patterns import compile_patterns, parse_extension

if TYPE_CHECKING:
    from .file_source import FileSource, SourceEntry
    from .items import Item
    from .scan_roots import ScanRoot

File = Path | os.DirEntry[str]
"""A file to check. A directory entry caches the file type that the listing returned."""

READABLE_BY_ALL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
"""A file with all of these bits needs no `access()` call."""

_PARENT = re.compile(r"\.\.[/\\]")
"""Such a name is not one of a hidden file."""

SIDECAR_SUFFIX = ".metadata.json"
"""The end of the name of a file with the metadata of another, as for Amazon Bedrock."""

_BROKEN_LINK = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@frozen(kw_only=True)
class ScanRules:
    """The rules that select the files to load. Sizes are in bytes.

    `gitignore` applies `.gitignore` files, too. `sidecars` leaves out the metadata of other files.
    """

    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    as_text: Sequence[str] = ()
    max_file_size: int = MAX_FILE_SIZE
    gitignore: bool = False
    sidecars: bool = False


def _never() -> bool:
    return False


def scan(
    roots: Sequence[ScanRoot], rules: ScanRules, *, stop: Callable[[], bool] = _never
) -> Iterator[FoundFile | ItemResult]:
    """Yield the files of `roots`, sorted by name within each folder. Blocking.

    An unreadable entry is yielded as a failed file. `stop` is called before each folder; the scan
    ends when it returns True.
    """
    scanner = Scanner.from_rules(rules)
    seen = SeenKeys()
    for root in roots:
        for checked in scanner.walk(root, stop):
            yield checked if len(roots) == 1 else seen.reject_repeated(checked)


class SeenKeys:
    """The keys yielded so far, as 64-bit hashes: a million take about 60 MB."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def reject_repeated(self, checked: FoundFile | ItemResult) -> FoundFile | ItemResult:
        """Return `checked`, or a failed file if its key was yielded before."""
        digest = hash(checked.key)
        if digest in self._keys:
            return refused_result(checked.key, Outcome.FAILED, "another file has the same key")
        self._keys.add(digest)
        return checked


class _FileFormat(enum.Enum):
    """The format of a file for the server, by its extension."""

    DOCUMENT = enum.auto()
    TEXT = enum.auto()
    UNSTRUCTURED = enum.auto()
    UNSUPPORTED = enum.auto()


@frozen
class Scanner:
    """Checks files against the rules.

    An excluded file is skipped; if it was named explicitly, it fails. Files are named explicitly by
    their own path or in a named list, not by their folder.
    """

    _rules: ScanRules
    _included: Callable[[str], bool]
    _excluded: Callable[[str], bool]
    _as_text: Callable[[str], bool]
    _names_hidden: Callable[[str], bool]
    _names_extension: Mapping[str, Callable[[str], bool]]

    @classmethod
    def from_rules(cls, rules: ScanRules) -> Scanner:
        """Compile the patterns of `rules`.

        Raises:
            ConfigError: a pattern is invalid.
        """
        include = (rules.include,) if isinstance(rules.include, str) else rules.include
        hidden = [
            pattern
            for pattern in include
            if any(part.startswith(".") for part in pattern.split("/"))
        ]
        named = {
            extension: compile_patterns(
                [one for one in include if parse_extension(one) == extension]
            )
            for extension in UNSTRUCTURED_EXTENSIONS
        }
        return cls(
            rules,
            compile_patterns(include),
            compile_patterns(rules.exclude),
            compile_patterns(rules.as_text),
            compile_patterns(hidden),
            named,
        )

    def excludes(self, key: str) -> bool:
        """Return whether the patterns exclude an item."""
        return self._excluded(key) or self._is_sidecar(key) or not self._included(key)

    def check_item(self, item: Item, *, explicit: bool = False) -> FoundFile | ItemResult | None:
        """Return the file to load for an item, or its result if it is not loaded.

        None if a pattern excludes it. Blocking for an item with a path.

        Args:
            explicit: whether the item is a file that was named explicitly.
        """
        if self.excludes(item.key):
            return None
        format_ = self._format(item.key, named=True)
        if item.path is not None:
            found = self._check_file(Path(item.path), item.key, format_, None, explicit=explicit)
            return evolve(found, metadata=item.metadata) if isinstance(found, FoundFile) else found
        try:
            data = item.data or b""
        except UnicodeEncodeError:
            return refused_result(
                item.key, Outcome.FAILED, "invalid Unicode: half of a surrogate pair"
            )
        if item.text is not None and format_ is not _FileFormat.DOCUMENT:
            format_ = _FileFormat.TEXT
        rule = _unsupported_result(item.key) if format_ is _FileFormat.UNSUPPORTED else None
        if rule := rule or (None if data else "empty"):
            return refused_result(
                item.key, _excluded_outcome(explicit=explicit), rule, size=len(data)
            )
        if why := describe_excess_size(len(data), self._rules.max_file_size):
            return refused_result(item.key, Outcome.FAILED, why, size=len(data))
        return FoundFile(
            key=item.key,
            size=len(data),
            data=data,
            as_text=format_ is _FileFormat.TEXT,
            unsupported_by_default=format_ is _FileFormat.UNSTRUCTURED,
            metadata=item.metadata,
            max_size=self._rules.max_file_size,
        )

    def check_entry(
        self, source: FileSource, entry: SourceEntry, label: str = ""
    ) -> FoundFile | ItemResult | None:
        """Return the file to load for an entry of a source, or its result if it is not loaded.

        None if a pattern excludes it, or if it is hidden.

        Args:
            label: prefix of the key.
        """
        if not self._is_wanted(_PARENT.sub("", entry.key)):
            return None
        key, size, format_ = f"{label}{entry.key}", entry.size, self._format(entry.key)
        if entry.unreadable is not None:
            return refused_result(key, Outcome.FAILED, entry.unreadable, size=size or 0)
        rule = entry.refused
        if rule is None and format_ is _FileFormat.UNSUPPORTED:
            rule = _unsupported_result(key)
        if rule := rule or ("empty" if size == 0 else None):
            return refused_result(key, Outcome.SKIPPED, rule, size=size or 0)
        if size and (why := describe_excess_size(size, self._rules.max_file_size)):
            return refused_result(key, Outcome.FAILED, why, size=size)
        return FoundFile(
            key=key,
            size=size or 0,
            source=source,
            entry=entry,
            token=entry.token,
            mtime_ns=entry.mtime_ns,
            as_text=format_ is _FileFormat.TEXT,
            unsupported_by_default=format_ is _FileFormat.UNSTRUCTURED,
            max_size=self._rules.max_file_size,
        )

    def walk(self, root: ScanRoot, stop: Callable[[], bool]) -> Iterator[FoundFile | ItemResult]:
        """Yield the files below a root, until `stop()` returns True; or the root if it is a file.

        Patterns apply to files found in folders, not to a root that is a file.
        """
        if not _is_folder(root.path):
            if self._is_sidecar(root.path.name):
                return
            key = root.key or f"{root.label}{root.path.name}"
            yield self._check_file(
                root.path, key, self._format(key), root.path.parent, explicit=True
            )
            return
        ignore_files = IgnoreFiles(self._rules.gitignore)
        outer = ignore_files.open_root(root.path)
        pending = [(os.fspath(root.path), "", outer)]
        while pending and not stop():
            path, below, outer = pending.pop()
            folders: list[tuple[str, str]] = []
            try:
                levels = ignore_files.enter(outer, path, below)
            except OSError as failure:  # what it ignores must not be loaded
                yield _unreadable_result(f"{root.label}{below}{failure.filename}", failure)
                continue
            yield from self._check_folder(root, path, below, levels, folders)
            pending.extend((*folder, levels) for folder in reversed(folders))

    def _check_folder(
        self,
        root: ScanRoot,
        path: str,
        below: str,
        levels: IgnoreLevels,
        folders: list[tuple[str, str]],
    ) -> Iterator[FoundFile | ItemResult]:
        """Yield the files of one folder, and add its subfolders to `folders`."""
        entries, error = _list_folder(path)
        for name, entry in entries:
            relative = f"{below}{name}"
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
            except OSError as failure:
                if not self._is_hidden(relative) and not self._excluded(relative):
                    yield _unreadable_result(f"{root.label}{relative}", failure)
                continue
            if is_ignored(levels, relative, is_folder=is_folder):
                continue
            if is_folder:
                if not self._excluded(relative):
                    folders.append((entry.path, f"{relative}/"))
            elif self._is_wanted(relative):
                key, format_ = f"{root.label}{relative}", self._format(relative)
                yield self._check_file(entry, key, format_, root.path, explicit=False)
        if error is not None:
            reason = f"unreadable folder, its files are not counted: {describe_os_error(error)}"
            key = f"{root.label}{below}" or f"{root.path.name}/"
            yield refused_result(key, Outcome.FAILED, reason)

    def _is_wanted(self, relative: str) -> bool:
        if self._is_hidden(relative) or self._is_sidecar(relative):
            return False
        return self._included(relative) and not self._excluded(relative)

    def _is_sidecar(self, path: str) -> bool:
        return self._rules.sidecars and path.endswith(SIDECAR_SUFFIX)

    def _is_hidden(self, relative: str) -> bool:
        hidden = relative.startswith(".") or "/." in relative
        return hidden and not self._names_hidden(relative)

    def _check_file(
        self, file: File, key: str, format_: _FileFormat, folder: Path | None, *, explicit: bool
    ) -> FoundFile | ItemResult:
        """Return a file, or its result if it is not loaded; links must stay within `folder`."""
        try:
            status = _stat(file)
            if status is None:
                return refused_result(key, _excluded_outcome(explicit=explicit), "broken link")
            size = status.st_size
            if rule := _find_excluding_rule(file, key, status, format_, folder):
                return refused_result(key, _excluded_outcome(explicit=explicit), rule, size=size)
            if why := describe_excess_size(size, self._rules.max_file_size):
                return refused_result(key, Outcome.FAILED, why, size=size)
            if not _is_readable(file, status):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (OSError, ValueError) as error:
            return _unreadable_result(key, error)
        return FoundFile(
            key=key,
            size=size,
            path=os.fspath(file),
            mtime_ns=status.st_mtime_ns,
            token=make_token(status),
            as_text=format_ is _FileFormat.TEXT,
            unsupported_by_default=format_ is _FileFormat.UNSTRUCTURED,
            max_size=self._rules.max_file_size,
        )

    def _format(self, path: str, *, named: bool = False) -> _FileFormat:
        """Return the format of a file; `named`: the extension was requested explicitly."""
        extension = file_extension(path)
        if extension in DOCUMENT_EXTENSIONS:
            return _FileFormat.DOCUMENT
        if self._as_text(path):
            return _FileFormat.TEXT
        if extension in UNSTRUCTURED_EXTENSIONS and (
            named or self._names_extension[extension](path)
        ):
            return _FileFormat.UNSTRUCTURED
        return _FileFormat.UNSUPPORTED


def _list_folder(
    path: str,
) -> tuple[Sequence[tuple[str, os.DirEntry[str]]], OSError | None]:
    """Return the entries of a folder, sorted by their names in keys, and the error if any."""
    entries: list[os.DirEntry[str]] = []
    failure: OSError | None = None
    try:
        entries.extend(os.scandir(path))
    except OSError as error:
        failure = error
    names = normalize_names([entry.name for entry in entries])
    return sorted(zip(names, entries, strict=True), key=lambda named: named[0]), failure


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False  # checking it as a file yields the error


def _stat(file: File) -> os.stat_result | None:
    """Return the status of a file; None for a broken link."""
    try:
        return file.stat()
    except OSError as error:
        if error.errno in _BROKEN_LINK and file.is_symlink():
            return None
        raise


def _find_excluding_rule(
    file: File, key: str, status: os.stat_result, format_: _FileFormat, folder: Path | None
) -> str | None:
    """Return the rule that excludes a file, if any."""
    is_link = file.is_symlink()
    if is_link and folder and not _resolve(Path(file)).is_relative_to(_resolve(folder)):
        return "link to a target outside the folder"
    if not stat.S_ISREG(status.st_mode):
        return "link to a folder" if is_link else "not a regular file"
    if format_ is _FileFormat.UNSUPPORTED:
        return _unsupported_result(key)
    return None if status.st_size else "empty"


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error


def _is_readable(file: File, status: os.stat_result) -> bool:
    return status.st_mode & READABLE_BY_ALL == READABLE_BY_ALL or os.access(file, os.R_OK)


def _unsupported_result(key: str) -> str:
    extension = file_extension(key)
    return f"unsupported type .{extension}" if extension else "unsupported type: no extension"


def _excluded_outcome(*, explicit: bool) -> Outcome:
    return Outcome.FAILED if explicit else Outcome.SKIPPED


def _unreadable_result(key: str, error: OSError | ValueError) -> ItemResult:
    return refused_result(key, Outcome.FAILED, f"unreadable: {describe_os_error(error)}")
