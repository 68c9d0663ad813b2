"""Decompress streams in steps of bounded size, with bounded memory."""

from __future__ import annotations

import bz2
import copy
import gzip
import importlib
import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from attrs import define, field

from dify_kb.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

MAX_MEMORY: Final = 128 * 1024 * 1024
"""Bytes that the decompressor of an xz file may use; `xz -9` needs 65 MiB."""

_INPUT: Final = 64 * 1024
_MIN_DICTIONARY: Final = 4096
_MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def find_compression(head: bytes) -> str | None:
    """Return the compression of a file by its first 8 bytes; None if it is not compressed."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def open_compressed(path: Path, packed: BinaryIO, kind: str) -> IO[bytes]:
    """Return the uncompressed content of a file.

    Raises:
        ConfigError: the compression is not supported.
    """
    match kind:
        case "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
        case "bzip2":
            return bz2.BZ2File(packed)
        case "xz":
            # Unlike LZMAFile, with a limit of memory: the file states the size of the dictionary.
            return cast("IO[bytes]", _Decompressed(packed, _create_xz))
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        raise ConfigError(
            f"Cannot load {path}: Python {sys.version_info.major}.{sys.version_info.minor} cannot"
            " read zstd; Python 3.14 can.",
            hint="Unpack it (zstd -d), and load the .tar file.",
        ) from None
    return cast("IO[bytes]", zstd.ZstdFile(packed))


def open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Open a member of a zip archive.

    `zipfile` unpacks blocks of bzip2 and LZMA at once, of which 4 KiB can be gigabytes.

    Raises:
        Exception: the member is damaged.
    """
    if info.compress_type not in {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}:
        return archive.open(info)
    stored = copy.copy(info)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, info.compress_size
    stored.CRC = None  # type: ignore[assignment] # the checksum is that of the unpacked content
    packed = archive.open(stored)
    if info.compress_type == zipfile.ZIP_BZIP2:
        content = _Decompressed(packed, bz2.BZ2Decompressor)
    else:
        filters = _read_lzma_filter(packed, info.file_size)
        content = _Decompressed(
            packed, lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])
        )
    return cast("IO[bytes]", _CheckedMember(packed, content, info, info.file_size))


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@define
class _Decompressed:
    """The content of a compressed file, which may consist of several streams."""

    _packed: IO[bytes]
    _create: Callable[[], _Decompressor]
    _decompressor: _Decompressor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decompressor = self._create()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        data = b""
        while not data:
            if not self._decompressor.eof:
                block = self._packed.read(_INPUT) if self._decompressor.needs_input else b""
                if self._decompressor.needs_input and not block:
                    raise EOFError("the end of the compressed data is missing")
            elif block := self._read_next_stream():
                self._decompressor = self._create()
            else:
                break
            data = self._decompress(block, size)
        return data

    def close(self) -> None:
        """Leave the compressed file open, as `GzipFile` does."""

    def _read_next_stream(self) -> bytes:
        """Return the first bytes of the next stream, which zeros may precede; empty at the end."""
        block = self._decompressor.unused_data or self._packed.read(_INPUT)
        while block and not block.strip(b"\0"):
            block = self._packed.read(_INPUT)
        return block.lstrip(b"\0")

    def _decompress(self, block: bytes, size: int) -> bytes:
        try:
            return self._decompressor.decompress(block, size)
        except lzma.LZMAError as error:
            if "Memory" not in str(error):
                raise
            raise SourceError(
                f"Unpacking needs more than {MAX_MEMORY // 1024**2} MiB of memory.",
                hint="Unpack it (xz -d), and load the .tar file.",
            ) from error


@define
class _CheckedMember:
    """The content of a member, whose checksum is checked at its end."""

    _packed: IO[bytes]
    _content: _Decompressed
    _info: zipfile.ZipInfo
    _left: int
    _checksum: int = 0

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        data = self._content.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise EOFError("the end of the compressed data is missing")
        self._left -= len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        if not self._left and self._checksum != self._info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._info.filename!r}")
        return data

    def close(self) -> None:
        """Close the compressed member."""
        self._packed.close()


def _create_xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)


def _read_lzma_filter(packed: IO[bytes], size: int) -> dict[str, int]:
    """Read the properties of LZMA in a zip archive: 2 bytes version, 2 bytes length, 5 bytes."""
    head = packed.read(9)
    _version, length, code, dictionary = struct.unpack("<HHBI", head)
    if length != 5 or code >= 9 * 5 * 5:  # noqa: PLR2004 -- the properties of LZMA1
        raise lzma.LZMAError("invalid properties of LZMA")
    return {
        "id": lzma.FILTER_LZMA1,
        "lc": code % 9,
        "lp": code // 9 % 5,
        "pb": code // 45,
        # A dictionary larger than the content is never used.
        "dict_size": max(_MIN_DICTIONARY, min(dictionary, size)),
    }
