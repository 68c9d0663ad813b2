"""Parse dataset requests, with the order of checks and the messages of each server version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dify_kb.emulator.errors import invalid_param_error
from dify_kb.emulator.server_profile import ErrorStyle
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    LegacyField,
    ValidationErrors,
    accept_any,
    choice_validator,
    list_validator,
    object_validator,
    string_validator,
    validate_boolean,
)
from dify_kb.models import (
    CreateDataset,
    ListDatasets,
    Permission,
    UpdateDataset,
)
from dify_kb.wire import codec

from .common_fields import PAGING, RETRIEVAL_MODEL, TECHNIQUE

if TYPE_CHECKING:
    from dify_kb.emulator.request_context import RequestContext

_NAME = string_validator(min_length=1, max_length=40)
_NAME_LENGTHS: Final = "Name must be between 1 to 40 characters."
_NAME_HELP: Final = f"type is required. {_NAME_LENGTHS}"
_TECHNIQUE_HELP: Final = "Invalid indexing technique."

_MAX_DESCRIPTION: Final = 400


def _check_description(value: object, path: tuple[str, ...], problems: ValidationErrors) -> object:
    """Check a description; 1.4 accepts any length (measured)."""
    wording = problems.profile.error_style
    if wording is ErrorStyle.PARAMS:
        return value
    if wording is ErrorStyle.ERRORS and isinstance(value, str) and len(value) > _MAX_DESCRIPTION:
        message = f"Description cannot exceed {_MAX_DESCRIPTION} characters."
        problems.add(path, message, "string_too_long", value)
        return value
    return string_validator(max_length=_MAX_DESCRIPTION)(value, path, problems)


def _check_name_before_1_11(
    value: object, path: tuple[str, ...], problems: ValidationErrors
) -> object:
    """Check a name as servers before 1.11 do (recordings 026, 027)."""
    name_problems = ValidationErrors(problems.profile)
    _NAME(value, path, name_problems)
    if name_problems.messages:
        type_name = type(value).__name__
        message = (
            _NAME_LENGTHS
            if isinstance(value, str)
            else f"object of type '{type_name}' has no len()"
        )
        problems.add(path, message, "value_error", value)
    return value


def _check_provider(value: object, path: tuple[str, ...], problems: ValidationErrors) -> object:
    """Check a provider where the version does (031)."""
    is_checked = problems.profile.quirks.checks_provider
    check = choice_validator(["vendor", "external"]) if is_checked else string_validator()
    return check(value, path, problems)


def _check_summary(value: object, path: tuple[str, ...], problems: ValidationErrors) -> object:
    """Check the settings of the summary index, of which a request may contain any (1504, 1505)."""
    if not isinstance(value, dict):
        problems.add(path, "Input should be a valid dictionary", "dict_type", value)
    return value


_CREATE = BodySchema(
    "DatasetCreatePayload",
    {
        "name": BodyField(
            _NAME,
            required=True,
            legacy=LegacyField(
                help=_NAME_HELP, in_form_or_query=True, check=_check_name_before_1_11
            ),
        ),
        "description": BodyField(
            _check_description, nullable=False, legacy=LegacyField(nullable=True)
        ),
        "indexing_technique": BodyField(TECHNIQUE, legacy=LegacyField(help=_TECHNIQUE_HELP)),
        "permission": BodyField(
            choice_validator([*Permission], "enum"), legacy=LegacyField(help="Invalid permission.")
        ),
        "provider": BodyField(_check_provider, nullable=False),
        "summary_index_setting": BodyField(_check_summary, legacy=LegacyField(check=accept_any)),
        "external_knowledge_api_id": BodyField(string_validator()),
        "external_knowledge_id": BodyField(string_validator()),
        "embedding_model": BodyField(string_validator()),
        "embedding_model_provider": BodyField(string_validator()),
        "retrieval_model": BodyField(
            RETRIEVAL_MODEL, legacy=LegacyField(pydantic_model="RetrievalModel")
        ),
    },
)


def _parse_bool(value: object, _path: tuple[str, ...], _problems: ValidationErrors) -> object:
    return str(value).lower() == "true"


def _check_tag_ids(value: object, path: tuple[str, ...], problems: ValidationErrors) -> object:
    """Check tag ids; 1.12.1 refuses any, because it reads only the first one (recording 847)."""
    if problems.profile.has_tag_filter:
        return list_validator(string_validator())(value, path, problems)
    first_tag_id = value[0] if isinstance(value, list) else value
    problems.add(path, "Input should be a valid list", "list_type", first_tag_id)
    return []


_LIST = BodySchema(
    "DatasetListQuery",
    PAGING
    | {
        "keyword": BodyField(string_validator()),
        "include_all": BodyField(validate_boolean, legacy=LegacyField(check=_parse_bool)),
        "tag_ids": BodyField(_check_tag_ids),
    },
)


def read_create(context: RequestContext, raw: object) -> CreateDataset:
    """Parse the body that creates a dataset."""
    fields = _CREATE.validate(raw, context.profile)
    if "\0" in str(fields["name"]):
        raise invalid_param_error("A string literal cannot contain NUL (0x00) characters.")
    context.notes.summary_setting = fields.pop("summary_index_setting", None)
    return codec.decode(CreateDataset, fields)


def read_list(context: RequestContext, raw: object) -> ListDatasets:
    """Parse the query that lists datasets."""
    return codec.decode(ListDatasets, _LIST.validate(raw, context.profile))


_UPDATE = BodySchema(
    "DatasetUpdatePayload",
    {
        "name": BodyField(
            _NAME,
            legacy=LegacyField(help=_NAME_HELP, nullable=False, check=_check_name_before_1_11),
        ),
        "description": BodyField(_check_description),
        "indexing_technique": BodyField(TECHNIQUE, legacy=LegacyField(help=_TECHNIQUE_HELP)),
        "permission": BodyField(
            choice_validator([*Permission], "enum"), legacy=LegacyField(help="Invalid permission.")
        ),
        "embedding_model": BodyField(string_validator()),
        "embedding_model_provider": BodyField(string_validator()),
        "retrieval_model": BodyField(RETRIEVAL_MODEL, legacy=LegacyField(check=accept_any)),
        "partial_member_list": BodyField(
            list_validator(
                object_validator({"user_id": BodyField(string_validator(), required=True)})
            )
        ),
        "external_retrieval_model": BodyField(accept_any),
        "external_knowledge_id": BodyField(string_validator()),
        "external_knowledge_api_id": BodyField(string_validator()),
    },
)


def read_update(context: RequestContext, raw: object) -> UpdateDataset:
    """Parse the body that updates a dataset."""
    fields = _UPDATE.validate(raw, context.profile)
    if isinstance(raw, dict) and "description" in raw:
        # The description is the only field that can be set to null.
        fields["description"] = raw["description"]
    return codec.decode(UpdateDataset, fields)
