"""The server's version, and the models that a workspace offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor

from ._base import OpenEnum


class ModelType(OpenEnum):
    """The task of a model."""

    TEXT_EMBEDDING = "text-embedding"
    RERANK = "rerank"
    LLM = "llm"
    TTS = "tts"
    SPEECH2TEXT = "speech2text"
    MODERATION = "moderation"


@check_constructor
@frozen(kw_only=True)
class ModelRef:
    """A model, by the full id of its provider (e.g. `langgenius/openai/openai`) and its name.

    Get both from `workspace.models`: with a short provider id, the server may later report the
    model as unavailable (models/provider_ids.py, 1.12.1).
    """

    provider: str
    model: str


@frozen(kw_only=True)
class ProviderModel:
    """A model in the list of its provider."""

    model: str
    model_type: str | None = None
    status: str | None = None
    deprecated: bool | None = None
    label: Mapping[str, object] | None = None
    model_properties: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ModelProvider:
    """A provider and its active models. Checked against the server of 1.12.1."""

    provider: str
    models: Sequence[ProviderModel]
    status: str | None = None
    label: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(factory=dict)

    def model_refs(self) -> Sequence[ModelRef]:
        """Return a reference to each model, for use in dataset and document calls."""
        return [ModelRef(provider=self.provider, model=model.model) for model in self.models]


@frozen(kw_only=True)
class ModelProviders:
    """The response of the model list."""

    data: Sequence[ModelProvider]


@frozen(kw_only=True)
class ServerInfo:
    """The response of `GET /v1/`, which needs no API key.

    1.12.1 lacks this route (recording 009): `server_version` then comes from the `X-Version`
    header, and the other fields are None.
    """

    server_version: str | None = None
    api_version: str | None = None
    welcome: str | None = None
    extra: Mapping[str, object] = field(factory=dict)
