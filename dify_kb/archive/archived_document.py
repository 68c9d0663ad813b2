"""The content of an archive: a dataset's settings and its documents, without server ids in use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import attrs
from attrs import field, frozen

from dify_kb.errors import ArchiveError
from dify_kb.models import MetadataScalar


def dump_canonical(value: object) -> bytes:
    """Return JSON with sorted keys and without spaces, in ASCII: equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def compute_digest(value: object) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(dump_canonical(value)).hexdigest()


@frozen(kw_only=True)
class ArchivedChunk:
    """A chunk; `children` are the contents of its child chunks, in order.

    `attachments` is their number; the API does not return their content.
    """

    content: str
    answer: str | None = None
    keywords: Sequence[str] = ()
    enabled: bool = True
    children: Sequence[str] = ()
    summary: str | None = None
    attachments: int = 0


@frozen(kw_only=True)
class ArchivedFile:
    """The file that a document was created from; `name` is that of the upload."""

    sha256: str
    size: int
    name: str


@frozen(kw_only=True)
class ArchivedDocument:
    """A document with its chunks.

    `rule` is the process rule as the server returns it; None if the server does not (1.4).
    `file_reason` says why there is no `file`. `status` is the indexing status; chunks of a document
    that was not `completed` may be incomplete.
    """

    id: str
    name: str
    form: str
    language: str | None = None
    rule: Mapping[str, Any] | None = None
    enabled: bool = True
    archived: bool = False
    status: str = "completed"
    error: str | None = None
    metadata: Mapping[str, MetadataScalar] = field(factory=dict)
    file: ArchivedFile | None = None
    file_reason: str | None = None
    chunks: Sequence[ArchivedChunk] = ()

    @property
    def is_searchable(self) -> bool:
        """Whether searches find the chunks that are enabled."""
        return self.enabled and not self.archived

    @property
    def content_digest(self) -> str:
        """A digest of what an import has to create: everything but metadata and state."""
        content = {
            name: value
            for name, value in self.to_json().items()
            if name not in {"id", "enabled", "archived", "metadata", "status", "error"}
        }
        if not self.is_searchable:
            # Disabling or archiving a document disables its chunks.
            content["chunks"] = [
                attrs.asdict(attrs.evolve(chunk, enabled=True), filter=_is_stored)
                for chunk in self.chunks
            ]
        return compute_digest(content)

    def to_json(self) -> dict[str, Any]:
        """Return the document as a line of a shard; default values are left out."""
        return attrs.asdict(self, filter=_is_stored)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the document of a line.

        Raises:
            ArchiveError: the line is not a document.
        """
        try:
            return cls(
                **{
                    **value,
                    "chunks": tuple(ArchivedChunk(**chunk) for chunk in value.get("chunks", ())),
                    "file": ArchivedFile(**value["file"]) if value.get("file") else None,
                }
            )
        except (TypeError, AttributeError) as error:
            raise ArchiveError(f"Not a document of an archive: {error}.") from error


def _is_stored(attribute: attrs.Attribute[Any], value: object) -> bool:
    if attribute.default is attrs.NOTHING:
        return True
    return bool(value) if attribute.default in {None, ()} else value != _default(attribute)


def _default(attribute: attrs.Attribute[Any]) -> object:
    make: Callable[[], object] | None = getattr(attribute.default, "factory", None)
    return attribute.default if make is None else make()


@frozen(kw_only=True)
class ArchivedDataset:
    """The settings of a knowledge base. `fields` maps metadata fields to their types.

    `rule` is the rule that new documents inherit; None if the server does not return it.
    """

    id: str
    name: str
    description: str = ""
    technique: str | None = None
    permission: str | None = None
    form: str | None = None
    embedding: Sequence[str] | None = None
    retrieval: Mapping[str, Any] | None = None
    rule: Mapping[str, Any] | None = None
    fields: Mapping[str, str] = field(factory=dict)
    has_built_in_fields: bool = False
    tags: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the settings of a JSON object.

        Raises:
            ArchiveError: the object has other keys.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise ArchiveError(f"Not the settings of a dataset: {error}.") from error
