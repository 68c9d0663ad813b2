"""Which models a call asks for, and what is refused about them, in the order of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import stand_ins
from .refused import RefusedError, invalid_param
from .stand_ins import ModelError

if TYPE_CHECKING:
    from dify_kb.models import RetrievalModel, Unset

    from .context import Context
    from .profile import Profile


def no_model(profile: Profile) -> str:
    """Say that there is no default model, as this version does."""
    return f"Default model not found for {profile.no_model}"


def check_provider(context: Context, provider: str | Unset | None, model: str | Unset) -> None:
    """Refuse a model of a provider that there is not; nobody asks for the model (902, 903)."""
    if not provider or not model:
        return
    if not context.models:
        raise invalid_param(f"Provider {provider} does not exist.")
    try:
        stand_ins.require_provider(provider)
    except ModelError as error:
        raise invalid_param(str(error)) from error


def check_reranking(context: Context, wanted: RetrievalModel | Unset | None) -> None:
    """Refuse settings that name a reranking model of no provider (recording 906)."""
    model = wanted.reranking_model if wanted else None
    if model:
        name = model.reranking_model_name or ""
        check_provider(context, model.reranking_provider_name, name)


def embedding(
    context: Context,
    provider: str | Unset,
    model: str | Unset,
    *,
    code: str = "invalid_param",
) -> tuple[str, str]:
    """Take the named embedding model, or the default one where either name is missing (905).

    Raises:
        RefusedError: there is no default one.
    """
    if not context.models:
        raise RefusedError(400, code, no_model(context.profile))
    if provider and model:
        return provider, model
    return stand_ins.PROVIDER, stand_ins.EMBEDDING
