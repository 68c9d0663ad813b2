"""Presets: the retrieval settings and models of the Amazon Bedrock guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ConfigError
from .models import ModelRef, ModelType, RetrievalModel

if TYPE_CHECKING:
    from .resources import Workspace

_BEDROCK = "langgenius/bedrock/bedrock"

BEDROCK_TITAN_EMBED_V2 = ModelRef(provider=_BEDROCK, model="amazon.titan-embed-text-v2:0")
"""Amazon Titan Text Embeddings V2."""

BEDROCK_COHERE_RERANK_3_5 = ModelRef(provider=_BEDROCK, model="cohere.rerank-v3-5:0")
"""Cohere Rerank 3.5."""


def bedrock_hybrid(*, rerank: bool = True, top_k: int = 4) -> RetrievalModel:
    """Return settings for hybrid search (vector and keyword) with Bedrock's models.

    Results are reranked with Cohere Rerank 3.5. `rerank=False` combines the scores instead, with
    weights of 0.7 (vector) and 0.3 (keyword): the server ignores weights when it reranks (measured
    on 1.4.3, 1.8.1 and 1.12.1).
    """
    if rerank:
        return RetrievalModel.hybrid_reranked(rerank=BEDROCK_COHERE_RERANK_3_5, top_k=top_k)
    return RetrievalModel.hybrid_weighted(embedding=BEDROCK_TITAN_EMBED_V2, top_k=top_k)


async def check_bedrock(workspace: Workspace, *, rerank: bool = True) -> None:
    """Check that the workspace offers the models of `bedrock_hybrid`. One request per model.

    Raises:
        ConfigError: a model is missing; the message lists the available models of its type.
    """
    await _require_model(workspace, BEDROCK_TITAN_EMBED_V2, ModelType.TEXT_EMBEDDING)
    if rerank:
        await _require_model(workspace, BEDROCK_COHERE_RERANK_3_5, ModelType.RERANK)


async def _require_model(workspace: Workspace, required: ModelRef, kind: ModelType) -> None:
    offered = [ref for provider in await workspace.models(kind) for ref in provider.model_refs()]
    if required not in offered:
        names = ", ".join(f"{ref.provider}:{ref.model}" for ref in offered) or "none"
        raise ConfigError(
            f"The workspace does not offer {required.provider}:{required.model} ({kind}).",
            hint=f"Add the model in the console, or choose another. Available: {names}.",
        )
