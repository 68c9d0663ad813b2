"""Models are named as other commands take them."""

from __future__ import annotations

import pytest

from dify_kb import KnowledgeError, ModelProvider, ModelType
from dify_kb.cli.models import Offer, one_of
from dify_kb.models import ProviderModel


def offers(*names: str) -> list[Offer]:
    split = [name.split(":") for name in names]
    return [
        Offer(
            ModelType.RERANK,
            ModelProvider(provider=provider, models=[]),
            ProviderModel(model=model),
        )
        for provider, model in split
    ]


@pytest.mark.parametrize("name", ["a/b/b:small", "small"])
def test_a_model_is_chosen_by_its_full_name_or_its_own(name: str) -> None:
    assert one_of(name, offers("a/b/b:small", "a/b/b:large")).name == "a/b/b:small"


def test_a_model_of_two_providers_gets_the_names_to_choose_from() -> None:
    with pytest.raises(KnowledgeError, match="Pass one of x:small, y:small"):
        one_of("small", offers("x:small", "y:small"))


def test_an_unknown_model_gets_the_nearest() -> None:
    with pytest.raises(KnowledgeError, match="Did you mean 'small' or 'x:small'"):
        one_of("smal", offers("x:small", "y:enormous"))
