"""Tags of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from ._base import UNSET, Unset


@frozen(kw_only=True)
class Tag:
    """A tag; `binding_count` datasets bear it (sent as a number by 1.4.3, as text since)."""

    id: str
    name: str
    type: str
    binding_count: int | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class TagRef:
    """A tag as a dataset names it."""

    id: str
    name: str


@frozen(kw_only=True)
class DatasetTags:
    """Answer of the tags of one dataset."""

    data: Sequence[TagRef]
    total: int


@frozen(kw_only=True)
class CreateTag:
    """Request: a new tag, 1 to 50 characters."""

    name: str


@frozen(kw_only=True)
class RenameTag:
    """Request: another name for a tag."""

    tag_id: str
    name: str


@frozen(kw_only=True)
class DeleteTag:
    """Request: the tag to delete. A body on a DELETE, as the server wants it."""

    tag_id: str


@frozen(kw_only=True)
class BindTags:
    """Request: tags for a dataset."""

    tag_ids: Sequence[str]
    target_id: str


@frozen(kw_only=True)
class UnbindTag:
    """Request: a tag to take off a dataset, in both spellings: up to 1.12.1 the server reads
    `tag_id`, later ones `tag_ids` (measured on 1.12.1, API of 1.16).
    """

    tag_id: str
    target_id: str
    tag_ids: Sequence[str] | Unset = UNSET
