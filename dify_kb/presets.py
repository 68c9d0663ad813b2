"""Ready-made settings: the hybrid base of the Bedrock guide, in the shape that servers take."""

from __future__ import annotations

from .models import ModelRef, RetrievalModel

_BEDROCK = "langgenius/bedrock/bedrock"

BEDROCK_TITAN_EMBED_V2 = ModelRef(provider=_BEDROCK, model="amazon.titan-embed-text-v2:0")
"""Amazon Titan Text Embeddings V2."""

BEDROCK_COHERE_RERANK_3_5 = ModelRef(provider=_BEDROCK, model="cohere.rerank-v3-5:0")
"""Cohere Rerank 3.5."""


def bedrock_hybrid(*, rerank: bool = True, top_k: int = 4) -> RetrievalModel:
    """Search by meaning and by words on Bedrock's models.

    A base either reranks or weighs: the server ignores weights when it reranks (measured on
    1.4.3, 1.8.1 and 1.12.1). So this reranks with Cohere 3.5, and `rerank=False` weighs 0.7 for
    meaning and 0.3 for words instead.
    """
    if rerank:
        return RetrievalModel.hybrid_reranked(rerank=BEDROCK_COHERE_RERANK_3_5, top_k=top_k)
    return RetrievalModel.hybrid_weighted(embedding=BEDROCK_TITAN_EMBED_V2, top_k=top_k)
