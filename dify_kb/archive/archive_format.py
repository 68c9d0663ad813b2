"""The layout of an archive: names of its members, the manifest and its checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import attrs
from attrs import field, frozen

from dify_kb.errors import ArchiveError

from .archived_document import ArchivedDataset, compute_digest, dump_canonical

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = 1
"""The number of the format. Readers reject higher numbers."""

MANIFEST: Final = "manifest.json"
STATE: Final = "state.sqlite"
"""The journal of the export, next to the archive's members. Without it the next export is full."""

SHARD_SIZE: Final = 1000
"""Documents per shard."""

_SHARD_NAME: Final = re.compile(r"documents/\d{6}\.jsonl\.gz")
_FILE_NAME: Final = re.compile(r"files/([0-9a-f]{2})/\1[0-9a-f]{62}")
_BLOCK: Final = 1024 * 1024
_HINT: Final = "Restore the archive from a copy, or export the dataset again."


def shard_name(number: int) -> str:
    """Return the member name of a shard; numbers begin with 1."""
    return f"documents/{number:06}.jsonl.gz"


def file_name(sha256: str) -> str:
    """Return the member name of a file."""
    return f"files/{sha256[:2]}/{sha256}"


def is_member_name(name: str) -> bool:
    """Return whether a manifest may list this name: no other path is ever opened."""
    return bool(_SHARD_NAME.fullmatch(name) or _FILE_NAME.fullmatch(name))


def is_file_name(name: str) -> bool:
    """Return whether a member is an original file."""
    return _FILE_NAME.fullmatch(name) is not None


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """Return the SHA-256 and the size of the rest of a stream. Blocking."""
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def hash_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file. Blocking."""
    with path.open("rb") as stream:
        return hash_stream(stream)


@frozen
class MemberDigest:
    """The SHA-256 and the size in bytes of a member."""

    sha256: str
    size: int


@frozen(kw_only=True)
class Manifest:
    """The table of contents of an archive."""

    dataset: ArchivedDataset
    server_version: str | None
    documents: int
    chunks: int
    child_chunks: int
    files: int
    has_files: bool = True
    """Whether the export was meant to contain files."""

    selection: str | None = None
    """What was selected of the dataset; None for all documents."""

    members: Mapping[str, MemberDigest] = field(factory=dict)

    @property
    def shards(self) -> list[str]:
        """The names of the shards, in order."""
        return sorted(name for name in self.members if not is_file_name(name))

    def to_bytes(self) -> bytes:
        """Return the manifest as a file; the last key is the checksum of the others."""
        value = {"format": FORMAT, **attrs.asdict(self)}
        return dump_canonical({**value, "checksum": compute_digest(value)}) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the manifest of a file.

        Raises:
            ArchiveError: it is damaged, of a newer format, or lists a path outside of the archive.
        """
        try:
            value: dict[str, Any] = json.loads(content)
            number = value.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ArchiveError(
                f"{MANIFEST} is not the manifest of an archive.", hint=_HINT
            ) from error
        if isinstance(number, int) and number > FORMAT:
            raise ArchiveError(
                f"The archive has the format {number}; this version of dify-kb reads up to"
                f" {FORMAT}.",
                hint="Install a newer version of dify-kb.",
            )
        try:
            checksum = value.pop("checksum", None)
            complete = {"format": number, **value}
            if (
                compute_digest(complete) != checksum
                or content != dump_canonical({**complete, "checksum": checksum}) + b"\n"
            ):
                raise ArchiveError(f"{MANIFEST} is damaged: its checksum differs.", hint=_HINT)
            manifest = cls(
                **{
                    **value,
                    "dataset": ArchivedDataset.from_json(value["dataset"]),
                    "members": {
                        name: MemberDigest(**member) for name, member in value["members"].items()
                    },
                }
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ArchiveError(
                f"{MANIFEST} has unexpected content: {error}.", hint=_HINT
            ) from error
        for name in manifest.members:
            if not is_member_name(name):
                raise ArchiveError(f"{MANIFEST} lists an invalid member: {name!r}.", hint=_HINT)
        return manifest
