"""Write the members of an archive. All functions block."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dify_kb.errors import ArchiveError

from .archive_format import (
    MANIFEST,
    SHARD_SIZE,
    STATE,
    Manifest,
    MemberDigest,
    file_name,
    hash_file,
    is_member_name,
    shard_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .archived_document import ArchivedDataset
    from .export_state import ExportState

_PARTIAL: Final = ".partial-"
_COMPRESSION: Final = 6


def prepare_folder(folder: Path) -> None:
    """Create the folders of an archive. Another export may be using it.

    Raises:
        ArchiveError: it is not a folder, contains other files, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = {entry.name for entry in os.scandir(folder)} - {
            *(MANIFEST, "documents", "files", f"{_PARTIAL}manifest"),
            *(f"{STATE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")),
        }
        if foreign:
            raise ArchiveError(
                f"{folder} contains files that are not of an archive: {min(foreign)!r}.",
                hint="Pass a new folder, or one of an earlier export.",
            )
        for name in ("documents", "files"):
            place = folder / name
            if place.is_symlink():
                raise ArchiveError(f"{place} is a symbolic link.", hint="Pass a new folder.")
            place.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise ArchiveError(f"{folder} is not a folder.", hint="Pass another path.") from error
    except OSError as error:
        raise ArchiveError(
            f"Cannot write to {folder}: {error.strerror or error}.", hint="Check its permissions."
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what an interrupted export left. Requires the lock of the archive."""
    for place in (*folder.glob(f"documents/{_PARTIAL}*"), *folder.glob(f"files/{_PARTIAL}*")):
        place.unlink()


def store_file(folder: Path, content: bytes) -> str:
    """Store an original file under its SHA-256, which is returned."""
    sha256 = hashlib.sha256(content).hexdigest()
    target = folder / file_name(sha256)
    if not (target.exists() and target.stat().st_size == len(content)):
        target.parent.mkdir(exist_ok=True)
        # Two documents with the same file may be read at a time.
        _replace(folder / "files" / f"{_PARTIAL}{threading.get_ident()}", target, content)
    return sha256


def forget_missing_files(folder: Path, state: ExportState) -> None:
    """Mark documents to be read again whose file is missing or was cut."""
    for sha256, size in list(state.iter_files()):
        place = folder / file_name(sha256)
        if not (place.is_file() and place.stat().st_size == size):
            state.forget_file(sha256)


def write_members(
    folder: Path,
    state: ExportState,
    dataset: ArchivedDataset,
    server_version: str | None,
    selection: str | None,
    *,
    has_files: bool,
) -> Manifest:
    """Write all shards, then the manifest, and remove what it does not list."""
    documents, chunks, children = state.sum_counts()
    shards = -(-documents // SHARD_SIZE)
    members: dict[str, MemberDigest] = {}
    for number in range(1, shards + 1):
        name = shard_name(number)
        members[name] = _write_shard(
            folder, name, state.iter_lines((number - 1) * SHARD_SIZE, SHARD_SIZE)
        )
    files = 0
    for sha256, _ in state.iter_files():
        place = folder / file_name(sha256)
        actual, size = hash_file(place)
        if actual != sha256:
            state_error = f"File {file_name(sha256)} of the archive is damaged."
            place.unlink()
            raise ArchiveError(state_error, hint="Run the export again: it is read again.")
        members[file_name(sha256)] = MemberDigest(sha256, size)
        files += 1
    manifest = Manifest(
        dataset=dataset,
        server_version=server_version,
        documents=documents,
        chunks=chunks,
        child_chunks=children,
        files=files,
        has_files=has_files,
        selection=selection,
        members=members,
    )
    for name in members:
        if is_shard_partial(folder, name):
            partial_shard(folder, name).replace(folder / name)
    _replace(folder / f"{_PARTIAL}manifest", folder / MANIFEST, manifest.to_bytes())
    _remove_unlisted(folder, members)
    return manifest


def partial_shard(folder: Path, name: str) -> Path:
    """Return the place of a shard that does not replace the old one yet."""
    return folder / "documents" / f"{_PARTIAL}{Path(name).name}"


def is_shard_partial(folder: Path, name: str) -> bool:
    """Return whether a member is a shard that was just written."""
    return name.startswith("documents/") and partial_shard(folder, name).exists()


def _write_shard(folder: Path, name: str, lines: Iterable[bytes]) -> MemberDigest:
    place = partial_shard(folder, name)
    with (
        place.open("wb") as target,
        # Without a name and a time, so that equal documents are equal bytes.
        gzip.GzipFile(
            filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=target, mtime=0
        ) as shard,
    ):
        for line in lines:
            shard.write(line + b"\n")
    return MemberDigest(*hash_file(place))


def _replace(partial: Path, target: Path, content: bytes) -> None:
    partial.write_bytes(content)
    partial.replace(target)


def _remove_unlisted(folder: Path, members: dict[str, MemberDigest]) -> None:
    for place in [*folder.glob("documents/*"), *folder.glob("files/*/*")]:
        name = place.relative_to(folder).as_posix()
        if is_member_name(name) and name not in members:
            place.unlink()
    for place in folder.glob("files/*"):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
