"""The files of a folder that is served, and nothing outside it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.corpus import ExtractError, extract, reads
from dify_kb.models import MAX_FILE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

_HEAD: Final = 8192
"""Bytes at the start of a file without a known extension that tell whether it is a text."""


class OutsideError(OSError):
    """A path leads out of the folder, or to what is no file."""


@frozen
class Seen:
    """A file. `path` is relative, with `/`; `modified` seconds since the epoch."""

    path: str
    size: int
    modified: float
    signature: str
    """Changes when the file does, unless that happens within a tick of the file system's clock."""


def walk(root: Path) -> Iterator[Seen]:
    """Find the files below a folder, which is resolved; hidden ones and folders are left out.

    Links to files inside are followed, links to folders and out of the root are not.

    Raises:
        OSError: the root itself cannot be listed.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                raise
            _log.warning("%s is left out: %s", below, error.strerror)
            continue
        folders = []
        for entry in entries:
            path = f"{below}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif (seen := _seen(root, entry, path)) is not None:
                yield seen
        pending.extend(reversed(folders))


def _seen(root: Path, entry: os.DirEntry[str], path: str) -> Seen | None:
    try:
        path.encode()
        if entry.is_symlink() and not _inside(root, entry.path):
            return None
        status = entry.stat()
    except (OSError, UnicodeEncodeError):
        return None
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_FILE_SIZE:
        return None
    signature = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return Seen(path, status.st_size, status.st_mtime, signature)


def _inside(root: Path, path: str | os.PathLike[str]) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def read(root: Path, path: str) -> bytes:
    """Read a file of at most `MAX_FILE_SIZE`; the root is resolved.

    What is opened is the file that was found inside, even if the path leads elsewhere meanwhile:
    a link in its last place is not followed then, and any other is looked at again.

    Raises:
        OutsideError: it is not inside, or no regular file.
        OSError: it cannot be read.
    """
    real = os.path.realpath(root / path)
    if not _inside(root, real):
        raise OutsideError(f"{path} leads out of the folder")
    number = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:  # noqa: PTH123 -- of a descriptor
        if not stat.S_ISREG(os.fstat(number).st_mode) or os.path.realpath(root / path) != real:
            raise OutsideError(f"{path} is no file of the folder")
        return file.read(MAX_FILE_SIZE + 1)[:MAX_FILE_SIZE]


def texts_of(path: str, content: bytes) -> list[str] | None:
    """Take the texts out of a file; None where it is no document and no text.

    What has no extension that a server reads is a text if it is UTF-8 without null bytes.

    Raises:
        ExtractError: a document that cannot be read.
    """
    extension = path.rpartition("/")[2].rpartition(".")[2]
    if reads(extension):
        return extract(content, extension)
    if b"\0" in content[:_HEAD]:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    return extract(content, "txt")


__all__ = ["ExtractError", "OutsideError", "Seen", "read", "texts_of", "walk"]
