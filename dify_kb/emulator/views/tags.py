from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.models import DatasetTags, Tag, TagRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import Store, TagRow

_TYPE = "knowledge"


def tag(row: TagRow, count: object) -> Tag:
    """Show a tag with a count that is a number or a text, as the version has it."""
    return Tag(id=row.id, name=row.name, type=_TYPE, extra={"binding_count": count})


def tags_of(store: Store, dataset_id: str) -> DatasetTags:
    """Show the tags of a dataset by themselves."""
    rows = store.tags.of(dataset_id)
    return DatasetTags(data=[TagRef(id=row.id, name=row.name) for row in rows], total=len(rows))


def of_dataset(store: Store, dataset_id: str) -> list[Mapping[str, object]]:
    """Show the tags as a dataset names them."""
    rows = store.tags.of(dataset_id)
    return [{"id": row.id, "name": row.name, "type": _TYPE} for row in rows]
