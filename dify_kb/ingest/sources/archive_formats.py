"""Read members of zip and tar archives at random, with constant memory."""

from __future__ import annotations

import abc
import contextlib
import os
import stat
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

from attrs import define, field, frozen

from dify_kb.errors import ConfigError, SourceChangedError, SourceError

from .decompress import find_compression, open_compressed, open_zip_member
from .file_source import FilePart
from .found_file import describe_os_error, settled_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_RATIO: Final = 100
"""Unpacked bytes per packed byte above which a member or an archive is refused as a zip bomb."""

MIN_BOMB: Final = 1024 * 1024
"""Bytes of a member up to which its ratio does not matter."""

MIN_UNPACKED: Final = 1024**3
"""Bytes of all members that every archive may have."""

MAX_HEADER: Final = 1024 * 1024
"""Bytes of the headers of a member of a tar, and of those for all: `tarfile` reads them into
memory."""

MAX_TIME: Final = 2**63 // 10**9
"""Seconds since the epoch that a journal can store in nanoseconds."""

BLOCK: Final = 1024 * 1024

_ENCRYPTED: Final = 0x2041
"""Flags of encrypted members of zip archives."""

_UTF8: Final = 0x800
_DOS: Final = 0
_UNIX: Final = 3
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


@frozen(kw_only=True)
class ArchiveMember:
    """A member of an archive; `refused` and `unreadable` are as in `SourceEntry`."""

    name: str
    size: int
    token: str | None
    mtime_ns: int | None
    place: int | zipfile.ZipInfo
    refused: str | None = None
    unreadable: str | None = None


@define(eq=False)
class Archive(abc.ABC):
    """An open archive."""

    path: Path
    file: BinaryIO
    max_unpacked: int
    """Bytes of all members together."""

    status: os.stat_result = field(init=False)
    opened_at: float = field(factory=time.time, init=False)

    def __attrs_post_init__(self) -> None:
        self.status = os.fstat(self.file.fileno())

    @abc.abstractmethod
    def list_members(self) -> Iterator[ArchiveMember]:
        """Yield the members that are not folders, in their order."""

    @abc.abstractmethod
    def open(self, member: ArchiveMember) -> IO[bytes]:
        """Open a member; in any thread."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def require_unchanged(self) -> None:
        """Check that the file is that of the scan.

        Raises:
            SourceChangedError: it was written since. A replaced file is still open and unchanged.
        """
        status = os.fstat(self.file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise SourceChangedError(
                f"The archive {self.path} changed while it was read.",
                hint="Load it again once no program writes to it.",
            )


@define(eq=False)
class ZipArchive(Archive):
    """A zip archive."""

    _zip: zipfile.ZipFile = field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._zip = zipfile.ZipFile(self.file)

    def list_members(self) -> Iterator[ArchiveMember]:
        """Yield the members that are not folders, in their order."""
        for info in self._zip.infolist():
            name = _decode_zip_name(info)
            if name.endswith("/"):
                continue
            yield ArchiveMember(
                name=name,
                size=info.file_size,
                token=f"{info.CRC:08x}.{info.file_size}",
                mtime_ns=_parse_time(info),
                place=info,
                refused=_describe_zip_type(info),
                unreadable=_find_zip_problem(info),
            )

    def open(self, member: ArchiveMember) -> IO[bytes]:
        """Open a member; in any thread."""
        return open_zip_member(self._zip, cast("zipfile.ZipInfo", member.place))

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        super().close()


@define(eq=False)
class TarArchive(Archive):
    """An uncompressed tar archive, in `file` or in the temporary file `unpacked`."""

    unpacked: BinaryIO

    def list_members(self) -> Iterator[ArchiveMember]:
        """Yield the members that are not folders, in their order."""
        token = settled_token(self.status, self.opened_at)
        headers = _HeaderReader(self.unpacked)
        with tarfile.open(fileobj=cast("IO[bytes]", headers), mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined] # or they would all stay in memory
                headers.start_member(tar.pax_headers)
                if info.size < 0:  # the next header would be this one
                    raise EOFError(f"member of {info.size:,} bytes")
                if info.isdir():
                    continue
                yield ArchiveMember(
                    name=info.name,
                    size=info.size,
                    token=token and f"{token}.{info.offset}",
                    mtime_ns=int(info.mtime * 1e9) if abs(info.mtime) < MAX_TIME else None,
                    place=info.offset_data,
                    refused=_describe_tar_type(info),
                    unreadable="sparse file" if info.issparse() else None,
                )
            self._require_end(tar.offset)

    def open(self, member: ArchiveMember) -> IO[bytes]:
        """Open a member; in any thread."""
        return cast("IO[bytes]", FilePart(self.unpacked, cast("int", member.place), member.size))

    def close(self) -> None:
        """Close the file, and delete the temporary file."""
        self.unpacked.close()
        super().close()

    def _require_end(self, place: int) -> None:
        """Check that the archive ends with a zero block: `tarfile` ends at damaged ones, too."""
        self.unpacked.seek(place)
        end = self.unpacked.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE:
            raise EOFError("the end of the archive is missing")
        if any(end):
            raise EOFError(f"invalid header at byte {place}")


@define
class _HeaderReader:
    """A file of which only small headers are read, so that hostile ones use no memory."""

    _file: BinaryIO
    _left: int = MAX_HEADER

    def start_member(self, common: Mapping[str, str]) -> None:
        """Allow to read the headers of another member, if those for all members are small."""
        size = sum(len(name) + len(value) for name, value in common.items())
        if size > MAX_HEADER:
            raise EOFError(f"global headers of {size:,} bytes")
        self._left = MAX_HEADER

    def read(self, size: int, /) -> bytes:
        self._left -= size
        if self._left < 0:
            raise EOFError(f"header of more than {MAX_HEADER:,} bytes")
        return self._file.read(size)

    def seek(self, place: int, /) -> int:
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()


def open_archive(path: Path, max_unpacked: int | None, require_open: Callable[[], None]) -> Archive:
    """Open an archive; unpack a compressed tar into a temporary file, which has no name.

    Args:
        max_unpacked: bytes of all members together; default: 100 times the size of the archive, at
            least 1 GiB.
        require_open: called for each MiB; ends the unpacking by an exception.

    Raises:
        ConfigError: the file cannot be opened, or the compression is not supported.
        SourceError: the archive is too large, or the disk is full.
        Exception: the archive is damaged.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(
            f"Cannot load {path}: {describe_os_error(error)}.", hint="Check the path."
        ) from error
    try:
        limit = max_unpacked or max(MIN_UNPACKED, MAX_RATIO * path.stat().st_size)
        if path.suffix.lower() == ".zip":
            return ZipArchive(path, file, limit)
        kind = find_compression(file.read(8))
        file.seek(0)
        if kind is None:
            return TarArchive(path, file, limit, file)
        with contextlib.closing(open_compressed(path, file, kind)) as packed:
            return TarArchive(path, file, limit, _unpack(path, packed, limit, require_open))
    except BaseException:
        file.close()
        raise


def require_size(path: Path, size: int, limit: int) -> None:
    """Check the size of all members.

    Raises:
        SourceError: it exceeds the limit.
    """
    if size > limit:
        raise SourceError(
            f"The members of {path} have more than {limit:,} bytes: it may be a zip bomb.",
            hint="If you trust it: unpack it and load the folder, or pass"
            " ArchiveSource(path, max_unpacked=…).",
        )


def _unpack(
    path: Path, packed: IO[bytes], limit: int, require_open: Callable[[], None]
) -> BinaryIO:
    unpacked, size = tempfile.TemporaryFile(prefix="dify-kb-"), 0  # noqa: SIM115 -- closed by the archive
    try:
        while block := packed.read(BLOCK):
            require_open()
            size += len(block)
            require_size(path, size, limit)
            _write(path, unpacked, block)
        unpacked.seek(0)
    except BaseException:
        unpacked.close()
        raise
    return cast("BinaryIO", unpacked)


def _write(path: Path, file: IO[bytes], block: bytes) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise SourceError(
            f"Cannot unpack {path} into {tempfile.gettempdir()}: {describe_os_error(error)}.",
            hint="Set TMPDIR to a folder with more space.",
        ) from error


def _decode_zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name with `/`. Without the flag for UTF-8 it is UTF-8 if it can be, else CP437."""
    name = info.filename
    if not info.flag_bits & _UTF8 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    # Archives of some Windows programs have names with backslashes.
    return name.replace("\\", "/") if info.create_system == _DOS else name


def _find_zip_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "encrypted"
    if info.compress_type not in _METHODS:
        return f"unsupported compression method {info.compress_type}"
    if info.file_size > max(MIN_BOMB, MAX_RATIO * info.compress_size):
        return f"zip bomb: {info.file_size:,} bytes in {info.compress_size:,}"
    return None


def _describe_zip_type(info: zipfile.ZipInfo) -> str | None:
    """Return why a member is skipped that is not a regular file."""
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
    if kind == stat.S_IFLNK:
        return "symbolic link"
    return None if kind in {0, stat.S_IFREG} else "not a regular file"


def _describe_tar_type(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "link to another member"
    return None if info.isreg() else "not a regular file"


def _parse_time(info: zipfile.ZipInfo) -> int | None:
    try:
        return int(time.mktime((*info.date_time, 0, 0, -1)) * 1e9)
    except (ValueError, OverflowError):
        return None
