"""Request fields that several endpoints share, and pagination (server source)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.server_profile import ErrorStyle
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    LegacyField,
    ValidationErrors,
    accept_any,
    choice_validator,
    list_validator,
    object_validator,
    string_validator,
    validate_boolean,
    validate_integer,
    validate_number,
)
from dify_kb.models import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.server_profile import ServerProfile

TECHNIQUE: Final = choice_validator(["high_quality", "economy"])


def _int_or_none(value: object, _path: tuple[str, ...], _problems: ValidationErrors) -> object:
    """Return an int, or None if the value is invalid, as servers before 1.11 do (measured)."""
    try:
        return int(str(value))
    except ValueError:
        return None


PAGING: Final = {
    name: BodyField(validate_integer, legacy=LegacyField(check=_int_or_none))
    for name in ("page", "limit")
}

_MAX_PAGE_SIZE: Final = 100
_DEFAULT_PAGE_SIZE: Final = 20

_PRE_PROCESSING_RULE = object_validator(
    {
        "id": BodyField(string_validator(), required=True),
        "enabled": BodyField(validate_boolean, required=True),
    }
)

_SEGMENTATION = BodyField(
    object_validator(
        {
            "separator": BodyField(string_validator()),
            "max_tokens": BodyField(validate_integer, required=True),
            "chunk_overlap": BodyField(validate_integer),
        }
    )
)

PROCESS_RULE: Final = object_validator(
    {
        "mode": BodyField(choice_validator(["automatic", "custom", "hierarchical"]), required=True),
        "rules": BodyField(
            object_validator(
                {
                    "pre_processing_rules": BodyField(list_validator(_PRE_PROCESSING_RULE)),
                    "segmentation": _SEGMENTATION,
                    "parent_mode": BodyField(choice_validator(["full-doc", "paragraph"])),
                    "subchunk_segmentation": _SEGMENTATION,
                }
            )
        ),
    }
)


def _check_stored_method(
    value: object, path: tuple[str, ...], problems: ValidationErrors
) -> object:
    """Check that this version can store a search method (measured)."""
    error_type = "enum" if problems.profile.error_style is ErrorStyle.PYDANTIC else "literal_error"
    return choice_validator(problems.profile.storable_search_methods, error_type)(
        value, path, problems
    )


_WEIGHT_TYPE: Final = choice_validator(["semantic_first", "keyword_first", "customized"])


def _check_weight_type(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a weight type where search settings are validated (1849)."""
    is_checked = problems.profile.quirks.validates_search
    return (_WEIGHT_TYPE if is_checked else string_validator())(value, path, problems)


_WEIGHTS: Final = object_validator(
    {
        "weight_type": BodyField(_check_weight_type),
        "vector_setting": BodyField(
            object_validator(
                {
                    "vector_weight": BodyField(validate_number, required=True),
                    "embedding_provider_name": BodyField(string_validator(), required=True),
                    "embedding_model_name": BodyField(string_validator(), required=True),
                }
            )
        ),
        "keyword_setting": BodyField(
            object_validator({"keyword_weight": BodyField(validate_number, required=True)})
        ),
    }
)

RETRIEVAL_MODEL: Final = object_validator(
    {
        "search_method": BodyField(_check_stored_method, required=True),
        "reranking_enable": BodyField(validate_boolean, required=True),
        "reranking_model": BodyField(
            object_validator(
                {
                    "reranking_provider_name": BodyField(string_validator()),
                    "reranking_model_name": BodyField(string_validator()),
                }
            )
        ),
        "reranking_mode": BodyField(string_validator()),
        "top_k": BodyField(validate_integer, required=True),
        "score_threshold_enabled": BodyField(validate_boolean, required=True),
        "score_threshold": BodyField(validate_number),
        "weights": BodyField(_WEIGHTS),
        "metadata_filtering_conditions": BodyField(accept_any),
    }
)


def compute_page_bounds(page: int, limit: int) -> tuple[int, int]:
    """Return the offset and size of a page; out-of-range values are corrected (measured)."""
    size = min(limit, _MAX_PAGE_SIZE) if limit >= 1 else _DEFAULT_PAGE_SIZE
    return (max(page, 1) - 1) * size, size


def build_page(rows: list[Any], total: int, page: int, limit: int) -> Page[Any]:
    """Build a page; `has_more` means that it has exactly `limit` rows (measured)."""
    return Page(data=rows, has_more=len(rows) == limit, limit=limit, total=total, page=page)


_FIRST_PAGE = 1
_DEFAULT_LIMIT = 20


def parse_page_and_limit(query: Mapping[str, Any]) -> tuple[int, int]:
    """Parse page and limit; an invalid number becomes the default (recordings 509, 510)."""
    return _int_or_default(query.get("page"), _FIRST_PAGE), _int_or_default(
        query.get("limit"), _DEFAULT_LIMIT
    )


def check_page_and_limit(
    title: str, page: int, limit: int, profile: ServerProfile
) -> tuple[int, int]:
    """Return page and limit; refuse values below 1 (recordings 607, 609).

    Raises:
        EmulatedError: 400, page or limit is below 1.
    """
    payload = BodySchema(
        title, {"page": BodyField(_check_positive), "limit": BodyField(_check_positive)}
    )
    payload.validate_with_pydantic({"page": page, "limit": limit}, profile)
    return page, limit


def _int_or_default(value: object, default: int) -> int:
    try:
        return int(str(value))
    except ValueError:
        return default


def _check_positive(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    if isinstance(value, int) and value < 1:
        message = "Input should be greater than or equal to 1"
        problems.add(path, message, "greater_than_equal", value)
    return value
