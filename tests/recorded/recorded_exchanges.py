"""Recorded responses of four server versions, and the fields of their models.

Each file of `data` contains the unchanged responses of one version to the operations of the
catalog, without near-identical repetitions.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin

import attrs

from dify_kb.wire import catalog, codec
from dify_kb.wire.decode_response import Response
from dify_kb.wire.endpoint import Call, Endpoint

VERSIONS = ("1.4.3", "1.8.1", "1.12.1", "1.14.2")
TABLE = Path(__file__).parents[1] / "data" / "endpoints.json"
NO_FIELD = "660-meta-rename-unknown"
"""A response that is not a success, but is 200 up to 1.12.1: a field of nulls."""

NUMBERS_AS_TEXT = frozenset({"binding_count"})
"""Fields that 1.8.1 sends as strings and the models convert to numbers."""


@attrs.frozen
class Exchange:
    """A recorded response and its operation."""

    case: str
    call: Call[object]
    reply: Response
    parsed: object

    @property
    def success(self) -> bool:
        return self.reply.status < 300


@functools.cache
def build_routes() -> Sequence[tuple[str, str, Endpoint[object, object]]]:
    """Return all routes of all operations: current, legacy, and the aliases of both."""
    rows = json.loads(TABLE.read_text("utf-8"))
    found: list[tuple[str, str, Endpoint[object, object]]] = []
    for endpoint in catalog.ENDPOINTS:
        older = endpoint.legacy
        ways = [(endpoint.method, endpoint.path)]
        ways += [(older.method, older.path)] if older else []
        aliases = [
            (alias["method"], alias["path"])
            for row in rows
            if (row["method"], row["path"]) in ways
            for alias in row["aliases"]
        ]
        operation = cast("Endpoint[object, object]", endpoint)
        found += [(*way, operation) for way in dict.fromkeys(ways + aliases)]
    return sorted(found, key=lambda route: route[1].count("{"))


def find_endpoint(method: str, path: str) -> Endpoint[object, object]:
    return next(
        endpoint
        for its_method, its_path, endpoint in build_routes()
        if its_method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", its_path), path)
    )


EMPTY_ARCHIVE = "PK\x05\x06".ljust(22, "\0")


def parse_exchange(line: str) -> Exchange:
    row = json.loads(line)
    body = json.dumps(row["body"]) if row["kind"] == "json" else row["body"] or ""
    if row["kind"] == "binary":  # the recordings have no content of archives
        body = EMPTY_ARCHIVE
    return Exchange(
        case=row["case"],
        call=Call(find_endpoint(row["method"], row["path"]), row["path"], None),
        reply=Response(row["status"], row["headers"], body.encode()),
        parsed=row["body"],
    )


@functools.cache
def load_exchanges(version: str) -> Sequence[Exchange]:
    text = Path(__file__).with_name("data").joinpath(f"{version}.jsonl").read_text("utf-8")
    return [parse_exchange(line) for line in text.splitlines()]


def is_same(encoded: object, recorded: object, name: str = "") -> bool:
    """Return whether two values are equal, ignoring nulls of missing fields and numbers as text."""
    if isinstance(encoded, Mapping) and isinstance(recorded, Mapping):
        added = encoded.keys() - recorded.keys()
        return (
            recorded.keys() <= encoded.keys()
            and all(encoded[name] is None for name in added)
            and all(is_same(encoded[name], value, name) for name, value in recorded.items())
        )
    if isinstance(encoded, list | tuple) and isinstance(recorded, list):
        return len(encoded) == len(recorded) and all(map(is_same, encoded, recorded))
    if name in NUMBERS_AS_TEXT and isinstance(recorded, str):
        return str(encoded) == recorded
    if name == "created_at" and isinstance(recorded, str) and encoded != recorded:
        # The response to an upload for pipelines has ISO text.
        return encoded == datetime.fromisoformat(recorded).replace(tzinfo=UTC).timestamp()
    return encoded == recorded


@attrs.frozen(eq=False)
class FieldPlace:
    """A field of a model in a response.

    `needed` fields make the response invalid if they are missing: they are required, and so is
    every model around them. `label` is the path without indexes.
    """

    container: dict[str, object]
    name: str
    model: str
    label: str
    needed: bool


def find_fields(
    shape: Any, value: object, *, needed: bool = True, label: str = "$"
) -> Iterator[FieldPlace]:
    """Yield the fields of all models in a response, with those that are missing in it."""
    origin, arms = get_origin(shape), get_args(shape)
    if origin is Sequence:
        for item in value if isinstance(value, list) else ():
            yield from find_fields(arms[0], item, needed=needed, label=f"{label}[]")
        return
    if NoneType in arms:
        shape = next(arm for arm in arms if arm is not NoneType)
        yield from find_fields(shape, value, needed=needed, label=label)
        return
    model = origin or shape
    if not isinstance(value, dict) or not (isinstance(model, type) and attrs.has(model)):
        return
    attrs.resolve_types(model)
    required = codec.required_fields(model)
    for attribute in attrs.fields(model):
        if attribute.name == "extra":
            continue
        field_shape: Any = attribute.type
        if getattr(field_shape, "__parameters__", ()):
            field_shape = field_shape[arms]
        is_needed = needed and attribute.name in required
        path = f"{label}.{attribute.name}"
        yield FieldPlace(value, attribute.name, model.__name__, path, is_needed)
        item = value.get(attribute.name)
        yield from find_fields(field_shape, item, needed=is_needed, label=path)


def list_response_models() -> Mapping[str, type[Any]]:
    """Return the models of all responses, by name."""
    found: dict[str, type[Any]] = {}
    shapes: list[Any] = [endpoint.response_type for endpoint in catalog.ENDPOINTS]
    while shapes:
        shape = shapes.pop()
        shapes += get_args(shape)
        model = get_origin(shape) or shape
        if isinstance(model, type) and attrs.has(model) and model.__name__ not in found:
            found[model.__name__] = attrs.resolve_types(model)
            shapes += [attribute.type for attribute in attrs.fields(model)]
    return found
