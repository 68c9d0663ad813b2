"""Read responses in which fields are missing, null or of another type."""

from __future__ import annotations

import copy
import functools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
from attrs import evolve
from recorded_exchanges import (
    NO_FIELD,
    VERSIONS,
    Exchange,
    FieldPlace,
    find_fields,
    is_same,
    list_response_models,
    load_exchanges,
)

from dify_kb.errors import ProtocolError
from dify_kb.wire import codec
from dify_kb.wire.decode_response import decode_response

REQUIRED_FIELDS: Mapping[str, frozenset[str]] = {
    "BuiltInField": frozenset({"name"}),
    "BuiltInFields": frozenset({"fields"}),
    "ChildChunk": frozenset({"id", "content"}),
    "ChildChunkResponse": frozenset({"data"}),
    "CreatedDocument": frozenset({"document", "batch"}),
    "CreatedSegments": frozenset({"data"}),
    "Dataset": frozenset({"id", "name"}),
    "DatasetTags": frozenset({"data"}),
    "DatasourcePlugin": frozenset({"node_id"}),
    # `enabled` decides whether a create replaces the document or adds a second one of its name.
    "Document": frozenset({"id", "name", "indexing_status", "enabled"}),
    "DocumentDetail": frozenset({"id"}),
    "DocumentStatus": frozenset({"id", "indexing_status"}),
    "DocumentStatuses": frozenset({"data"}),
    "DownloadUrl": frozenset({"url"}),
    "Event": frozenset({"event", "data"}),
    "ExternalKnowledgeInfo": frozenset(),
    "KeywordSetting": frozenset({"keyword_weight"}),
    "MetadataField": frozenset({"id", "name", "type"}),
    "MetadataFields": frozenset({"doc_metadata"}),
    "ModelProvider": frozenset({"provider", "models"}),
    "ModelProviders": frozenset({"data"}),
    "Page": frozenset({"data", "total"}),
    "PipelineFile": frozenset({"id", "name"}),
    "ProviderModel": frozenset({"model"}),
    "Query": frozenset({"content"}),
    "Record": frozenset({"segment"}),
    "RecordChild": frozenset({"id", "content"}),
    "RecordDocument": frozenset({"id", "name"}),
    "RecordSegment": frozenset({"id", "content", "document"}),
    "RerankingModel": frozenset(),
    "RetrievalResult": frozenset({"records"}),
    "Segment": frozenset({"id", "content", "status"}),
    "SegmentResponse": frozenset({"data"}),
    "ServerInfo": frozenset(),
    "SourceDetail": frozenset(),
    "SourceInfo": frozenset(),
    "StoredFile": frozenset({"id", "name"}),
    "StoredRetrievalModel": frozenset(),
    "SummaryIndexSetting": frozenset(),
    "Tag": frozenset({"id", "name"}),
    "TagRef": frozenset({"id", "name"}),
    "UploadFile": frozenset({"id"}),
    "VectorSetting": frozenset(
        {"vector_weight", "embedding_provider_name", "embedding_model_name"}
    ),
    "Weights": frozenset(),
}
"""All fields without which a response is not read: ids, names and statuses that decisions rest on,
and what the caller asked for. A part that is optional itself is then None."""

STRICT_MODELS = frozenset({"RerankingModel", "Weights"})
"""Models of requests as well, which have no `extra`; in responses, their parents keep the value."""

MUTATIONS = 3_000
MISSING = object()
OTHER_TYPES: Sequence[object] = ["many", [7], {"odd": 1}, True]


def test_required_fields_are_few_and_known() -> None:
    """Each required field is a reason for which a whole page of documents cannot be read."""
    models = list_response_models()

    assert {name: codec.required_fields(model) for name, model in models.items()} == dict(
        REQUIRED_FIELDS
    )


def test_optional_fields_of_responses_are_none_by_default_and_have_an_extra() -> None:
    """A value that cannot be read becomes None, and is kept."""
    for name, model in list_response_models().items():
        optional = [
            attribute
            for attribute in attrs.fields(model)
            if attribute.name not in codec.required_fields(model) | {"extra"}
        ]
        assert all(attribute.default is None for attribute in optional), name
        has_extra = "extra" in attrs.fields_dict(model)
        assert has_extra or not optional or name in STRICT_MODELS, name


@functools.cache
def load_successes() -> Mapping[str, Sequence[Exchange]]:
    """Return the recorded successes by operation."""
    found: dict[str, list[Exchange]] = defaultdict(list)
    for version in VERSIONS:
        for one in load_exchanges(version):
            if one.success and one.case != NO_FIELD and isinstance(one.parsed, dict | list):
                found[one.call.endpoint.name].append(one)
    return found


def list_labels(*, needed: bool) -> Mapping[tuple[str, str], Sequence[Exchange]]:
    """Return the 20 shortest exchanges with each field, by operation and path of the field."""
    found: dict[tuple[str, str], list[Exchange]] = defaultdict(list)
    for name, exchanges in load_successes().items():
        for one in sorted(exchanges, key=lambda one: len(one.reply.body)):
            shape = one.call.endpoint.response_type
            for label in {
                place.label for place in find_fields(shape, one.parsed) if place.needed is needed
            }:
                if len(found[name, label]) < 20:
                    found[name, label].append(one)
    return found


def has_other_type(place: FieldPlace, other: object) -> bool:
    """Return whether a value does not fit the field; `null` may stand for text, a bool or a number.

    An object fits the models of `STRICT_MODELS`, whose fields are all optional.
    """
    value = place.container.get(place.name)
    if value is None:
        return isinstance(other, list)
    is_strict = isinstance(other, dict) and place.name in {"reranking_model", "weights"}
    return type(value) is not type(other) and not is_strict


def mutate(one: Exchange, label: str, chance: random.Random) -> tuple[str, object]:
    """Return a response with one changed field, after a description of the change."""
    body = copy.deepcopy(one.parsed)
    shape = one.call.endpoint.response_type
    place = chance.choice([p for p in find_fields(shape, body) if p.label == label])
    others = [other for other in OTHER_TYPES if has_other_type(place, other)]
    change = chance.choice([MISSING, None, *others])
    if change is MISSING:
        place.container.pop(place.name, None)
    else:
        place.container[place.name] = change
    shown = "missing" if change is MISSING else repr(change)
    return f"{one.call.endpoint.name} {one.case} {label} {shown}", body


def test_no_field_that_nobody_needs_spoils_a_response() -> None:
    """Servers of all versions, and Dify Cloud, send null or other types in some rows."""
    chance = random.Random(20261201)
    labels = list_labels(needed=False)
    pairs = sorted(labels)
    failures: list[str] = []

    for number in range(MUTATIONS):
        pair = pairs[number % len(pairs)]
        change, body = mutate(chance.choice(labels[pair]), pair[1], chance)
        shape: Any = labels[pair][0].call.endpoint.response_type
        try:
            decoded = codec.decode(shape, body)
        except codec.DecodeError as error:
            failures.append(f"{change}: {error}")
        else:
            if not is_same(codec.encode(decoded), body):
                failures.append(f"{change}: lost")

    assert failures == []
    assert len(pairs) > 400


@pytest.mark.parametrize(
    "change",
    [
        lambda fields, name: fields.pop(name),
        lambda fields, name: fields.update({name: None}),
        lambda fields, name: fields.update({name: {"odd": 1}}),
    ],
    ids=["missing", "null", "an object"],
)
def test_a_missing_needed_field_is_an_error_that_names_it(
    change: Callable[[dict[str, object], str], object],
) -> None:
    """Without its id, a document could not be told from others; the error names row and field."""
    for (endpoint, label), exchanges in list_labels(needed=True).items():
        one = exchanges[0]
        body = copy.deepcopy(one.parsed)
        place = next(
            place
            for place in find_fields(one.call.endpoint.response_type, body)
            if place.label == label
        )
        change(place.container, place.name)

        with pytest.raises(ProtocolError) as raised:
            decode_response(one.call, evolve(one.reply, body=json.dumps(body).encode()))

        assert raised.value.endpoint == endpoint
        assert f".{place.name}" in str(raised.value)


def test_an_error_names_row_and_field() -> None:
    """One of 100 rows is wrong."""
    one = next(
        one
        for one in load_successes()["documents.list"]
        if isinstance(one.parsed, dict) and len(one.parsed["data"]) > 2
    )
    body = copy.deepcopy(one.parsed)
    assert isinstance(body, dict)
    del body["data"][1]["indexing_status"]

    with pytest.raises(ProtocolError, match=r"missing @ \$\.data\[1\]\.indexing_status"):
        decode_response(one.call, evolve(one.reply, body=json.dumps(body).encode()))
