"""The models that the emulator offers: one that embeds and one that reranks, and neither learned.

They stand in for real ones, so that everything works that needs one: searches find what shares
words, or letters of words, with the question, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dify_kb.models import ModelProvider, ModelType, ProviderModel

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVIDER_NAME: Final = "dify-kb/emulator/stand-in"
EMBEDDING_MODEL: Final = "hashed-n-grams"
RERANKING_MODEL: Final = "word-overlap"

_MODELS: Final[Mapping[str, tuple[str, str, Mapping[str, object]]]] = {
    ModelType.TEXT_EMBEDDING: (
        EMBEDDING_MODEL,
        "Hashed n-grams, a stand-in for an embedding model",
        {"context_size": 8191, "max_chunks": 32},
    ),
    ModelType.RERANK: (
        RERANKING_MODEL,
        "Word overlap, a stand-in for a reranking model",
        {"context_size": 5120},
    ),
}

_SHORT: Final = re.compile(r"[a-z0-9_-]+")


class ModelError(Exception):
    """A model is asked for that nobody offers, or fails; the text is the one of the error."""


InvokeModel = Callable[[str], None]
"""Calls a model by its name; raises a `ModelError` where that is planned to fail."""


def full_provider_name(provider: str) -> str:
    """Complete a short provider id, as servers do (recording 904)."""
    if not _SHORT.fullmatch(provider):
        return provider
    return (
        PROVIDER_NAME
        if PROVIDER_NAME.endswith(f"/{provider}")
        else f"langgenius/{provider}/{provider}"
    )


def is_embedding_model(provider: str | None, model: str | None) -> bool:
    """Tell whether this is the model that embeds."""
    return (provider, model) == (PROVIDER_NAME, EMBEDDING_MODEL)


def require_embedding_model(provider: str | None, model: str | None) -> None:
    """Make sure of the model of a dataset, whose name nobody checked when it was set.

    Raises:
        ModelError: it is another one.
    """
    if not is_embedding_model(full_provider_name(provider or ""), model):
        raise ModelError(f"Model {model} does not exist.")


def require_reranking_model(provider: str, model: str) -> None:
    """Make sure of the model that a search names.

    Raises:
        ModelError: it is another one.
    """
    require_provider(provider)
    if model != RERANKING_MODEL:
        raise ModelError(f"Model {model} does not exist.")


def require_provider(provider: str) -> None:
    """Make sure of a provider (recording 903).

    Raises:
        ModelError: there is no such provider.
    """
    if full_provider_name(provider) != PROVIDER_NAME:
        raise ModelError(f"Provider {provider} does not exist.")


def count_tokens(content: str) -> int:
    """Count what a text costs to embed: a token for every four characters, and one."""
    return len(content) // 4 + 1


def list_providers(model_type: str, tenant: str) -> list[ModelProvider]:
    """List the models of a type, as a workspace does."""
    if model_type not in _MODELS:
        return []
    name, label, properties = _MODELS[model_type]
    model = ProviderModel(
        model=name,
        model_type=model_type,
        status="active",
        label=_label(label),
        model_properties=properties,
        extra={
            "features": None,
            "fetch_from": "predefined-model",
            "load_balancing_enabled": False,
            "has_invalid_load_balancing_configs": False,
        },
    )
    provider = ModelProvider(
        provider=PROVIDER_NAME,
        models=[model],
        status="active",
        label=_label("Stand-ins of the emulator"),
        extra={"tenant_id": tenant, "icon_small": None, "icon_small_dark": None},
    )
    return [provider]


def _label(text: str) -> dict[str, object]:
    return {"zh_Hans": text, "en_US": text}
