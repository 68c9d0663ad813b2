"""Reading the bodies of calls about datasets, in the order and the words of the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dify_kb.emulator.payload import (
    Before,
    Field,
    Payload,
    Problems,
    anything,
    flag,
    items,
    record,
    text,
    words,
)
from dify_kb.emulator.profile import Wording
from dify_kb.models import (
    CreateDataset,
    ListDatasets,
    Permission,
    UpdateDataset,
)
from dify_kb.wire import codec

from .fields import (
    PAGING,
    RETRIEVAL_MODEL,
    TECHNIQUE,
)

if TYPE_CHECKING:
    from dify_kb.emulator.context import Context

_NAME = text(least=1, most=40)
_LENGTHS: Final = "Name must be between 1 to 40 characters."
_NAMED: Final = f"type is required. {_LENGTHS}"
_TECHNIQUES: Final = "Invalid indexing technique."

_LONGEST: Final = 400


def _description(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check a description; 1.4 takes one of any length (measured)."""
    wording = problems.profile.wording
    if wording is Wording.PARAMS:
        return value
    if wording is Wording.ERRORS and isinstance(value, str) and len(value) > _LONGEST:
        what = f"Description cannot exceed {_LONGEST} characters."
        problems.add(where, what, "string_too_long", value)
        return value
    return text(most=_LONGEST)(value, where, problems)


def _plain_name(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check a name as servers before 1.11 do (recordings 026, 027)."""
    wrong = Problems(problems.profile)
    _NAME(value, where, wrong)
    if wrong.texts:
        kind = type(value).__name__
        what = _LENGTHS if isinstance(value, str) else f"object of type '{kind}' has no len()"
        problems.add(where, what, "value_error", value)
    return value


_CREATE = Payload(
    "DatasetCreatePayload",
    {
        "name": Field(
            _NAME, required=True, before=Before(help=_NAMED, anywhere=True, check=_plain_name)
        ),
        "description": Field(_description, nullable=False, before=Before(nullable=True)),
        "indexing_technique": Field(TECHNIQUE, before=Before(help=_TECHNIQUES)),
        "permission": Field(
            words([*Permission], "enum"), before=Before(help="Invalid permission.")
        ),
        "provider": Field(text(), nullable=False),
        "external_knowledge_api_id": Field(text()),
        "external_knowledge_id": Field(text()),
        "embedding_model": Field(text()),
        "embedding_model_provider": Field(text()),
        "retrieval_model": Field(RETRIEVAL_MODEL, before=Before(model="RetrievalModel")),
    },
)


def _truth(value: object, _where: tuple[str, ...], _problems: Problems) -> object:
    return str(value).lower() == "true"


def _tag_ids(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check the tags; 1.12.1 takes the first for the list that it wants (recording 847)."""
    if problems.profile.tag_filter:
        return items(text())(value, where, problems)
    first = value[0] if isinstance(value, list) else value
    problems.add(where, "Input should be a valid list", "list_type", first)
    return []


_LIST = Payload(
    "DatasetListQuery",
    PAGING
    | {
        "keyword": Field(text()),
        "include_all": Field(flag, before=Before(check=_truth)),
        "tag_ids": Field(_tag_ids),
    },
)


def read_create(context: Context, raw: object) -> CreateDataset:
    """Read a new dataset."""
    return codec.decode(CreateDataset, _CREATE.read(raw, context.profile))


def read_list(context: Context, raw: object) -> ListDatasets:
    """Read which datasets are asked for."""
    return codec.decode(ListDatasets, _LIST.read(raw, context.profile))


_UPDATE = Payload(
    "DatasetUpdatePayload",
    {
        "name": Field(_NAME, before=Before(help=_NAMED, nullable=False, check=_plain_name)),
        "description": Field(_description),
        "indexing_technique": Field(TECHNIQUE, before=Before(help=_TECHNIQUES)),
        "permission": Field(
            words([*Permission], "enum"), before=Before(help="Invalid permission.")
        ),
        "embedding_model": Field(text()),
        "embedding_model_provider": Field(text()),
        "retrieval_model": Field(RETRIEVAL_MODEL, before=Before(check=anything)),
        "partial_member_list": Field(items(record({"user_id": Field(text(), required=True)}))),
        "external_retrieval_model": Field(anything),
        "external_knowledge_id": Field(text()),
        "external_knowledge_api_id": Field(text()),
    },
)


def read_update(context: Context, raw: object) -> UpdateDataset:
    """Read changes of a dataset."""
    fields = _UPDATE.read(raw, context.profile)
    if isinstance(raw, dict) and "description" in raw:
        # Of all fields, only a description can be made null.
        fields["description"] = raw["description"]
    return codec.decode(UpdateDataset, fields)
