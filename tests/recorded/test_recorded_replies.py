"""What real servers of three versions answered, read by the client.

Each file of `data` holds the replies of one version to the operations of the catalogue, as they
came; near-identical repeats are left out.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

import dify_kb
from dify_kb.errors import ApiError
from dify_kb.models import UNSET
from dify_kb.wire import catalog, codec
from dify_kb.wire.decipher import Reply, decipher
from dify_kb.wire.endpoint import NOTHING, Call, Endpoint

VERSIONS = ("1.4.3", "1.8.1", "1.12.1")
OTHER_ROUTES = frozenset({"/datasets/tags", "/datasets/metadata"})
CLASSES: Mapping[int, set[type[ApiError]]] = {
    400: {dify_kb.BadRequestError},
    401: {dify_kb.UnauthorizedError},
    403: {dify_kb.ForbiddenError, dify_kb.QuotaExceededError, dify_kb.RateLimitedError},
    404: {dify_kb.NotFoundError},
    405: {dify_kb.BadRequestError},
    409: {dify_kb.ConflictError},
    413: {dify_kb.TooLargeError},
    415: {dify_kb.UnsupportedTypeError},
    500: {dify_kb.ServerError},
}


@attrs.frozen
class Exchange:
    """One recorded reply, and the operation that it belongs to."""

    case: str
    call: Call[object]
    reply: Reply
    parsed: object

    @property
    def success(self) -> bool:
        return self.reply.status < 300


def endpoint_of(method: str, path: str) -> Endpoint[object, object]:
    found = [
        endpoint
        for endpoint in catalog.ENDPOINTS
        if endpoint.method == method
        and path not in OTHER_ROUTES
        and re.fullmatch(re.sub(r"{\w+}", "[^/]+", endpoint.path), path)
    ]
    assert len(found) == 1, f"{method} {path} matches {found}"
    return cast("Endpoint[object, object]", found[0])


def exchange(line: str) -> Exchange:
    row = json.loads(line)
    body = json.dumps(row["body"]) if row["kind"] == "json" else row["body"] or ""
    return Exchange(
        case=row["case"],
        call=Call(endpoint_of(row["method"], row["path"]), row["path"], None),
        reply=Reply(row["status"], row["headers"], body.encode()),
        parsed=row["body"],
    )


@functools.cache
def exchanges(version: str) -> Sequence[Exchange]:
    text = Path(__file__).with_name("data").joinpath(f"{version}.jsonl").read_text("utf-8")
    return [exchange(line) for line in text.splitlines()]


def without_added_nulls(encoded: object, came: object) -> object:
    """Take away the nulls that stand for fields this version does not send."""
    if isinstance(encoded, Mapping) and isinstance(came, Mapping):
        return {
            name: without_added_nulls(value, came.get(name))
            for name, value in encoded.items()
            if name in came or value is not None
        }
    if isinstance(encoded, list | tuple) and isinstance(came, list):
        return [without_added_nulls(*pair) for pair in zip(encoded, came, strict=True)]
    return encoded


def fields_of(model: object) -> set[str]:
    return {attribute.name for attribute in attrs.fields(cast("Any", type(model)))}


def unknown_fields(model: object, came: object) -> set[str]:
    """Tell the names in `came`, at any depth, that are no fields of the models."""
    if isinstance(came, list) and isinstance(model, list | tuple):
        found: set[str] = set()
        for pair in zip(model, came, strict=True):
            found |= unknown_fields(*pair)
        return found
    if not isinstance(came, Mapping) or not attrs.has(type(model)):
        return set()
    known = fields_of(model)
    found = set(came) - set(known)
    extra = getattr(model, "extra", None)
    assert set(extra or {}) == (found if "extra" in known else set())
    for name in set(came) & set(known):
        found |= unknown_fields(getattr(model, name), came[name])
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_success_is_read_and_nothing_is_lost(version: str) -> None:
    """A model that drops or changes a field would do so silently for every user."""
    differing = []
    for one in exchanges(version):
        if not one.success or one.call.endpoint.returns is NOTHING:
            continue
        value = decipher(one.call, one.reply)
        if without_added_nulls(codec.encode(value), one.parsed) != one.parsed:
            differing.append(f"{one.case} {one.call.endpoint.name}")

    assert differing == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_success_without_a_result_is_read_whatever_its_body(version: str) -> None:
    """Servers answer deletes with 200 and the number 204, which is no object."""
    deletes = [
        one for one in exchanges(version) if one.success and one.call.endpoint.returns is NOTHING
    ]

    assert {decipher(one.call, one.reply) for one in deletes} == {None}
    assert {(one.reply.status, one.parsed) for one in deletes} == {(200, 204)}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_models_do_not_know_is_in_extra(version: str) -> None:
    """The server grows fields with each release; users reach them before this package does."""
    unknown = {
        one.call.endpoint.name: unknown_fields(decipher(one.call, one.reply), one.parsed)
        for one in exchanges(version)
        if one.success
    }

    # The list of models tells much that no caller here needs; all else is modelled in full.
    assert {name for name, fields in unknown.items() if fields} <= {"workspace.models"}
    assert {"tenant_id", "icon_small"} <= unknown["workspace.models"] or version != "1.12.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_field_of_a_later_version_is_kept(version: str) -> None:
    """The same replies with one more field each, as the next release may send them."""
    lost = []
    for one in exchanges(version):
        if not one.success or not isinstance(one.parsed, dict):
            continue
        model = decipher(one.call, one.reply)
        if "extra" not in fields_of(model):
            continue
        later = {**one.parsed, "of_a_later_version": [1]}
        value = codec.decode(one.call.endpoint.returns, later)
        if without_added_nulls(codec.encode(value), later) != later:
            lost.append(one.case)

    assert lost == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_refusal_is_the_error_of_its_status(version: str) -> None:
    """Callers catch classes; a recorded refusal of another class would surprise them."""
    wrong = []
    for one in exchanges(version):
        if one.success:
            continue
        with pytest.raises(ApiError) as raised:
            decipher(one.call, one.reply)
        error = raised.value
        if type(error) not in CLASSES[error.status] or not error.hint:
            wrong.append(f"{one.case}: {error!r}")

    assert wrong == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_refusal_names_the_call_and_the_server(version: str) -> None:
    """With thousands of calls in flight an error that names neither cannot be acted on."""
    for one in exchanges(version):
        if one.success:
            continue
        with pytest.raises(ApiError) as raised:
            decipher(one.call, one.reply)

        assert raised.value.endpoint == one.call.endpoint.name
        assert raised.value.status == one.reply.status
        assert raised.value.server_version == version
        assert "</" not in str(raised.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_in_the_normal_envelope_keeps_code_and_message(version: str) -> None:
    """`code` and `message` are what the server's own documentation speaks of."""
    for one in exchanges(version):
        if one.success or not isinstance(one.parsed, dict) or "errors" in one.parsed:
            continue
        with pytest.raises(ApiError) as raised:
            decipher(one.call, one.reply)

        assert raised.value.code == one.parsed.get("code", "")
        assert raised.value.message.startswith(one.parsed["message"][:200])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recordings_cover_the_catalogue(
    version: str, record_property: Callable[[str, object], None]
) -> None:
    """A trimmed file that lost its cases would make every other test here pass."""
    rows = exchanges(version)
    read = {one.call.endpoint.name for one in rows if one.success}
    refused = {one.call.endpoint.name for one in rows if not one.success}
    record_property("exchanges", len(rows))
    record_property("successes", sum(one.success for one in rows))
    missing = {endpoint.name for endpoint in catalog.ENDPOINTS} - read

    assert len(rows) > 150
    assert sum(one.success for one in rows) > 80
    assert sum(not one.success for one in rows) > 60
    assert missing <= {"server.info", "documents.get"}
    assert len(refused) >= 10


def test_every_error_shape_of_the_page_is_among_the_recordings() -> None:
    """The decoder of refusals is only as good as the shapes that it was shown."""
    refusals = [one.parsed for version in VERSIONS for one in exchanges(version) if not one.success]
    shapes = {frozenset(parsed) if isinstance(parsed, dict) else "html" for parsed in refusals}

    assert shapes >= {
        frozenset({"code", "message", "status"}),
        frozenset({"code", "message", "params"}),
        frozenset({"code", "message"}),
        frozenset({"errors", "message"}),
        "html",
    }


def test_unset_is_never_in_a_decoded_reply() -> None:
    """`UNSET` is a word of requests; in a reply it would be neither a value nor null."""
    decoded = [
        decipher(one.call, one.reply)
        for version in VERSIONS
        for one in exchanges(version)
        if one.success
    ]

    assert "UNSET" not in repr(decoded)
    assert UNSET not in decoded
