from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.argument_checks import check_methods
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
from ._recovery import recover

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_NAME = 50
"""Maximum characters of a tag's name."""


@check_methods
@frozen
class Tags:
    """The tags of knowledge bases; require 1.4.2.

    Version 1.12.1 returns an error for `create`, `update` and `list` although they succeed; the
    hint of the error says so.
    """

    _send: CallSender

    async def create(self, name: str) -> Tag:
        """Create a tag. Costs one request; if its response is lost, the tag is looked up.

        Args:
            name: 1 to 50 characters, unique in the workspace.

        Raises:
            ConfigError: the name is empty or too long.
            BadRequestError: the name is already in use.
        """
        request = CreateTag(name=check_length(name, "name", 1, MAX_NAME))
        return await recover(
            self._send(catalog.CREATE_TAG(request)),
            lambda: self._find(lambda tag: tag.name == name),
        )

    async def list(self) -> Sequence[Tag]:
        """Return all tags, newest first. Costs one request."""
        return await self._send(catalog.LIST_TAGS.call())

    async def update(self, tag_id: str, name: str) -> Tag:
        """Rename a tag. Costs one request.

        Raises:
            ConfigError: the name is empty or too long.
            BadRequestError: the name is already in use; up to 1.12 also by the tag itself.
            NotFoundError: the tag does not exist.
        """
        request = RenameTag(
            tag_id=check_id(tag_id, "tag_id"), name=check_length(name, "name", 1, MAX_NAME)
        )
        return await recover(
            self._send(catalog.RENAME_TAG(request)),
            lambda: self._find(lambda tag: (tag.id, tag.name) == (tag_id, name)),
        )

    async def delete(self, tag_id: str) -> None:
        """Delete a tag and remove it from all datasets. Costs one request.

        Raises:
            NotFoundError: the tag does not exist.
        """
        await self._send(catalog.DELETE_TAG(DeleteTag(tag_id=check_id(tag_id, "tag_id"))))

    async def bind(self, dataset_id: Dataset | str, tag_ids: Sequence[str]) -> None:
        """Add tags to a dataset. Costs one request. Up to 1.12, unknown tags are accepted.

        Raises:
            ConfigError: no tags.
            NotFoundError: the dataset does not exist.
        """
        check_not_empty(tag_ids, "tag_ids")
        ids = [check_id(tag_id, "tag_ids") for tag_id in tag_ids]
        request = BindTags(tag_ids=ids, target_id=get_dataset_id(dataset_id))
        await self._send(catalog.BIND_TAGS(request))

    async def unbind(self, dataset_id: Dataset | str, tag_id: str) -> None:
        """Remove a tag from a dataset. Costs one request.

        Raises:
            NotFoundError: the dataset does not exist.
        """
        tag = check_id(tag_id, "tag_id")
        request = UnbindTag(tag_id=tag, tag_ids=[tag], target_id=get_dataset_id(dataset_id))
        await self._send(catalog.UNBIND_TAG(request))

    async def list_for_dataset(self, dataset_id: Dataset | str) -> DatasetTags:
        """Return the tags of one dataset. Costs one request."""
        path_params = {"dataset_id": get_dataset_id(dataset_id)}
        return await self._send(catalog.LIST_DATASET_TAGS.call(**path_params))

    async def _find(self, is_wanted: Callable[[Tag], bool]) -> Tag | None:
        return next((tag for tag in await self.list() if is_wanted(tag)), None)
