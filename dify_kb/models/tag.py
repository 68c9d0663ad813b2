"""The tags of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from ._base import UNSET, Unset


@frozen(kw_only=True)
class Tag:
    """A tag; `binding_count` is the number of datasets with the tag."""

    id: str
    name: str
    type: str | None = None
    binding_count: int | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class TagRef:
    """A tag in the list of a dataset's tags."""

    id: str
    name: str


@frozen(kw_only=True)
class DatasetTags:
    """The tags of one dataset."""

    data: Sequence[TagRef]
    total: int | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class CreateTag:
    """The request body to create a tag; the name has 1 to 50 characters."""

    name: str


@frozen(kw_only=True)
class RenameTag:
    """The request body to rename a tag."""

    tag_id: str
    name: str


@frozen(kw_only=True)
class DeleteTag:
    """The request body to delete a tag."""

    tag_id: str


@frozen(kw_only=True)
class BindTags:
    """The request body to add tags to a dataset."""

    tag_ids: Sequence[str]
    target_id: str


@frozen(kw_only=True)
class UnbindTag:
    """The request body to remove a tag from a dataset.

    Servers up to 1.12.1 read `tag_id`, later ones `tag_ids` (measured on 1.12.1, API of 1.16).
    """

    tag_id: str
    target_id: str
    tag_ids: Sequence[str] | Unset = UNSET
