"""Selection of models by name."""

from __future__ import annotations

import pytest

from dify_kb import KnowledgeError, ModelProvider, ModelType
from dify_kb.cli.models import ModelOffer, select_model
from dify_kb.models import ProviderModel


def offers(*names: str) -> list[ModelOffer]:
    split = [name.split(":") for name in names]
    return [
        ModelOffer(
            ModelType.RERANK,
            ModelProvider(provider=provider, models=[]),
            ProviderModel(model=model),
        )
        for provider, model in split
    ]


@pytest.mark.parametrize("name", ["a/b/b:small", "small"])
def test_model_is_selected_by_full_or_short_name(name: str) -> None:
    assert select_model(name, offers("a/b/b:small", "a/b/b:large")).name == "a/b/b:small"


def test_ambiguous_model_error_lists_full_names() -> None:
    with pytest.raises(KnowledgeError, match="Pass one of x:small, y:small"):
        select_model("small", offers("x:small", "y:small"))


def test_unknown_model_error_suggests_similar_names() -> None:
    with pytest.raises(KnowledgeError, match="Did you mean 'small' or 'x:small'"):
        select_model("smal", offers("x:small", "y:enormous"))
