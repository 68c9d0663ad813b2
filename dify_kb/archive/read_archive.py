"""Read archives: a folder, or a zip of one."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

import anyio.to_thread
from attrs import field, frozen

from dify_kb.errors import ArchiveError

from .archive_format import MANIFEST, Manifest, file_name, hash_stream
from .archived_document import ArchivedDocument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MAX_LINE: Final = 512 * 1024 * 1024
"""Bytes of a document; a longer line is refused before it fills the memory."""

MAX_MANIFEST: Final = 256 * 1024 * 1024
DIGEST_LENGTH: Final = 64
"""A zip ends with the SHA-256 of the bytes before, as its comment."""

_READ_AHEAD: Final = 20
"""Documents read at a time."""

_READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@frozen
class ArchiveReader:
    """A reader of an archive. All methods block."""

    path: Path
    manifest: Manifest
    _zip: zipfile.ZipFile | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an archive; only its manifest is read and checked.

        Raises:
            ArchiveError: it does not exist, is not an archive, or its manifest is damaged.
        """
        place = Path(path)
        if not place.exists():
            raise ArchiveError(f"Archive {place} does not exist.", hint="Check the path.")
        archive = None
        try:
            if place.is_dir():
                with (place / MANIFEST).open("rb") as stream:
                    content = stream.read(MAX_MANIFEST)
            else:
                archive = zipfile.ZipFile(place)
                with archive.open(MANIFEST) as stream:
                    content = stream.read(MAX_MANIFEST)
            return cls(place, Manifest.from_bytes(content), archive)
        except (*_READ_ERRORS, KeyError) as error:
            if archive is not None:
                archive.close()
            raise ArchiveError(
                f"{place} is not a complete archive: {_describe(error)}.",
                hint="Run the export again: it continues where it stopped.",
            ) from error
        except ArchiveError:
            if archive is not None:
                archive.close()
            raise

    def close(self) -> None:
        """Close the zip."""
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def open_member(self, name: str) -> Iterator[BinaryIO]:
        """Open a member that the manifest lists.

        Raises:
            ArchiveError: it is missing, or cannot be read.
        """
        try:
            if self._zip is None:
                with (self.path / name).open("rb") as stream:
                    yield stream
            else:
                with self._zip.open(name) as member:
                    yield cast("BinaryIO", member)
        except KeyError as error:
            raise ArchiveError(f"Member {name} is missing.") from error
        except _READ_ERRORS as error:
            raise ArchiveError(f"Member {name} cannot be read: {_describe(error)}.") from error

    def iter_shard(self, name: str) -> Iterator[ArchivedDocument]:
        """Yield the documents of a shard.

        Raises:
            ArchiveError: it is damaged.
        """
        with self.open_member(name) as stream, gzip.open(stream, "rb") as lines:
            while line := lines.readline(MAX_LINE):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ArchiveError(f"Member {name} has a damaged line.") from error
                yield ArchivedDocument.from_json(value)

    def iter_documents(self) -> Iterator[ArchivedDocument]:
        """Yield all documents, oldest first."""
        for name in self.manifest.shards:
            yield from self.iter_shard(name)

    def locate_file(self, sha256: str) -> Path | None:
        """Return the path of an original file; None in a zip."""
        name = file_name(sha256)
        return self.path / name if self._zip is None and name in self.manifest.members else None

    def read_file(self, sha256: str) -> bytes:
        """Return an original file.

        Raises:
            ArchiveError: it is missing or damaged.
        """
        name = file_name(sha256)
        if name not in self.manifest.members:
            raise ArchiveError(f"Member {name} is missing.")
        with self.open_member(name) as stream:
            return stream.read()

    def check_zip(self) -> str | None:
        """Return what is wrong with the bytes of the zip between its members; None if nothing."""
        if self._zip is None:
            return None
        with self.path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size - DIGEST_LENGTH
            digest = _hash_head(stream, size)
            return None if stream.read() == digest.encode() else "The checksum of the zip differs."


async def stream_documents(archive: ArchiveReader) -> AsyncIterator[ArchivedDocument]:
    """Yield all documents of an archive, oldest first, read in a thread.

    Raises:
        ArchiveError: the archive is damaged.
    """
    documents = archive.iter_documents()
    while batch := await anyio.to_thread.run_sync(_take, documents):
        for document in batch:
            yield document


def _take(documents: Iterator[ArchivedDocument]) -> list[ArchivedDocument]:
    return list(itertools.islice(documents, _READ_AHEAD))


def _hash_head(stream: BinaryIO, size: int) -> str:
    import hashlib

    digest = hashlib.sha256()
    while size > 0 and (block := stream.read(min(size, 1024 * 1024))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def pack_zip(folder: Path, manifest: Manifest, target: Path) -> None:
    """Write the members of a folder to a zip, uncompressed, then replace `target`. Blocking."""
    partial = target.with_name(f"{target.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST, *sorted(manifest.members)):
            # Without times, so that equal datasets are equal zips.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            with (
                (folder / name).open("rb") as source,
                archive.open(entry, "w", force_zip64=True) as out,
            ):
                while block := source.read(1024 * 1024):
                    out.write(block)
        archive.comment = b"0" * DIGEST_LENGTH
    with partial.open("r+b") as stream:
        size = partial.stat().st_size - DIGEST_LENGTH
        digest = _hash_head(stream, size)
        stream.seek(size)
        stream.write(digest.encode())
    partial.replace(target)


def check_member(reader: ArchiveReader, name: str) -> str | None:
    """Return what is wrong with a member; None if nothing. Blocking."""
    expected = reader.manifest.members[name]
    try:
        with reader.open_member(name) as stream:
            sha256, size = hash_stream(stream)
    except ArchiveError as error:
        return error.summary
    if size != expected.size:
        return f"Member {name} has {size} bytes instead of {expected.size}."
    return None if sha256 == expected.sha256 else f"Member {name} is damaged: its checksum differs."


def _describe(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name if error.filename else 'a file'} is missing"
    return (
        (getattr(error, "strerror", None) or str(error) or type(error).__name__)
        .rstrip(".")
        .strip("'\"")
    )
