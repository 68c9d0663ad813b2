"""List and read the files of a served folder; reject paths outside of it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.models import MAX_FILE_SIZE
from dify_kb.rag import ExtractError, can_extract, extract

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

_SNIFFED_BYTES: Final = 8192
"""Bytes at the start of a file with an unknown extension that are checked for null bytes."""


class OutsideFolderError(OSError):
    """Raised if a path leads out of the folder or is not a regular file."""


@frozen
class FolderFile:
    """A file. `path` is relative, with `/`; `modified` is in seconds since the epoch."""

    path: str
    size: int
    modified: float
    signature: str
    """Changes with the file, except within one tick of the file system's clock."""


def iter_files(root: Path) -> Iterator[FolderFile]:
    """Yield the files below a folder, without hidden files and hidden folders.

    `root` must be resolved. Symbolic links to files inside the folder are followed; links to
    folders and out of the root are not.

    Raises:
        OSError: the root itself cannot be listed.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            _log.warning("Skipping folder %s: %s", folder, error.strerror)
            continue
        folders = []
        for entry in entries:
            path = f"{folder}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif (file := _stat_file(root, entry, path)) is not None:
                yield file
        pending.extend(reversed(folders))


def _stat_file(root: Path, entry: os.DirEntry[str], path: str) -> FolderFile | None:
    try:
        path.encode()
        if entry.is_symlink() and not _is_inside(root, entry.path):
            return None
        status = entry.stat()
    except (OSError, UnicodeEncodeError):
        return None
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_FILE_SIZE:
        return None
    signature = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return FolderFile(path, status.st_size, status.st_mtime, signature)


_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # each of some systems only
    _OPEN_FLAGS |= getattr(os, _flag, 0)


def _is_inside(root: Path, path: str | os.PathLike[str]) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def read_file(root: Path, path: str) -> bytes:
    """Return the first `MAX_FILE_SIZE` bytes of a file; `root` must be resolved.

    A path that is replaced by a symbolic link between check and opening cannot lead outside: a
    link as the last component is not followed, and the path is checked again after opening.

    Raises:
        OutsideFolderError: the path is not inside the folder, or not a regular file.
        OSError: the file cannot be read.
    """
    real_path = os.path.realpath(root / path)
    if not _is_inside(root, real_path):
        raise OutsideFolderError(f"{path} leads out of the folder")
    descriptor = os.open(real_path, _OPEN_FLAGS)
    with open(descriptor, "rb") as file:  # noqa: PTH123 -- opens a descriptor
        if (
            not stat.S_ISREG(os.fstat(descriptor).st_mode)
            or os.path.realpath(root / path) != real_path
        ):
            raise OutsideFolderError(f"{path} is not a regular file of the folder")
        return file.read(MAX_FILE_SIZE + 1)[:MAX_FILE_SIZE]


def extract_texts(path: str, content: bytes) -> list[str] | None:
    """Return the texts of a file, or None if it is neither a document nor text.

    A file with an unsupported extension is a text if it is UTF-8 without null bytes.

    Raises:
        ExtractError: the document cannot be read.
    """
    extension = path.rpartition("/")[2].rpartition(".")[2]
    if can_extract(extension):
        return extract(content, extension)
    if b"\0" in content[:_SNIFFED_BYTES]:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    return extract(content, "txt")


__all__ = [
    "ExtractError",
    "FolderFile",
    "OutsideFolderError",
    "extract_texts",
    "iter_files",
    "read_file",
]
