"""Fields that several bodies have (reference.md §1.4, §1.5)."""

from __future__ import annotations

from typing import Any, Final

from dify_kb.emulator.payload import (
    Field,
    anything,
    flag,
    integer,
    items,
    number,
    record,
    text,
    words,
)
from dify_kb.emulator.refused import RefusedError, invalid_param
from dify_kb.models import UNSET, Page, SearchMethod, Unset

NO_MODEL: Final = "Default model not found for text-embedding"

TECHNIQUE: Final = words(["high_quality", "economy"])

PAGING: Final = {"page": Field(integer), "limit": Field(integer)}

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

RETRIEVAL_MODEL: Final = record(
    {
        "search_method": Field(words([*SearchMethod], "enum"), required=True),
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
        "weights": Field(anything),
        "metadata_filtering_conditions": Field(anything),
    }
)


def bounds(page: int, limit: int) -> tuple[int, int]:
    """Tell the offset and the size of a page that was asked for in any way (findings.md §4)."""
    size = min(limit, _LARGEST_PAGE) if limit >= 1 else _DEFAULT_PAGE
    return (max(page, 1) - 1) * size, size


def page_of(rows: list[Any], total: int, page: int, limit: int) -> Page[Any]:
    """Answer a page as the server does: what was asked for is echoed, and compared (§4.1)."""
    return Page(data=rows, has_more=len(rows) == limit, limit=limit, total=total, page=page)


def require_no_model(provider: str | Unset, model: str | Unset) -> None:
    """Refuse a model by name: this workspace has none."""
    if provider is not UNSET and model is not UNSET:
        raise invalid_param(f"Provider {provider} does not exist.")


def require_economy(technique: str | None, code: str = "invalid_param") -> None:
    """Refuse what needs an embedding model."""
    if technique == "high_quality":
        raise RefusedError(400, code, NO_MODEL)
