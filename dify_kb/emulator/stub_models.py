"""The models that the emulator offers: one that embeds and one that reranks, and neither learned.

They stand in for real ones, so that everything works that needs one: searches find what shares
words, or letters of words, with the question, and nothing else.
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
    """A model is asked for that nobody offers, or fails; the text is the one of the error."""


def full_provider_name(provider: str) -> str:
    """Complete a short provider id, as servers do (recording 904)."""
    if not _SHORT_PROVIDER_ID.fullmatch(provider):
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
        label=_localize("Stand-ins of the emulator"),
        extra={"tenant_id": tenant, "icon_small": None, "icon_small_dark": None},
    )
    return [provider]


def _localize(text: str) -> dict[str, object]:
    return {"zh_Hans": text, "en_US": text}


def no_default_model_message(profile: ServerProfile) -> str:
    """Say that there is no default model, as this version does."""
    return f"Default model not found for {profile.default_model_type}"


def check_provider(
    context: RequestContext, provider: str | Unset | None, model: str | Unset
) -> None:
    """Refuse a model of a provider that there is not; nobody asks for the model (902, 903)."""
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
    """Refuse settings that name a reranking model of no provider (recording 906)."""
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
    """Take the named embedding model, or the default one where either name is missing (905).

    Raises:
        EmulatedError: there is no default one.
    """
    if not context.has_models:
        raise EmulatedError(400, code, no_default_model_message(context.profile))
    if provider and model:
        return provider, model
    return PROVIDER_NAME, EMBEDDING_MODEL
