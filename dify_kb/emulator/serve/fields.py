"""Fields that several bodies have (server source)."""

from __future__ import annotations

from typing import Any, Final

from dify_kb.emulator.payload import (
    Before,
    Field,
    Problems,
    anything,
    flag,
    integer,
    items,
    number,
    record,
    text,
    words,
)
from dify_kb.emulator.profile import Wording
from dify_kb.models import Page

TECHNIQUE: Final = words(["high_quality", "economy"])


def _lenient(value: object, _where: tuple[str, ...], _problems: Problems) -> object:
    """Take a number, or the default: what servers before 1.11 do (measured)."""
    try:
        return int(str(value))
    except ValueError:
        return None


PAGING: Final = {name: Field(integer, before=Before(check=_lenient)) for name in ("page", "limit")}

_LARGEST_PAGE: Final = 100
_DEFAULT_PAGE: Final = 20

_STEP = record({"id": Field(text(), required=True), "enabled": Field(flag, required=True)})

_SEGMENTATION = Field(
    record(
        {
            "separator": Field(text()),
            "max_tokens": Field(integer, required=True),
            "chunk_overlap": Field(integer),
        }
    )
)

PROCESS_RULE: Final = record(
    {
        "mode": Field(words(["automatic", "custom", "hierarchical"]), required=True),
        "rules": Field(
            record(
                {
                    "pre_processing_rules": Field(items(_STEP)),
                    "segmentation": _SEGMENTATION,
                    "parent_mode": Field(words(["full-doc", "paragraph"])),
                    "subchunk_segmentation": _SEGMENTATION,
                }
            )
        ),
    }
)


def _stored_method(value: object, where: tuple[str, ...], problems: Problems) -> object:
    """Check a search method by what this version may store (measured)."""
    kind = "enum" if problems.profile.wording is Wording.PYDANTIC else "literal_error"
    return words(problems.profile.stored_methods, kind)(value, where, problems)


_WEIGHTS: Final = record(
    {
        "weight_type": Field(text()),
        "vector_setting": Field(
            record(
                {
                    "vector_weight": Field(number, required=True),
                    "embedding_provider_name": Field(text(), required=True),
                    "embedding_model_name": Field(text(), required=True),
                }
            )
        ),
        "keyword_setting": Field(record({"keyword_weight": Field(number, required=True)})),
    }
)

RETRIEVAL_MODEL: Final = record(
    {
        "search_method": Field(_stored_method, required=True),
        "reranking_enable": Field(flag, required=True),
        "reranking_model": Field(
            record(
                {
                    "reranking_provider_name": Field(text()),
                    "reranking_model_name": Field(text()),
                }
            )
        ),
        "reranking_mode": Field(text()),
        "top_k": Field(integer, required=True),
        "score_threshold_enabled": Field(flag, required=True),
        "score_threshold": Field(number),
        "weights": Field(_WEIGHTS),
        "metadata_filtering_conditions": Field(anything),
    }
)


def bounds(page: int, limit: int) -> tuple[int, int]:
    """Tell the offset and the size of a page that was asked for in any way (measured)."""
    size = min(limit, _LARGEST_PAGE) if limit >= 1 else _DEFAULT_PAGE
    return (max(page, 1) - 1) * size, size


def page_of(rows: list[Any], total: int, page: int, limit: int) -> Page[Any]:
    """Answer a page as the server does: what was asked for is echoed, and compared (measured)."""
    return Page(data=rows, has_more=len(rows) == limit, limit=limit, total=total, page=page)
