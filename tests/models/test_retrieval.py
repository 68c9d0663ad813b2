"""Search settings: conditions, weights, and errors that the server would silently ignore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from attrs import evolve

from dify_kb import ConfigError, presets
from dify_kb.models import (
    ComparisonOperator,
    Condition,
    Field,
    MetadataFilter,
    MetadataValue,
    ModelRef,
    RerankingMode,
    RerankingModel,
    RetrievalModel,
    SearchMethod,
    Weights,
    validate_retrieval_model,
)
from dify_kb.wire import codec

EMBEDDING = ModelRef(provider="langgenius/openai/openai", model="text-embedding-3-small")
RERANK = ModelRef(provider="langgenius/cohere/cohere", model="rerank-v3.5")
YEAR = Field("year")
TEAM = Field("team")

CONDITIONS: list[tuple[Callable[[], object], str, object]] = [
    (lambda: YEAR == 2024, "=", 2024),
    (lambda: TEAM == "infra", "=", "infra"),
    (lambda: YEAR != 2024, "≠", 2024),
    (lambda: YEAR > 2024, ">", 2024),
    (lambda: YEAR < 2024.5, "<", 2024.5),
    (lambda: YEAR >= 2024, "≥", 2024),
    (lambda: YEAR <= 2024, "≤", 2024),
    (lambda: YEAR.before(1795248442), "before", 1795248442),
    (lambda: YEAR.after(1795248442), "after", 1795248442),
    (lambda: YEAR.after(datetime(2024, 12, 31, tzinfo=UTC)), "after", 1735603200.0),
    (lambda: TEAM.contains("fra"), "contains", "fra"),
    (lambda: TEAM.not_contains("fra"), "not contains", "fra"),
    (lambda: TEAM.starts_with("in"), "start with", "in"),
    (lambda: TEAM.ends_with("ra"), "end with", "ra"),
    (lambda: TEAM.is_("infra"), "is", "infra"),
    (lambda: TEAM.is_not("infra"), "is not", "infra"),
    (TEAM.empty, "empty", None),
    (TEAM.not_empty, "not empty", None),
    (lambda: TEAM.in_(["infra", "web"]), "in", ["infra", "web"]),
    (lambda: TEAM.not_in(("infra", "web")), "not in", ["infra", "web"]),
]

WRONG: list[Callable[[], object]] = [
    lambda: TEAM == None,  # noqa: E711 -- what a caller may write
    lambda: TEAM != None,  # noqa: E711 -- likewise
    lambda: TEAM == True,  # noqa: E712 -- likewise
    lambda: TEAM == ["infra"],
    lambda: TEAM == {"a": 1},
    lambda: TEAM > "2024",  # type: ignore[operator]  # what an untyped caller may write
    lambda: TEAM >= True,
    lambda: TEAM < None,  # type: ignore[operator]  # likewise
    lambda: TEAM.before(datetime(2024, 1, 1)),  # noqa: DTZ001 -- that is the mistake
    lambda: TEAM.before("2024-01-01"),  # type: ignore[arg-type]  # likewise
    lambda: TEAM.contains(5),  # type: ignore[arg-type]  # likewise
    lambda: TEAM.starts_with(None),  # type: ignore[arg-type]  # likewise
    lambda: TEAM.is_(None),  # type: ignore[arg-type]  # likewise
    lambda: TEAM.in_("infra"),
    lambda: TEAM.not_in("infra"),
]


# --- conditions


@pytest.mark.parametrize(("build", "operator", "value"), CONDITIONS)
def test_a_comparison_is_a_condition(
    build: Callable[[], object], operator: str, value: object
) -> None:
    """Also `==`, which must not return a bool."""
    condition = build()

    assert isinstance(condition, Condition)
    assert condition.comparison_operator.is_known
    name = "year" if isinstance(value, int | float) else "team"
    assert codec.encode(condition) == {
        "name": name,
        "comparison_operator": operator,
        "value": value,
    }


def test_every_operator_of_the_server_can_be_written() -> None:
    """Otherwise callers would have to write the operator's sign themselves."""
    assert {operator for _, operator, _ in CONDITIONS} == set(ComparisonOperator)


@pytest.mark.parametrize("build", WRONG)
def test_a_value_that_means_nothing_is_refused_by_name(build: Callable[[], object]) -> None:
    """The server ignores a condition without a value, and then returns all documents."""
    with pytest.raises(ConfigError, match="team") as raised:
        build()

    assert raised.value.hint


def test_comparison_with_none_is_refused() -> None:
    """People write `== None` to test for a missing value."""
    with pytest.raises(ConfigError, match=r"empty\(\)"):
        _ = TEAM == None  # noqa: E711 -- the point


def test_a_field_is_not_hashable() -> None:
    """Comparisons return a truthy condition, so that a lookup in any dict would succeed."""
    with pytest.raises(TypeError):
        hash(TEAM)


@pytest.mark.parametrize(
    ("build", "word"), [(MetadataFilter.all_of, "and"), (MetadataFilter.any_of, "or")]
)
def test_conditions_are_joined_by_a_logical_operator(
    build: Callable[..., MetadataFilter], word: str
) -> None:
    """The field names are those of the server's request model."""
    both = build(YEAR >= 2024, TEAM.contains("fra"))

    assert codec.encode(both) == {
        "logical_operator": word,
        "conditions": [
            {"name": "year", "comparison_operator": "≥", "value": 2024},
            {"name": "team", "comparison_operator": "contains", "value": "fra"},
        ],
    }


@pytest.mark.parametrize(
    ("combined", "expected"),
    [
        ((YEAR >= 2024) & (TEAM == "a"), MetadataFilter.all_of(YEAR >= 2024, TEAM == "a")),
        ((YEAR >= 2024) | (TEAM == "a"), MetadataFilter.any_of(YEAR >= 2024, TEAM == "a")),
        (
            (YEAR >= 2024) & (YEAR < 2026) & (TEAM == "a"),
            MetadataFilter.all_of(YEAR >= 2024, YEAR < 2026, TEAM == "a"),
        ),
        (
            (YEAR == 1) | MetadataFilter.all_of(TEAM == "a"),
            MetadataFilter.any_of(YEAR == 1, TEAM == "a"),
        ),
    ],
)
def test_conditions_are_combined_by_operators(
    combined: MetadataFilter, expected: MetadataFilter
) -> None:
    """As in SQLAlchemy, pandas or Polars."""
    assert combined == expected


def test_both_operators_in_one_filter_are_refused() -> None:
    """The server has one logical operator for all conditions."""
    with pytest.raises(ConfigError, match=r"both & and \|"):
        _ = ((YEAR >= 2024) & (TEAM == "a")) | (TEAM == "b")


@pytest.mark.parametrize(
    "build",
    [
        lambda: TEAM & YEAR,
        lambda: TEAM | YEAR,
        lambda: (TEAM == "a") & YEAR,
        lambda: YEAR == 1 & TEAM,
        lambda: YEAR == 1 | TEAM,
    ],
)
def test_a_field_without_comparison_is_refused_at_once(build: Callable[[], object]) -> None:
    """`YEAR == 1 & TEAM` means `YEAR == (1 & TEAM)`."""
    with pytest.raises(TypeError, match=r"\(Field\('(team|year)'\) == 1\) & "):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: (YEAR == 1) and (TEAM == "a"),
        lambda: 2020 < YEAR < 2024,
        lambda: bool(YEAR == 1),
        lambda: YEAR in [1, 2],
    ],
)
def test_a_condition_is_neither_true_nor_false(build: Callable[[], object]) -> None:
    """`a and b` would silently be `b`."""
    with pytest.raises(TypeError, match=r"combine with & or \|"):
        build()


@pytest.mark.parametrize("build", [MetadataFilter.all_of, MetadataFilter.any_of])
@pytest.mark.parametrize("other", ["y", None, TEAM, {"name": "team"}])
def test_an_argument_that_is_not_a_condition_is_refused_by_name(
    build: Callable[..., MetadataFilter], other: object
) -> None:
    """It would fail while the request is encoded, with an error about attrs."""
    with pytest.raises(TypeError, match=r"conditions\[1\] must be a Condition"):
        build(YEAR == 1, other)


def test_a_null_in_a_list_is_refused() -> None:
    """`str(None)` would search for the text `None`."""
    with pytest.raises(ConfigError, match="the value None is neither"):
        TEAM.in_(["a", None])  # type: ignore[list-item]  # the point


def test_a_single_condition_is_a_filter() -> None:
    """Most filters have one condition."""
    model = RetrievalModel.semantic(metadata_filter=YEAR >= 2024)

    assert model.metadata_filtering_conditions == MetadataFilter.all_of(YEAR >= 2024)


@pytest.mark.parametrize("build", [MetadataFilter.all_of, MetadataFilter.any_of])
def test_a_filter_without_conditions_is_refused(build: Callable[[], MetadataFilter]) -> None:
    """The search would return all documents, or none."""
    with pytest.raises(ConfigError, match="no condition"):
        build()


def test_a_filter_with_an_unknown_operator_is_refused_by_name() -> None:
    """With `>=` instead of `≥`, some versions return 400 and others ignore the condition."""
    spelt = Condition(name="year", comparison_operator=ComparisonOperator(">="), value=2024)
    model = RetrievalModel.keyword()

    with pytest.raises(
        ConfigError, match="Unknown operator '>=' in the condition on 'year'"
    ) as raised:
        RetrievalModel.keyword(top_k=1, metadata_filter=MetadataFilter.all_of(spelt))

    assert "≥" in raised.value.hint
    assert validate_retrieval_model(model) is model


@pytest.mark.parametrize("value", [None, []])
def test_a_condition_without_a_value_is_refused_by_name(value: Any) -> None:
    """The server ignores the condition, and returns documents that it should exclude."""
    search = RetrievalModel.keyword()
    conditions = [Condition(name="year", comparison_operator=ComparisonOperator.IN, value=value)]
    filtered = evolve(search, metadata_filtering_conditions=MetadataFilter(conditions=conditions))

    with pytest.raises(ConfigError, match="'year' has no value"):
        validate_retrieval_model(filtered)


def test_emptiness_needs_no_value() -> None:
    bare = MetadataFilter.all_of(Field("year").empty(), Field("team").not_empty())

    assert validate_retrieval_model(RetrievalModel.keyword(metadata_filter=bare)).top_k


def test_a_filter_is_sent_inside_the_retrieval_model() -> None:
    """The server ignores a filter elsewhere in the request (measured)."""
    wanted = MetadataFilter.all_of(YEAR == 2024)

    encoded: Any = codec.encode(RetrievalModel.semantic(metadata_filter=wanted))

    assert encoded["metadata_filtering_conditions"]["conditions"][0]["name"] == "year"


@pytest.mark.parametrize("value", ["infra", 2024, 0.5, ["a", "b"], None])
def test_a_condition_round_trips(value: object) -> None:
    """The embedded server reads with the same models."""
    came = {"name": "team", "comparison_operator": "is", "value": value}

    condition = codec.decode(Condition, came)

    assert codec.encode(condition) == came


@pytest.mark.parametrize("value", [{"a": 1}, ["a", 1], [["a"]]])
def test_a_condition_of_another_shape_is_a_decode_error(value: object) -> None:
    with pytest.raises(codec.DecodeError, match=r"\$\.value"):
        codec.decode(Condition, {"name": "a", "comparison_operator": "is", "value": value})


@pytest.mark.parametrize("value", ["a", 7, 0.5, None])
def test_a_metadata_value_round_trips(value: object) -> None:
    """Numbers must stay numbers, as filters do not match numbers sent as strings."""
    came = {"id": "m1", "name": "year", "value": value}

    assert codec.encode(codec.decode(MetadataValue, came)) == came


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_metadata_value_of_another_shape_is_a_decode_error(value: object) -> None:
    with pytest.raises(codec.DecodeError, match=r"\$\.value"):
        codec.decode(MetadataValue, {"id": "m1", "name": "year", "value": value})


# --- searches


def test_weights_are_nested_as_the_server_wants_them() -> None:
    """The server ignores weights in another form, and the search then finds nothing."""
    encoded: Any = codec.encode(RetrievalModel.hybrid_weighted(embedding=EMBEDDING))

    assert encoded["search_method"] == "hybrid_search"
    assert encoded["reranking_mode"] == "weighted_score"
    assert encoded["reranking_enable"] is False
    assert encoded["weights"] == {
        "weight_type": "customized",
        "vector_setting": {
            "vector_weight": 0.7,
            "embedding_provider_name": "langgenius/openai/openai",
            "embedding_model_name": "text-embedding-3-small",
        },
        "keyword_setting": {"keyword_weight": 0.3},
    }


@pytest.mark.parametrize(("vector", "keyword"), [(0, 1), (1, 0), (0.9, 0.1), (0.55, 0.45)])
def test_weights_add_up_to_one(vector: float, keyword: float) -> None:
    """The keyword weight must be rounded: 0.1, not 0.09999999999999998."""
    model = RetrievalModel.hybrid_weighted(embedding=EMBEDDING, vector_weight=vector)

    assert isinstance(model.weights, Weights)
    assert model.weights.keyword_setting is not None
    assert model.weights.keyword_setting.keyword_weight == keyword


@pytest.mark.parametrize("weight", [-0.1, 1.1, 70])
def test_a_weight_outside_of_its_range_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="vector_weight"):
        RetrievalModel.hybrid_weighted(embedding=EMBEDDING, vector_weight=weight)


@pytest.mark.parametrize(
    "build",
    [
        RetrievalModel.semantic,
        RetrievalModel.full_text,
        RetrievalModel.hybrid_reranked,
    ],
)
def test_a_reranking_model_is_named_in_the_words_of_the_server(
    build: Callable[..., RetrievalModel],
) -> None:
    """`reranking_mode` is a string, `reranking_model` an object."""
    model = build(rerank=RERANK, top_k=7, score_threshold=0.4)

    assert codec.encode(model) == {
        "search_method": str(model.search_method),
        "reranking_enable": True,
        "reranking_mode": "reranking_model",
        "reranking_model": {
            "reranking_provider_name": "langgenius/cohere/cohere",
            "reranking_model_name": "rerank-v3.5",
        },
        "top_k": 7,
        "score_threshold_enabled": True,
        "score_threshold": 0.4,
    }


@pytest.mark.parametrize("threshold", [-0.01, 1.01, 50])
@pytest.mark.parametrize("build", [RetrievalModel.semantic, RetrievalModel.full_text])
def test_a_threshold_outside_of_its_range_is_refused(
    build: Callable[..., RetrievalModel], threshold: float
) -> None:
    """Scores are between 0 and 1: a threshold of 50 never finds anything."""
    with pytest.raises(ConfigError, match="score_threshold"):
        build(score_threshold=threshold)


@pytest.mark.parametrize(
    "weights",
    [0.7, 0.0, {}, {"vector_search": 0.7, "keyword_search": 0.3}],
    ids=["a number", "zero", "an empty object", "two numbers"],
)
def test_weights_in_another_form_are_refused(weights: Any) -> None:
    """The forms shown in two documentation pages: the server returns 200 and finds nothing."""
    with pytest.raises(TypeError, match=r"^weights must be a Weights or None, not "):
        RetrievalModel(search_method=SearchMethod.HYBRID, weights=weights)


@pytest.mark.parametrize("word", ["fuzzy", "vector_search", ""])
def test_an_unknown_search_method_is_refused_when_the_model_is_built(word: str) -> None:
    """Not only by the search, far from the mistake. A method that a server sent is kept."""
    with pytest.raises(ConfigError, match=f"Unknown search_method '{word}'"):
        RetrievalModel(search_method=cast("SearchMethod", word))
    assert RetrievalModel(search_method=SearchMethod("fuzzy")).search_method == "fuzzy"


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_retrieval_model_with_top_k_below_one_is_refused(top_k: int) -> None:
    """0 finds nothing and -1 all but the last (measured)."""
    with pytest.raises(ConfigError, match="top_k"):
        validate_retrieval_model(RetrievalModel(search_method=SearchMethod.KEYWORD, top_k=top_k))


@pytest.mark.parametrize("threshold", [-0.5, 1.5])
def test_a_score_threshold_is_validated(threshold: float) -> None:
    with pytest.raises(ConfigError, match="score_threshold"):
        validate_retrieval_model(
            RetrievalModel(search_method=SearchMethod.SEMANTIC, score_threshold=threshold)
        )


def test_vector_search_is_answered_with_the_right_search_method() -> None:
    """The documentation mentions `vector_search`, with which servers up to 1.8 find nothing."""
    model = RetrievalModel(search_method=SearchMethod("vector_search"))

    with pytest.raises(ConfigError, match="vector_search") as raised:
        validate_retrieval_model(model)

    assert raised.value.hint == "Use semantic_search."


def test_an_unknown_search_method_error_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="hybrid_search, keyword_search"):
        validate_retrieval_model(RetrievalModel(search_method=SearchMethod("magic")))


def test_weights_may_be_none_or_unset() -> None:
    for model in (
        RetrievalModel(search_method=SearchMethod.HYBRID),
        RetrievalModel(search_method=SearchMethod.HYBRID, weights=None, score_threshold=None),
        RetrievalModel.hybrid_weighted(embedding=EMBEDDING),
    ):
        assert validate_retrieval_model(model) is model


# --- presets


def test_the_preset_reranks() -> None:
    """The guide recommends both, but with reranking the server ignores weights (measured)."""
    model = presets.bedrock_hybrid(top_k=6)

    assert model.search_method is SearchMethod.HYBRID
    assert model.reranking_enable
    assert model.reranking_mode is RerankingMode.RERANKING_MODEL
    assert model.reranking_model == RerankingModel(
        reranking_provider_name="langgenius/bedrock/bedrock",
        reranking_model_name="cohere.rerank-v3-5:0",
    )
    assert not model.weights
    assert model.top_k == 6


def test_the_preset_weighs_when_it_does_not_rerank() -> None:
    """The weights are 0.7 and 0.3, in the form that the server accepts."""
    encoded: Any = codec.encode(presets.bedrock_hybrid(rerank=False))

    assert encoded["reranking_enable"] is False
    assert encoded["weights"]["vector_setting"] == {
        "vector_weight": 0.7,
        "embedding_provider_name": "langgenius/bedrock/bedrock",
        "embedding_model_name": "amazon.titan-embed-text-v2:0",
    }
    assert encoded["weights"]["keyword_setting"] == {"keyword_weight": 0.3}
    assert encoded["top_k"] == 4
