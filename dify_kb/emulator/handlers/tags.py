"""Request handlers for tags and their bindings to datasets."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from dify_kb.emulator import serializers
from dify_kb.emulator.errors import invalid_param_error, not_found_error, parse_uuid
from dify_kb.emulator.request_context import RequestContext, handles, ignore_body
from dify_kb.emulator.store import TagRow
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    LegacyField,
    ValidationErrors,
    list_validator,
    string_validator,
)
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

_MAX_NAME_LENGTH: Final = 50

_NAME_HELP: Final = "Name must be between 1 to 50 characters."


def _check_name_before_1_11(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a name as servers before 1.11 do."""
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME_LENGTH:
        problems.add(path, _NAME_HELP, "value_error", value)
    return value


_NAME = BodyField(
    string_validator(min_length=1, max_length=_MAX_NAME_LENGTH),
    required=True,
    legacy=LegacyField(help=_NAME_HELP, check=_check_name_before_1_11, in_form_or_query=True),
)


def _build_tag_id_field(help_: str) -> BodyField:
    return BodyField(
        string_validator(), required=True, legacy=LegacyField(help=help_, in_form_or_query=True)
    )


def _build_target_field() -> BodyField:
    return BodyField(
        string_validator(), required=True, legacy=LegacyField(help="Target Dataset ID is required.")
    )


def _check_tag_ids(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    if value == []:
        problems.add(path, "Value error, Tag IDs is required.", "value_error", value)
    return list_validator(string_validator())(value, path, problems)


_CREATE = BodySchema("TagCreatePayload", {"name": _NAME})
_RENAME = BodySchema(
    "TagUpdatePayload", {"name": _NAME, "tag_id": _build_tag_id_field("Id of a tag.")}
)
_DELETE = BodySchema("TagDeletePayload", {"tag_id": _build_tag_id_field("Id of a tag.")})
_BIND = BodySchema(
    "TagBindingPayload",
    {
        "tag_ids": BodyField(
            _check_tag_ids,
            required=True,
            legacy=LegacyField(
                help="Tag IDs is required.", check=list_validator(string_validator())
            ),
        ),
        "target_id": _build_target_field(),
    },
)
_UNBIND = BodySchema(
    "TagUnbindingPayload",
    {"tag_id": _build_tag_id_field("Tag ID is required."), "target_id": _build_target_field()},
)
_UNBIND_SEVERAL = BodySchema(
    "TagUnbindingPayload",
    {
        "tag_id": BodyField(string_validator()),
        "tag_ids": BodyField(list_validator(string_validator())),
        "target_id": _build_target_field(),
    },
)


def _read_create(context: RequestContext, raw: object) -> CreateTag:
    return codec.decode(CreateTag, _CREATE.validate(raw, context.profile))


def _read_rename(context: RequestContext, raw: object) -> RenameTag:
    return codec.decode(RenameTag, _RENAME.validate(raw, context.profile))


def _read_delete(context: RequestContext, raw: object) -> DeleteTag:
    return codec.decode(DeleteTag, _DELETE.validate(raw, context.profile))


def _read_bind(context: RequestContext, raw: object) -> BindTags:
    return codec.decode(BindTags, _BIND.validate(raw, context.profile))


def _read_unbind(context: RequestContext, raw: object) -> UnbindTag:
    """Parse a tag, or several where the version supports that."""
    if not context.profile.quirks.unbinds_several_tags:
        return codec.decode(UnbindTag, _UNBIND.validate(raw, context.profile))
    fields = _UNBIND_SEVERAL.validate(raw, context.profile)
    if not fields.get("tag_ids", fields.get("tag_id")):
        problems = ValidationErrors(context.profile)
        problems.add((), "Value error, Tag IDs is required.", "value_error", raw)
        raise problems.to_error(_UNBIND_SEVERAL.title)
    return codec.decode(UnbindTag, {"tag_id": "", **fields})


@handles(catalog.LIST_TAGS, ignore_body)
def list_(context: RequestContext, _: None) -> list[Tag]:
    """List tags, newest first, as a bare array with their counts as strings."""
    counts = [
        (row, context.store.tags.count_datasets(row.id)) for row in context.store.tags.list_all()
    ]
    _refuse_own_response(context, "list[DataSetTag]", counts, is_list=True)
    return [serializers.serialize_tag(row, str(count)) for row, count in counts]


@handles(catalog.CREATE_TAG, _read_create)
def create(context: RequestContext, body: CreateTag) -> Tag:
    """Create a tag."""
    row = TagRow(str(uuid.uuid4()), body.name)
    if not context.store.tags.add(row):
        raise invalid_param_error("Tag name already exists")
    return _serialize_single_tag(context, row)


@handles(catalog.RENAME_TAG, _read_rename)
def rename(context: RequestContext, body: RenameTag) -> Tag:
    """Rename a tag; up to 1.12 its own name is refused as a duplicate, too (1449)."""
    row = _require_tag(context, body.tag_id)
    if row.name == body.name and not context.profile.quirks.refuses_own_tag_name:
        return _serialize_single_tag(context, row)
    if not context.store.tags.rename(row.id, body.name):
        raise invalid_param_error("Tag name already exists")
    return _serialize_single_tag(context, TagRow(row.id, body.name))


@handles(catalog.DELETE_TAG, _read_delete)
def delete(context: RequestContext, body: DeleteTag) -> None:
    """Delete a tag, and remove it from all datasets."""
    context.store.tags.delete(_require_tag(context, body.tag_id).id)


@handles(catalog.BIND_TAGS, _read_bind)
def bind(context: RequestContext, body: BindTags) -> None:
    """Add tags to a dataset; the tags need not exist (recordings 836, 837)."""
    dataset = _require_dataset_id(context, body.target_id)
    with context.store.transaction():
        for tag_id in body.tag_ids:
            context.store.tags.bind(dataset, parse_uuid(tag_id))


@handles(catalog.UNBIND_TAG, _read_unbind)
def unbind(context: RequestContext, body: UnbindTag) -> None:
    """Remove tags from a dataset, which need not have them (recording 851)."""
    dataset = _require_dataset_id(context, body.target_id)
    with context.store.transaction():
        for tag_id in body.tag_ids or [body.tag_id]:
            context.store.tags.unbind(dataset, parse_uuid(tag_id))


@handles(catalog.LIST_DATASET_TAGS, ignore_body)
def list_for_dataset(context: RequestContext, _: None) -> DatasetTags:
    """List the tags of a dataset, newest first.

    Servers before 1.11 do not check that the dataset exists (recording 845).
    """
    return serializers.serialize_dataset_tags(context.store, context.path_parameters["dataset_id"])


def _require_tag(context: RequestContext, tag_id: str) -> TagRow:
    row = context.store.tags.get(parse_uuid(tag_id))
    if row is None:
        raise not_found_error("Tag not found")
    return row


def _require_dataset_id(context: RequestContext, dataset_id: str) -> str:
    row = context.store.datasets.get(parse_uuid(dataset_id))
    if row is None:
        raise not_found_error("Dataset not found")
    return row.id


def _serialize_single_tag(context: RequestContext, row: TagRow) -> Tag:
    """Serialize one tag as creates and renames return it."""
    count = context.store.tags.count_datasets(row.id)
    _refuse_own_response(context, "DataSetTag", [(row, count)])
    number = context.profile.quirks.numeric_tag_count
    return serializers.serialize_tag(row, count if number else str(count))


def _refuse_own_response(
    context: RequestContext,
    title: str,
    counts: Sequence[tuple[TagRow, int]],
    *,
    is_list: bool = False,
) -> None:
    """Refuse the response after the change is committed: counts are not strings (measured)."""
    if not counts or not context.profile.quirks.refuses_own_tags:
        return
    context.notes.committed = True
    problems = ValidationErrors(context.profile)
    for number, (_, count) in enumerate(counts):
        path = (str(number), "binding_count") if is_list else ("binding_count",)
        problems.add(path, "Input should be a valid string", "string_type", count)
    raise problems.to_error(title)


HANDLERS = (list_, create, rename, delete, bind, unbind, list_for_dataset)
