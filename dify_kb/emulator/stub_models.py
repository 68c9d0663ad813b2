"""Stub models of the emulator: one for embedding and one for reranking, both untrained.

They make every feature work that needs a model. Searches find texts that share words or letter
sequences with the query.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dify_kb.models import ModelProvider, ModelType, ProviderModel

from .errors import EmulatedError, invalid_param_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.models import RetrievalModel, Unset

    from .request_context import RequestContext
    from .server_profile import ServerProfile

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

_SHORT_PROVIDER_ID: Final = re.compile(r"[a-z0-9_-]+")


class ModelError(Exception):
    """Raised if a model or provider does not exist, or a model call fails."""


def full_provider_name(provider: str) -> str:
    """Expand a short provider id, as servers do (recording 904)."""
    if not _SHORT_PROVIDER_ID.fullmatch(provider):
        return provider
    return (
        PROVIDER_NAME
        if PROVIDER_NAME.endswith(f"/{provider}")
        else f"langgenius/{provider}/{provider}"
    )


def is_embedding_model(provider: str | None, model: str | None) -> bool:
    """Return whether this is the stub embedding model."""
    return (provider, model) == (PROVIDER_NAME, EMBEDDING_MODEL)


def require_embedding_model(provider: str | None, model: str | None) -> None:
    """Check the embedding model of a dataset, which was not checked when it was set.

    Raises:
        ModelError: the model does not exist.
    """
    if not is_embedding_model(full_provider_name(provider or ""), model):
        raise ModelError(f"Model {model} does not exist.")


def require_reranking_model(provider: str, model: str) -> None:
    """Check the reranking model of a search.

    Raises:
        ModelError: the provider or the model does not exist.
    """
    require_provider(provider)
    if model != RERANKING_MODEL:
        raise ModelError(f"Model {model} does not exist.")


def require_provider(provider: str) -> None:
    """Check that a provider exists (recording 903).

    Raises:
        ModelError: the provider does not exist.
    """
    if full_provider_name(provider) != PROVIDER_NAME:
        raise ModelError(f"Provider {provider} does not exist.")


def count_tokens(content: str) -> int:
    """Return the number of tokens to embed a text: one per four characters, plus one."""
    return len(content) // 4 + 1


def list_providers(model_type: str, tenant: str) -> list[ModelProvider]:
    """Return the providers of a workspace with their models of a type."""
    if model_type not in _MODELS:
        return []
    name, label, properties = _MODELS[model_type]
    model = ProviderModel(
        model=name,
        model_type=model_type,
        status="active",
        deprecated=False,
        label=_localize(label),
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
        label=_localize("Emulator stand-in models"),
        extra={"tenant_id": tenant, "icon_small": None, "icon_small_dark": None},
    )
    return [provider]


def _localize(text: str) -> dict[str, object]:
    return {"zh_Hans": text, "en_US": text}


def no_default_model_message(profile: ServerProfile) -> str:
    """Return the server's message about a missing default model."""
    return f"Default model not found for {profile.default_model_type}"


def check_provider(
    context: RequestContext, provider: str | Unset | None, model: str | Unset
) -> None:
    """Check the provider of a model; servers do not check the model itself (902, 903).

    Raises:
        EmulatedError: 400, the provider does not exist.
    """
    if not provider or not model:
        return
    if not context.has_models:
        raise invalid_param_error(f"Provider {provider} does not exist.")
    try:
        require_provider(provider)
    except ModelError as error:
        raise invalid_param_error(str(error)) from error


def check_reranking_model(
    context: RequestContext, retrieval_model: RetrievalModel | Unset | None
) -> None:
    """Check the provider of the reranking model in search settings (recording 906).

    Raises:
        EmulatedError: 400, the provider does not exist.
    """
    model = retrieval_model.reranking_model if retrieval_model else None
    if model:
        name = model.reranking_model_name or ""
        check_provider(context, model.reranking_provider_name, name)


def select_embedding_model(
    context: RequestContext,
    provider: str | Unset,
    model: str | Unset,
    *,
    code: str = "invalid_param",
) -> tuple[str, str]:
    """Return provider and name of the embedding model, by default the stub model (905).

    Raises:
        EmulatedError: 400 with `code`, the workspace has no models.
    """
    if not context.has_models:
        raise EmulatedError(400, code, no_default_model_message(context.profile))
    if provider and model:
        return provider, model
    return PROVIDER_NAME, EMBEDDING_MODEL
