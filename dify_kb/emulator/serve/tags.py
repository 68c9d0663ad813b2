from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from dify_kb.emulator import views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import Before, Field, Payload, Problems, Where, items, text
from dify_kb.emulator.refused import id_of, invalid_param, not_found
from dify_kb.emulator.store import TagRow
from dify_kb.models import (
    BindTags,
    CreateTag,
    DatasetTags,
    DeleteTag,
    RenameTag,
    Tag,
    UnbindTag,
)
from dify_kb.wire import catalog, codec

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST: Final = 50

_NAME_HELP: Final = "Name must be between 1 to 50 characters."


def _name(value: object, where: Where, problems: Problems) -> object:
    """Check a name as servers before 1.11 do."""
    if not isinstance(value, str) or not 1 <= len(value) <= _MOST:
        problems.add(where, _NAME_HELP, "value_error", value)
    return value


_NAME = Field(
    text(least=1, most=_MOST),
    required=True,
    before=Before(help=_NAME_HELP, check=_name, anywhere=True),
)


def _tag_id(help_: str) -> Field:
    return Field(text(), required=True, before=Before(help=help_, anywhere=True))


def _target() -> Field:
    return Field(text(), required=True, before=Before(help="Target Dataset ID is required."))


def _some(value: object, where: Where, problems: Problems) -> object:
    if value == []:
        problems.add(where, "Value error, Tag IDs is required.", "value_error", value)
    return items(text())(value, where, problems)


_CREATE = Payload("TagCreatePayload", {"name": _NAME})
_RENAME = Payload("TagUpdatePayload", {"name": _NAME, "tag_id": _tag_id("Id of a tag.")})
_DELETE = Payload("TagDeletePayload", {"tag_id": _tag_id("Id of a tag.")})
_BIND = Payload(
    "TagBindingPayload",
    {
        "tag_ids": Field(
            _some,
            required=True,
            before=Before(help="Tag IDs is required.", check=items(text())),
        ),
        "target_id": _target(),
    },
)
_UNBIND = Payload(
    "TagUnbindingPayload", {"tag_id": _tag_id("Tag ID is required."), "target_id": _target()}
)
_UNBIND_SEVERAL = Payload(
    "TagUnbindingPayload",
    {"tag_id": Field(text()), "tag_ids": Field(_some), "target_id": _target()},
)


def _read_create(context: Context, raw: object) -> CreateTag:
    return codec.decode(CreateTag, _CREATE.read(raw, context.profile))


def _read_rename(context: Context, raw: object) -> RenameTag:
    return codec.decode(RenameTag, _RENAME.read(raw, context.profile))


def _read_delete(context: Context, raw: object) -> DeleteTag:
    return codec.decode(DeleteTag, _DELETE.read(raw, context.profile))


def _read_bind(context: Context, raw: object) -> BindTags:
    return codec.decode(BindTags, _BIND.read(raw, context.profile))


def _read_unbind(context: Context, raw: object) -> UnbindTag:
    """Read a tag, or tags where the version takes several."""
    if not context.profile.quirks.several_unbound:
        return codec.decode(UnbindTag, _UNBIND.read(raw, context.profile))
    fields = _UNBIND_SEVERAL.read(raw, context.profile)
    if "tag_ids" not in fields and "tag_id" not in fields:
        fields = _UNBIND.read(raw, context.profile)
    return codec.decode(UnbindTag, {"tag_id": "", **fields})


@serves(catalog.LIST_TAGS, nothing)
def list_(context: Context, _: None) -> list[Tag]:
    """List tags, the newest first, as a bare array with their counts as texts."""
    counts = [(row, context.store.tags.count(row.id)) for row in context.store.tags.all()]
    _refuse_own(context, "list[DataSetTag]", counts, numbered=True)
    return [views.tag(row, str(count)) for row, count in counts]


@serves(catalog.CREATE_TAG, _read_create)
def create(context: Context, body: CreateTag) -> Tag:
    """Make a tag."""
    row = TagRow(str(uuid.uuid4()), body.name)
    if not context.store.tags.add(row):
        raise invalid_param("Tag name already exists")
    return _alone(context, row)


@serves(catalog.RENAME_TAG, _read_rename)
def rename(context: Context, body: RenameTag) -> Tag:
    """Give a tag another name; its own is taken, too."""
    row = _found(context, body.tag_id)
    if not context.store.tags.rename(row.id, body.name):
        raise invalid_param("Tag name already exists")
    return _alone(context, TagRow(row.id, body.name))


@serves(catalog.DELETE_TAG, _read_delete)
def delete(context: Context, body: DeleteTag) -> None:
    """Delete a tag, from the datasets that bear it too."""
    context.store.tags.delete(_found(context, body.tag_id).id)


@serves(catalog.BIND_TAGS, _read_bind)
def bind(context: Context, body: BindTags) -> None:
    """Have a dataset bear tags; nobody asks whether they exist (recordings 836, 837)."""
    dataset = _target_of(context, body.target_id)
    with context.store.transaction():
        for tag_id in body.tag_ids:
            context.store.tags.bind(dataset, id_of(tag_id))


@serves(catalog.UNBIND_TAG, _read_unbind)
def unbind(context: Context, body: UnbindTag) -> None:
    """Have a dataset bear tags no more; whether it does is not asked (recording 851)."""
    dataset = _target_of(context, body.target_id)
    with context.store.transaction():
        for tag_id in body.tag_ids or [body.tag_id]:
            context.store.tags.unbind(dataset, id_of(tag_id))


@serves(catalog.LIST_DATASET_TAGS, nothing)
def list_for_dataset(context: Context, _: None) -> DatasetTags:
    """List the tags of a dataset, the newest first; servers before 1.11 do not ask whether there
    is one (recording 845).
    """
    return views.tags_of(context.store, context.slots["dataset_id"])


def _found(context: Context, tag_id: str) -> TagRow:
    row = context.store.tags.get(id_of(tag_id))
    if row is None:
        raise not_found("Tag not found")
    return row


def _target_of(context: Context, dataset_id: str) -> str:
    row = context.store.datasets.get(id_of(dataset_id))
    if row is None:
        raise not_found("Dataset not found")
    return row.id


def _alone(context: Context, row: TagRow) -> Tag:
    """Show one tag by itself."""
    count = context.store.tags.count(row.id)
    _refuse_own(context, "DataSetTag", [(row, count)])
    number = context.profile.quirks.numeric_tag_count
    return views.tag(row, count if number else str(count))


def _refuse_own(
    context: Context, title: str, counts: Sequence[tuple[TagRow, int]], *, numbered: bool = False
) -> None:
    """Refuse the answer itself, when all is done: the counts are no texts (measured)."""
    if not counts or not context.profile.quirks.refuses_own_tags:
        return
    context.notes.committed = True
    problems = Problems(context.profile)
    for number, (_, count) in enumerate(counts):
        where = (str(number), "binding_count") if numbered else ("binding_count",)
        problems.add(where, "Input should be a valid string", "string_type", count)
    raise problems.refusal(title)


HANDLERS = (list_, create, rename, delete, bind, unbind, list_for_dataset)
