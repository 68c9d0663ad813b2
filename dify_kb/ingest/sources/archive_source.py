"""Members of zip and tar archives, read one by one without unpacking the archive to a folder."""

from __future__ import annotations

import os
import re
import struct
import tarfile
import threading
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from unicodedata import normalize

from attrs import define, evolve

from dify_kb.argument_checks import check_constructor
from dify_kb.arguments import parse_size
from dify_kb.errors import KnowledgeError, SourceError

from .archive_formats import Archive, ArchiveMember, open_archive, require_size
from .document_names import PathNormalizer
from .file_source import FileSource, OpenedEntry, SourceEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRIVE: Final = re.compile(r"[A-Za-z]:")
_UNREADABLE: Final = (
    EOFError,
    LZMAError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Raised by the standard library for damaged archives."""

_HINT: Final = "Copy or download it again, or unpack it and load the folder."


@check_constructor
class ArchiveSource(FileSource):
    """The members of a zip or tar archive, also compressed with gzip, bzip2, xz or zstd.

    Memory is constant, except for the names. A zip member is compared by CRC and size. A member of
    a tar has no checksum: it counts as unchanged if the archive is; otherwise its content is
    compared, and only members that differ are sent. A compressed tar is unpacked into one
    temporary file.

    Links and devices are skipped. Encrypted members, absolute names, names with `..` or a drive
    letter, and zip bombs fail. Of members with equal names the last one counts, as for tar and zip.

    Args:
        path: the archive, as a path.
        max_unpacked: size of all members together above which the archive is refused, in bytes or
            as `"2GB"`; default: 100 times its size, at least 1 GiB.

    Raises:
        ConfigError: the size is invalid.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_unpacked: int | str | None = None
    ) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links
        self._max_unpacked = (
            None if max_unpacked is None else parse_size(max_unpacked, "max_unpacked")
        )
        self._lock = threading.Lock()
        self._archive: Archive | None = None
        self._members: dict[str, ArchiveMember] = {}
        self._is_closing = False

    @property
    def identity(self) -> str:
        """The absolute path."""
        return PathNormalizer().normalize(str(self._path))

    @property
    def label(self) -> str:
        """The name without the extensions of an archive."""
        return re.sub(r"(\.tar)?\.\w+$", "", normalize("NFC", self._path.name))

    def prepare(self) -> None:
        """Read the list of members; unpack a compressed tar.

        Raises:
            ConfigError: the archive does not exist, or is of an unsupported type.
            SourceError: it is damaged or truncated, or too large unpacked.
        """
        with self._lock:
            if self._archive is not None:
                return
            try:
                self._archive = open_archive(self._path, self._max_unpacked, self._require_open)
                self._members = _list_members(self._archive)
            except BaseException as error:
                self._release()
                if isinstance(error, _UNREADABLE) and not isinstance(error, KnowledgeError):
                    raise _damaged(
                        f"archive {self._path} is damaged or truncated", error
                    ) from error
                raise

    def scan(self) -> Iterator[SourceEntry]:
        """Yield the members in the order of the archive."""
        self._require_archive()
        for key, member in self._members.items():
            yield SourceEntry(
                key=key,
                size=member.size,
                token=member.token,
                mtime_ns=member.mtime_ns,
                refused=member.refused,
                unreadable=member.unreadable,
            )

    def open(self, entry: SourceEntry) -> OpenedEntry:
        """Open a member.

        Raises:
            SourceError: the member is damaged, or the archive was changed after the scan.
        """
        archive, member = self._require_archive(), self._members[entry.key]
        archive.require_unchanged()
        try:
            stream = archive.open(member)
        except _UNREADABLE as error:
            raise _damaged(f"member {entry.key!r} is damaged", error) from error
        return OpenedEntry(_MemberStream(archive, entry.key, stream), member.token, member.size)

    def close(self) -> None:
        """Close the archive, and delete its temporary file."""
        self._is_closing = True
        with self._lock:
            self._release()
            self._is_closing = False

    def _release(self) -> None:
        if self._archive is not None:
            self._archive.close()
        self._archive, self._members = None, {}

    def _require_archive(self) -> Archive:
        if self._archive is None:
            raise SourceError(f"{self._path} is not open.", hint="Call prepare() first.")
        return self._archive

    def _require_open(self) -> None:
        if self._is_closing:
            raise SourceError(f"{self._path} was closed.")


@define
class _MemberStream:
    """The content of a member, whose archive is checked at the end."""

    _archive: Archive
    _key: str
    _stream: IO[bytes]

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        try:
            data = self._stream.read(size)
        except _UNREADABLE as error:
            self._archive.require_unchanged()
            raise _damaged(f"member {self._key!r} is damaged", error) from error
        if not data:
            self._archive.require_unchanged()
        return data

    def close(self) -> None:
        """Release the stream."""
        self._stream.close()


def _list_members(archive: Archive) -> dict[str, ArchiveMember]:
    """Return the members by key: the last one of each name, in the order of the archive."""
    members: dict[str, ArchiveMember] = {}
    size = 0
    for member in archive.list_members():
        key, problem = _check_name(member.name)
        members.pop(key, None)
        members[key] = evolve(member, unreadable=problem) if problem else member
        size += 0 if member.refused or member.unreadable else member.size
        require_size(archive.path, size, archive.max_unpacked)
    forms = {key: normalize("NFC", key) for key in members}
    if len(set(forms.values())) < len(forms):  # names that differ only in their form
        return members
    return {forms[key]: member for key, member in members.items()}


def _check_name(name: str) -> tuple[str, str | None]:
    """Return the key for the name of a member, and why the name is refused."""
    parts = name.split("/")
    if name.startswith(("/", "\\")):
        return name, "absolute name"
    if _DRIVE.match(name):
        return name, "name with a drive letter"
    if ".." in parts or "\0" in name or ".." in name.split("\\"):
        return name, "name that leaves the archive"
    key = "/".join(part for part in parts if part not in {"", "."})
    return (key, None) if key else (name or "(no name)", "empty name")


def _damaged(what: str, error: BaseException) -> SourceError:
    why = str(error).rstrip(".") or type(error).__name__
    return SourceError(f"The {what}: {why}.", hint=_HINT)
