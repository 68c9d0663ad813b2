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
            chunks = [ArchivedChunk(**chunk) for chunk in value.get("chunks", ())]
            file = ArchivedFile(**value["file"]) if value.get("file") else None
            document = cls(**{**value, "chunks": tuple(chunks), "file": file})
        except (TypeError, AttributeError) as error:
            raise ArchiveError(f"Not a document of an archive: {error}.") from error
        parts: list[attrs.AttrsInstance] = [document, *chunks, *([] if file is None else [file])]
        for part in parts:
            _check_types(part)
        return document


def _check_types(part: attrs.AttrsInstance) -> None:
    """Check the types of values of a line that somebody else may have written.

    Raises:
        ArchiveError: a value has another type.
    """
    for attribute in attrs.fields(type(part)):
        value: Any = getattr(part, attribute.name)
        kind = str(attribute.type)
        is_valid = (
            ("None" in kind and value is None)
            or (kind.startswith("str") and isinstance(value, str))
            or (kind == "bool" and isinstance(value, bool))
            or (kind == "int" and isinstance(value, int) and not isinstance(value, bool))
            or (kind.startswith("Sequence[str]") and _is_list_of(value, str))
            or (kind.startswith("Mapping") and isinstance(value, Mapping))
            or kind.startswith(("Archived", "Sequence[Archived"))
        )
        if kind in {"Mapping[str, MetadataScalar]", "Mapping[str, str]"}:
            values = [*value.values()] if isinstance(value, Mapping) else [value]
            is_valid = is_valid and _is_list_of(values, str | int | float)
        if not is_valid:
            raise ArchiveError(f"Not a document of an archive: invalid {attribute.name}.")


def _is_list_of(value: object, kind: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


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
    """Provider and model."""

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
            settings = cls(**value)
        except TypeError as error:
            raise ArchiveError(f"Not the settings of a dataset: {error}.") from error
        _check_types(settings)
        if settings.embedding is not None and len(settings.embedding) != len(("provider", "model")):
            raise ArchiveError("Not the settings of a dataset: invalid embedding.")
        return settings
