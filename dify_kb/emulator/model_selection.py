"""Which models a call asks for, and what is refused about them, in the order of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import stub_models
from .errors import EmulatedError, invalid_param_error
from .stub_models import ModelError

if TYPE_CHECKING:
    from dify_kb.models import RetrievalModel, Unset

    from .request_context import RequestContext
    from .server_profile import ServerProfile


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
        stub_models.require_provider(provider)
    except ModelError as error:
        raise invalid_param_error(str(error)) from error


def check_reranking_model(context: RequestContext, wanted: RetrievalModel | Unset | None) -> None:
    """Refuse settings that name a reranking model of no provider (recording 906)."""
    model = wanted.reranking_model if wanted else None
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
    return stub_models.PROVIDER_NAME, stub_models.EMBEDDING_MODEL
