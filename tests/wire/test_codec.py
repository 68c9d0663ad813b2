"""Conversion of models to JSON and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.errors import ConfigError
from dify_kb.models import (
    UNSET,
    ChunkingRules,
    CreateByFile,
    CreateByText,
    CreateDataset,
    CreatedDocument,
    Dataset,
    Document,
    DocumentDetail,
    DocumentStatus,
    DocumentStatuses,
    File,
    GetDocument,
    IndexingStatus,
    IndexingTechnique,
    ListDatasets,
    ModelProviders,
    Page,
    ParentMode,
    Permission,
    ProcessMode,
    ProcessRule,
    RerankingMode,
    RetrievalModel,
    RetrievalResult,
    Retrieve,
    SearchMethod,
    Segment,
    Segmentation,
    ServerInfo,
    Weights,
)
from dify_kb.wire import codec

REPLIES = [
    Page[Dataset],
    Page[Document],
    Dataset,
    CreatedDocument,
    DocumentDetail,
    DocumentStatuses,
    ModelProviders,
    RetrievalResult,
    Segment,
    ServerInfo,
]

STATUS = {"id": "d1", "indexing_status": "waiting"}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["2026-01-01T00:00:00", "1e999", "٣", "-"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def names_of(shape: object) -> list[str]:
    kind: Any = getattr(shape, "__origin__", shape)
    return [attribute.name for attribute in attrs.fields(kind)]


# --- requests


def test_unset_options_are_left_out() -> None:
    """The server applies its default only to missing fields."""
    assert codec.encode(CreateDataset(name="a")) == {"name": "a"}


def test_none_is_sent_as_null() -> None:
    """`indexing_technique: null` has a meaning: the first document determines it."""
    request = CreateDataset(name="a", indexing_technique=None)

    assert codec.encode(request) == {"name": "a", "indexing_technique": None}


def test_options_that_are_false_or_empty_are_sent() -> None:
    """False, 0 and "" are values, unlike UNSET."""
    request = CreateByFile(
        file=File(name="a.txt", content=b"", size=0), doc_language="", duplicate=False
    )

    assert codec.encode(request) == {"doc_language": "", "duplicate": False}


def test_defaults_other_than_unset_are_sent() -> None:
    """Four fields of a search are required: without one the server returns 500 (measured)."""
    assert codec.encode(RetrievalModel.keyword()) == {
        "search_method": "keyword_search",
        "reranking_enable": False,
        "top_k": 4,
        "score_threshold_enabled": False,
    }


def test_unset_is_left_out_of_nested_models() -> None:
    """With a nested `UNSET` the server would return 400, or store the text."""
    request = CreateByText(
        name="a",
        text="b",
        process_rule=ProcessRule(
            mode=ProcessMode.HIERARCHICAL,
            rules=ChunkingRules(pre_processing_rules=[], segmentation=Segmentation(max_tokens=500)),
        ),
        retrieval_model=RetrievalModel.semantic(),
    )

    encoded = codec.encode(request)

    assert isinstance(encoded, dict)
    assert encoded["process_rule"]["rules"] == {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n", "max_tokens": 500, "chunk_overlap": 0},
    }
    assert "UNSET" not in json.dumps(encoded)


def test_a_nested_option_that_is_given_is_sent() -> None:
    """Nested options that are set must be sent."""
    rules = ChunkingRules(
        pre_processing_rules=[],
        segmentation=Segmentation(max_tokens=500),
        parent_mode=ParentMode.FULL_DOC,
        subchunk_segmentation=Segmentation(max_tokens=100),
    )

    encoded = codec.encode(ProcessRule(mode=ProcessMode.HIERARCHICAL, rules=rules))

    assert isinstance(encoded, dict)
    assert encoded["rules"]["parent_mode"] == "full-doc"
    assert encoded["rules"]["subchunk_segmentation"]["max_tokens"] == 100


def test_the_file_is_not_part_of_the_json() -> None:
    """The file has its own part; in the JSON it would be sent twice."""
    request = CreateByFile(file=File(name="a.txt", content=b"secret", size=6), doc_language="en")

    assert json.loads(codec.to_json(request)) == {"doc_language": "en"}


def test_text_is_sent_as_it_is() -> None:
    """For most languages, UTF-8 is half as long as JSON escapes."""
    assert codec.to_json(Retrieve(query="数据")) == '{"query":"数据"}'.encode()


def test_text_with_surrogates_is_refused_before_it_is_sent() -> None:
    """A lone surrogate (a file name that is not UTF-8) cannot be encoded as UTF-8."""
    with pytest.raises(ConfigError, match="Unicode"):
        codec.to_json(Retrieve(query="a\udcff"))


def test_query_words_are_those_of_the_api() -> None:
    """`str(True)` is `True`, which the server treats as false or rejects."""
    request = ListDatasets(page=2, limit=5, keyword="é &", include_all=True)

    assert codec.to_query(request) == [
        ("page", "2"),
        ("limit", "5"),
        ("keyword", "é &"),
        ("include_all", "true"),
    ]


def test_a_list_in_a_query_repeats_its_name() -> None:
    """The server reads `tag_ids=a&tag_ids=b`, not a joined list."""
    parameters = codec.to_query(ListDatasets(tag_ids=["a", "b"]))

    assert parameters[2:] == [("tag_ids", "a"), ("tag_ids", "b")]


def test_a_query_without_options_is_empty() -> None:
    assert codec.to_query(GetDocument()) == []


# --- responses


def test_unknown_fields_go_to_extra_and_come_back() -> None:
    """Fields of newer servers must be kept and must not fail."""
    came = {**STATUS, "new": {"a": [1]}, "extra": "also a field"}

    status = codec.decode(DocumentStatus, came)

    assert status.extra == {"new": {"a": [1]}, "extra": "also a field"}
    encoded = codec.encode(status)
    assert isinstance(encoded, dict)
    assert {name: encoded[name] for name in came} == came


def test_unknown_fields_of_models_without_extra_are_dropped() -> None:
    """Newer servers may also add fields to envelopes, which must not fail."""
    assert codec.decode(DocumentStatuses, {"data": [], "new": 1}) == DocumentStatuses(data=())


def test_an_unknown_enum_value_is_kept() -> None:
    """A status of newer servers must be kept unchanged in both directions."""
    status = codec.decode(DocumentStatus, {**STATUS, "indexing_status": "dreaming"})

    assert status.indexing_status == "dreaming"
    assert not status.indexing_status.is_known
    assert not status.indexing_status.is_final
    assert codec.encode(status.indexing_status) == "dreaming"


def test_a_known_enum_value_is_its_member() -> None:
    """Callers compare with `is` and match on members."""
    status = codec.decode(DocumentStatus, STATUS)

    assert status.indexing_status is IndexingStatus.WAITING
    assert status.indexing_status.is_known


@pytest.mark.parametrize("word", ["COMPLETED", "known", "", "Completed", "mro"])
def test_an_enum_value_named_like_a_python_attribute_is_unknown(word: str) -> None:
    """`COMPLETED` is the name of a member, but not a value of the server."""
    status = IndexingStatus(word)

    assert not status.is_known
    assert status.value == word
    assert status != IndexingStatus.COMPLETED


def test_unknown_enum_values_compare_as_text() -> None:
    """Equal values must be equal in dicts and sets."""
    assert IndexingStatus("dreaming") == IndexingStatus("dreaming")
    assert len({IndexingStatus("dreaming"), IndexingStatus("dreaming")}) == 1
    assert "dreaming" not in IndexingStatus.__members__


@pytest.mark.parametrize("word", [None, 5, True, ["waiting"], {}])
def test_an_enum_value_that_is_not_text_is_an_error(word: object) -> None:
    """Unknown values are kept only if they are strings."""
    with pytest.raises(codec.DecodeError, match=r"\$\.indexing_status"):
        codec.decode(DocumentStatus, {**STATUS, "indexing_status": word})


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        (1795248442, datetime(2026, 11, 21, 8, 7, 22, tzinfo=UTC)),
        (1795248442.25, datetime(2026, 11, 21, 8, 7, 22, 250000, tzinfo=UTC)),
        ("1795248442", datetime(2026, 11, 21, 8, 7, 22, tzinfo=UTC)),
        ("2026-11-21T08:07:22", datetime(2026, 11, 21, 8, 7, 22, tzinfo=UTC)),
        ("2026-11-21T08:07:22Z", datetime(2026, 11, 21, 8, 7, 22, tzinfo=UTC)),
        ("2026-11-21T10:07:22+02:00", datetime(2026, 11, 21, 8, 7, 22, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_are_aware_and_utc(came: object, expected: datetime) -> None:
    """Versions send seconds, fractions or text; naive and aware times cannot be compared."""
    time = codec.decode(DocumentStatus, {**STATUS, "completed_at": came}).completed_at

    assert time is not None
    assert (time, time.tzinfo) == (expected, UTC)


@pytest.mark.parametrize("came", [True, "", "soon", [], {}, float("nan"), 1e300, float("inf")])
def test_an_invalid_time_is_none_and_kept_in_extra(came: object) -> None:
    """Users would believe 1970 if it replaced an invalid time."""
    status = codec.decode(DocumentStatus, {**STATUS, "completed_at": came})

    assert status.completed_at is None
    assert status.extra == {"completed_at": came}


@given(
    time=st.datetimes(
        min_value=datetime(1970, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001 -- likewise
        timezones=st.just(UTC),
    )
)
def test_times_round_trip(time: datetime) -> None:
    """Times keep microseconds, as the server's file times have fractions."""
    again = codec.decode(
        DocumentStatus, {**STATUS, "completed_at": codec.encode(time)}
    ).completed_at

    assert again is not None
    assert abs(again - time) <= timedelta(microseconds=1)


@given(seconds=st.integers(min_value=-(10**9), max_value=4 * 10**9))
def test_whole_seconds_round_trip(seconds: int) -> None:
    """The API uses integers; 1.0 for 1 would differ from every recording."""
    status = codec.decode(DocumentStatus, {**STATUS, "completed_at": seconds})
    encoded = codec.encode(status)

    assert isinstance(encoded, dict)
    assert encoded["completed_at"] == seconds
    assert isinstance(encoded["completed_at"], int)


def test_a_missing_field_is_an_error_that_names_its_path() -> None:
    """In a page of 100 rows, "missing id" alone would not show the row."""
    rows = {"data": [STATUS, {"indexing_status": "waiting"}]}

    with pytest.raises(codec.DecodeError, match=r"required field missing @ \$\.data\[1\]\.id"):
        codec.decode(DocumentStatuses, rows)


@pytest.mark.parametrize("came", [None, 5, True, [], {}])
def test_a_value_that_is_not_text_is_not_converted_to_text(came: object) -> None:
    """`str(None)` would look like a valid id: `None`."""
    with pytest.raises(codec.DecodeError, match=r"\$\.id"):
        codec.decode(DocumentStatus, {**STATUS, "id": came})


@pytest.mark.parametrize("came", [True, None, [], "many", float("inf"), float("nan")])
def test_a_value_that_is_not_a_number_is_an_error(came: object) -> None:
    """A count of `True` would be 1."""
    page = {"data": [], "limit": 20, "total": came, "page": 1}

    with pytest.raises(codec.DecodeError, match=r"\$\.total"):
        codec.decode(Page[Dataset], page)


@pytest.mark.parametrize("came", [{}, {"a": 1}, "", "ab", None, 5])
def test_a_value_that_is_not_a_list_is_an_error(came: object) -> None:
    """`{}` would be read as an empty list, and the text "ab" as two rows."""
    with pytest.raises(codec.DecodeError, match=r"\$\.data"):
        codec.decode(DocumentStatuses, {"data": came})


@pytest.mark.parametrize("came", [1, "yes", None, []])
def test_a_value_that_is_not_a_bool_is_not_converted(came: object) -> None:
    """Python accepts any value as a bool; JSON has only true and false."""
    row = {"id": "d1", "name": "a.txt", "indexing_status": "waiting", "enabled": True}
    page = {"data": [], "limit": 20, "total": 0, "page": 1, "has_more": came}

    assert codec.decode(Page[Dataset], page).has_more is None
    with pytest.raises(codec.DecodeError, match=r"\$\.enabled"):
        codec.decode(Document, {**row, "enabled": came})


# --- fields that nobody needs


OPTIONAL_VALUES = [
    (RetrievalResult, {"records": []}, "query", "how?"),
    (Dataset, {"id": "k", "name": "n"}, "app_count", "many"),
    (Dataset, {"id": "k", "name": "n"}, "tags", [1]),
    (Dataset, {"id": "k", "name": "n"}, "doc_metadata", {}),
    (Dataset, {"id": "k", "name": "n"}, "summary_index_setting", "on"),
    (DocumentStatus, STATUS, "completed_segments", []),
    (DocumentStatus, STATUS, "error", {"text": "x"}),
]


@pytest.mark.parametrize(("shape", "fields", "name", "came"), OPTIONAL_VALUES)
def test_an_optional_value_of_another_type_is_none_and_kept_in_extra(
    shape: type[Any], fields: dict[str, object], name: str, came: object
) -> None:
    """Dify Cloud sent `query` as text in 2026: all searches failed for a field nobody needs."""
    model = codec.decode(shape, {**fields, name: came})

    assert getattr(model, name) is None
    assert model.extra == {name: came}
    encoded = codec.encode(model)
    assert isinstance(encoded, dict)
    assert encoded[name] == came


@pytest.mark.parametrize(("shape", "fields", "name", "came"), OPTIONAL_VALUES)
def test_an_optional_value_may_be_null_or_missing(
    shape: type[Any], fields: dict[str, object], name: str, came: object
) -> None:
    """Versions omit fields, or send null."""
    assert codec.decode(shape, {**fields, name: None}) == codec.decode(shape, fields)
    assert codec.decode(shape, fields).extra == {}
    assert came is not None


def test_a_nested_model_without_extra_is_kept_whole_in_the_extra_of_its_parent() -> None:
    """A part without `extra` has no place for a value that cannot be read."""
    came = {"weight_type": "customized", "vector_setting": {"vector_weight": 0.5}}

    model = codec.decode(
        Dataset, {"id": "k", "name": "n", "retrieval_model_dict": {"weights": came}}
    )

    assert model.retrieval_model_dict is not None
    assert model.retrieval_model_dict.weights is None
    assert model.retrieval_model_dict.extra == {"weights": came}


def test_requests_are_read_strictly() -> None:
    """The embedded server rejects invalid requests, as a server does."""
    with pytest.raises(codec.DecodeError, match=r"\$\.top_k"):
        codec.decode(RetrievalModel, {"search_method": "hybrid_search", "top_k": "many"})


def test_an_ignored_value_is_logged_once_per_field(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 100 rows with the same fault must not log 100 lines."""
    monkeypatch.setattr(codec, "_logged_fields", set())
    rows = [{"id": f"k{number}", "name": "n", "icon_info": "smile"} for number in range(100)]
    page = {"data": rows, "total": 100}

    with caplog.at_level("DEBUG", logger="dify_kb.wire.codec"):
        codec.decode(Page[Dataset], page)
        codec.decode(Page[Dataset], page)

    logged = [record.getMessage() for record in caplog.records]
    (message,) = logged
    assert message.startswith("Ignored Dataset.icon_info of a response: expected an object, got")


@pytest.mark.parametrize("came", [None, [], "a", 5])
def test_a_value_that_is_not_an_object_is_an_error(came: object) -> None:
    """A list in place of an object comes from another API, or another version."""
    with pytest.raises(codec.DecodeError):
        codec.decode(Dataset, came)


def test_numbers_may_come_as_text() -> None:
    """1.8 sends some counts as strings (measured)."""
    page = codec.decode(Page[Dataset], {"data": [], "limit": "20", "total": "3", "page": 1.0})

    assert (page.limit, page.total, page.page) == (20, 3, 1)


@pytest.mark.parametrize("body", [b"", b"{", b'{"data": [', b"\xff", b"<html>", b"[" * 100_000])
def test_invalid_json_is_a_decode_error(body: bytes) -> None:
    """Callers get the same error for any invalid body, including too deep nesting."""
    with pytest.raises(codec.DecodeError, match="not JSON"):
        codec.from_json(DocumentStatuses, body)


@settings(deadline=None)
@given(
    shape=st.sampled_from(REPLIES),
    data=st.data(),
    others=st.dictionaries(st.text(max_size=5), JSON, max_size=2),
)
def test_any_object_is_read_or_is_a_decode_error(
    shape: type[object], data: st.DataObject, others: dict[str, object]
) -> None:
    """An invalid response must not raise other exceptions than DecodeError."""
    names = st.sampled_from(names_of(shape))
    value = {**others, **data.draw(st.dictionaries(names, JSON, max_size=30))}

    try:
        decoded = codec.decode(shape, value)
    except codec.DecodeError as error:
        told = str(error)
    else:
        told = f"$ is {type(decoded).__name__}"

    assert "$" in told


@settings(deadline=None)
@given(value=JSON)
def test_any_value_is_read_or_is_a_decode_error(value: object) -> None:
    """The same for values that are not objects, and for opaque parts."""
    with_status = {**STATUS, "error": value, "completed_segments": value, "extra": value}

    for came in (value, with_status):
        try:
            codec.decode(DocumentStatus, came)
        except codec.DecodeError:
            continue


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    name=WORDS,
    technique=st.sampled_from([*IndexingTechnique, None, UNSET]),
    permission=st.sampled_from([*Permission, UNSET]),
    top_k=st.integers(1, 100),
    threshold=st.floats(0, 1) | st.none(),
    weights=st.sampled_from([Weights(weight_type="customized"), None, UNSET]),
    mode=st.sampled_from([*RerankingMode, None, UNSET]),
)
def test_requests_round_trip(
    name: str,
    technique: IndexingTechnique,
    permission: Permission,
    top_k: int,
    threshold: float | None,
    weights: Weights,
    mode: RerankingMode,
) -> None:
    """The emulator decodes requests with the codec with which the client encodes them."""
    search = attrs.evolve(
        RetrievalModel.semantic(top_k=top_k, score_threshold=threshold),
        weights=weights,
        reranking_mode=mode,
    )
    request = CreateDataset(
        name=name, indexing_technique=technique, permission=permission, retrieval_model=search
    )

    assert codec.from_json(CreateDataset, codec.to_json(request)) == request


def test_process_rules_round_trip() -> None:
    """Sequences in requests are decoded as tuples and must be encoded as lists again."""
    rule = ProcessRule.custom(max_tokens=100, chunk_overlap=10)

    encoded = codec.encode(rule)

    assert codec.encode(codec.decode(ProcessRule, encoded)) == encoded
    assert codec.decode(ProcessRule, {"mode": "automatic"}) == ProcessRule.automatic()
    assert codec.decode(ProcessRule, {"mode": "automatic", "rules": None}).rules is None


def test_unset_is_a_falsy_singleton() -> None:
    """UNSET is falsy for `if option`, and its repr is its name."""
    assert not UNSET
    assert repr(UNSET) == "UNSET"


@pytest.mark.parametrize("top_k", [0, -1])
@pytest.mark.parametrize(
    "build", [RetrievalModel.semantic, RetrievalModel.full_text, RetrievalModel.keyword]
)
def test_top_k_below_one_is_refused_before_it_is_sent(build: Any, top_k: int) -> None:
    """For 0 the server returns nothing, for -1 all but the last hit (measured)."""
    with pytest.raises(ConfigError, match="top_k"):
        build(top_k=top_k)


def test_a_score_threshold_of_zero_is_enabled() -> None:
    """0.0 is falsy, and could silently mean no threshold."""
    search = RetrievalModel.semantic(score_threshold=0.0)

    assert search.score_threshold_enabled
    assert search.score_threshold == 0.0
    assert search.search_method is SearchMethod.SEMANTIC


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 49},
        {"max_tokens": 4001},
        {"max_tokens": 100, "chunk_overlap": 100},
        {"chunk_overlap": -1},
        {"separator": ""},
    ],
)
def test_a_rule_that_would_fail_while_indexing_is_refused_before(options: Any) -> None:
    """The server accepts the rule with 200 and fails a minute later (measured)."""
    with pytest.raises(ConfigError) as raised:
        ProcessRule.custom(**options)

    assert raised.value.hint
