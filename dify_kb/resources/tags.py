from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.models import (
    BindTags,
    CreateTag,
    Dataset,
    DatasetTags,
    DeleteTag,
    RenameTag,
    Tag,
    UnbindTag,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from ._arguments import check_id, check_length, check_not_empty, get_dataset_id

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME = 50
"""Characters of a tag's name."""


@frozen
class Tags:
    """Tags of knowledge bases; since 1.4.2.

    Version 1.12.1 refuses its own answers to `create`, `update` and `list` although they were
    carried out; the error says so.
    """

    _send: CallSender

    async def create(self, name: str) -> Tag:
        """Make a tag. One request, never repeated when it may have been carried out.

        Args:
            name: 1 to 50 characters, unique in the workspace.

        Raises:
            ConfigError: a name that the server does not take.
            BadRequestError: the name is taken.
        """
        return await self._send(
            catalog.CREATE_TAG(CreateTag(name=check_length(name, "name", 1, MAX_NAME)))
        )

    async def list(self) -> Sequence[Tag]:
        """Fetch all tags, the newest first. One request."""
        return await self._send(catalog.LIST_TAGS.call())

    async def update(self, tag_id: str, name: str) -> Tag:
        """Give a tag another name. One request.

        Raises:
            ConfigError: a name that the server does not take.
            BadRequestError: the name is taken, also when it is the tag's own.
            NotFoundError: no such tag.
        """
        request = RenameTag(
            tag_id=check_id(tag_id, "tag_id"), name=check_length(name, "name", 1, MAX_NAME)
        )
        return await self._send(catalog.RENAME_TAG(request))

    async def delete(self, tag_id: str) -> None:
        """Delete a tag; datasets lose it. One request.

        Raises:
            NotFoundError: no such tag.
        """
        await self._send(catalog.DELETE_TAG(DeleteTag(tag_id=check_id(tag_id, "tag_id"))))

    async def bind(self, dataset_id: Dataset | str, tag_ids: Sequence[str]) -> None:
        """Give tags to a dataset. One request; up to 1.12 unknown tags are bound as well.

        Raises:
            ConfigError: no tags.
            NotFoundError: no such dataset.
        """
        check_not_empty(tag_ids, "tag_ids")
        ids = [check_id(tag_id, "tag_ids") for tag_id in tag_ids]
        request = BindTags(tag_ids=ids, target_id=get_dataset_id(dataset_id))
        await self._send(catalog.BIND_TAGS(request))

    async def unbind(self, dataset_id: Dataset | str, tag_id: str) -> None:
        """Take a tag off a dataset. One request, which works on all versions.

        Raises:
            NotFoundError: no such dataset.
        """
        tag = check_id(tag_id, "tag_id")
        request = UnbindTag(tag_id=tag, tag_ids=[tag], target_id=get_dataset_id(dataset_id))
        await self._send(catalog.UNBIND_TAG(request))

    async def list_for_dataset(self, dataset_id: Dataset | str) -> DatasetTags:
        """Fetch the tags of one dataset. One request."""
        slots = {"dataset_id": get_dataset_id(dataset_id)}
        return await self._send(catalog.LIST_DATASET_TAGS.call(**slots))
