"""Decode recorded responses of four server versions."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
import pytest
from recorded_exchanges import NO_FIELD, VERSIONS, is_same, load_exchanges

import dify_kb
from dify_kb.errors import ApiError
from dify_kb.models import UNSET
from dify_kb.wire import catalog, codec
from dify_kb.wire.decode_response import decode_response
from dify_kb.wire.endpoint import NOTHING

NEVER_RECORDED = frozenset(
    {"pipeline.datasource_plugins", "pipeline.run_datasource", "pipeline.run"}
)
"""Operations that need a dataset with a pipeline."""

SINCE_1_14 = frozenset(
    {
        "documents.download_url",
        "documents.download_zip",
        "pipeline.upload_file",
        "child_chunks.delete",  # the one that succeeds is not among the older recordings
        "tags.update",  # likewise
    }
)
NOT_ANSWERED: Mapping[str, frozenset[str]] = {
    "1.4.3": SINCE_1_14 | {"documents.get", "documents.set_status"},
    "1.8.1": SINCE_1_14 | {"server.info", "child_chunks.update"},
    "1.12.1": SINCE_1_14 | {"server.info", "documents.upload_file", "tags.create"},
    "1.14.2": frozenset({"server.info", "documents.upload_file"}),
}
"""Operations that a version lacks, or that never succeed on it."""

CLASSES: Mapping[int, set[type[ApiError]]] = {
    400: {dify_kb.BadRequestError},
    401: {dify_kb.UnauthorizedError},
    403: {dify_kb.ForbiddenError, dify_kb.QuotaExceededError, dify_kb.RateLimitedError},
    404: {dify_kb.NotFoundError},
    405: {dify_kb.NotFoundError},
    409: {dify_kb.ConflictError},
    413: {dify_kb.TooLargeError},
    415: {dify_kb.UnsupportedTypeError},
    500: {dify_kb.ServerError},
}


def list_fields(model: object) -> set[str]:
    return {attribute.name for attribute in attrs.fields(cast("Any", type(model)))}


def find_unknown_fields(model: object, recorded: object) -> set[str]:
    """Return the names in `recorded`, at any depth, that are not fields of the models."""
    if isinstance(recorded, list) and isinstance(model, list | tuple):
        found: set[str] = set()
        for pair in zip(model, recorded, strict=True):
            found |= find_unknown_fields(*pair)
        return found
    if not isinstance(recorded, Mapping) or not attrs.has(type(model)):
        return set()
    known = list_fields(model)
    found = set(recorded) - set(known)
    extra = getattr(model, "extra", None)
    assert set(extra or {}) == (found if "extra" in known else set())
    for name in set(recorded) & set(known):
        found |= find_unknown_fields(getattr(model, name), recorded[name])
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_success_is_read_and_nothing_is_lost(version: str) -> None:
    """Users would not notice a model that drops or changes a field."""
    successes = [one for one in load_exchanges(version) if one.success and one.case != NO_FIELD]
    differing = []
    for one in successes:
        value = decode_response(one.call, one.reply)
        if one.call.endpoint.response_type is bytes:
            assert value == one.reply.body
        elif one.call.endpoint.response_type is not NOTHING and not is_same(
            codec.encode(value), one.parsed
        ):
            differing.append(f"{one.case} {one.call.endpoint.name}")
    refusals = [one for one in load_exchanges(version) if not one.success]
    print(  # noqa: T201 -- what the recordings prove, for who asks by `pytest -rP`
        f"{version}: decoded {len(successes) - len(differing)} of {len(successes)},"
        f" refused {len(load_errors(version))} of {len(refusals)}"
    )

    assert differing == []
    assert len(load_errors(version)) == len(refusals)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_success_without_a_result_is_read_whatever_its_body(version: str) -> None:
    """Servers send the numbers 204 and 200, or an object, all without meaning."""
    empty = [
        one
        for one in load_exchanges(version)
        if one.success and one.call.endpoint.response_type is NOTHING
    ]
    as_text = version in {"1.4.3", "1.8.1"}
    written = json.dumps(200) if as_text else json.dumps({"result": "success"})
    deleted = (200, b"204") if version != "1.14.2" else (204, b"")

    assert {decode_response(one.call, one.reply) for one in empty} == {None}
    assert {one.reply.status for one in empty} == {200, deleted[0]}
    assert deleted in {(one.reply.status, one.reply.body) for one in empty}
    assert written.encode() in {one.reply.body for one in empty}


def load_errors(version: str) -> Mapping[str, ApiError]:
    """Return the errors for the error responses of a version."""
    errors: dict[str, ApiError] = {}
    for one in load_exchanges(version):
        if not one.success:
            with pytest.raises(ApiError) as raised:
                decode_response(one.call, one.reply)
            errors[one.case] = raised.value
    return errors


@pytest.mark.parametrize("version", VERSIONS)
def test_what_models_do_not_know_is_in_extra(version: str) -> None:
    """Each release adds fields, which users need before this package knows them."""
    unknown: dict[str, set[str]] = defaultdict(set)
    for one in load_exchanges(version):
        if one.success and one.case != NO_FIELD:
            decoded = decode_response(one.call, one.reply)
            unknown[one.call.endpoint.name] |= find_unknown_fields(decoded, one.parsed)

    # The list of models has many fields that nobody needs; two lists add fields to `Page`. All
    # other responses are modelled completely.
    models = unknown.pop("workspace.models")
    assert {"tenant_id", "icon_small"} <= models or version != "1.12.1"
    assert {name: fields for name, fields in unknown.items() if fields} == {
        "segments.list": {"doc_form"},
        "child_chunks.list": {"total_pages"},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_field_of_a_later_version_is_kept(version: str) -> None:
    """The same responses with an additional field, as the next release may send them."""
    lost = []
    for one in load_exchanges(version):
        if not one.success or one.case == NO_FIELD or not isinstance(one.parsed, dict):
            continue
        model = decode_response(one.call, one.reply)
        if model is None or "extra" not in list_fields(model):
            continue
        later = {**one.parsed, "of_a_later_version": [1]}
        value = codec.decode(one.call.endpoint.response_type, later)
        if not is_same(codec.encode(value), later):
            lost.append(one.case)

    assert lost == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_refusal_is_the_error_of_its_status(version: str) -> None:
    """Callers catch exceptions by class."""
    wrong = []
    for one in load_exchanges(version):
        if one.success:
            continue
        with pytest.raises(ApiError) as raised:
            decode_response(one.call, one.reply)
        error = raised.value
        if type(error) not in CLASSES[error.status] or not error.hint:
            wrong.append(f"{one.case}: {error!r}")

    assert wrong == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_refusal_names_the_call_and_the_server(version: str) -> None:
    """With thousands of calls in flight, users cannot act on an error without these names."""
    for one in load_exchanges(version):
        if one.success:
            continue
        with pytest.raises(ApiError) as raised:
            decode_response(one.call, one.reply)

        assert raised.value.endpoint == one.call.endpoint.name
        assert raised.value.status == one.reply.status
        assert raised.value.server_version == version
        assert "</" not in str(raised.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_in_the_normal_envelope_keeps_code_and_message(version: str) -> None:
    """The server's documentation describes errors by `code` and `message`."""
    for one in load_exchanges(version):
        if one.success or not isinstance(one.parsed, dict) or "errors" in one.parsed:
            continue
        with pytest.raises(ApiError) as raised:
            decode_response(one.call, one.reply)

        assert raised.value.code == one.parsed.get("code", "")
        said = str(one.parsed.get("message", one.parsed.get("error")))
        assert raised.value.message.startswith(said[:200])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recordings_cover_the_catalogue(
    version: str, record_property: Callable[[str, object], None]
) -> None:
    """If a trimmed file lost its cases, all other tests here would pass."""
    rows = load_exchanges(version)
    read = {one.call.endpoint.name for one in rows if one.success}
    answered_no = {one.call.endpoint.name for one in rows if not one.success}
    record_property("exchanges", len(rows))
    record_property("successes", sum(one.success for one in rows))
    missing = {endpoint.name for endpoint in catalog.ENDPOINTS} - read

    assert len(rows) > 350
    assert sum(one.success for one in rows) > 150
    assert sum(not one.success for one in rows) > 150
    assert missing == NEVER_RECORDED | NOT_ANSWERED[version]
    assert len(answered_no) >= 25


def test_legacy_paths_are_among_the_recordings() -> None:
    """Requests to older servers are recorded as well as those to new ones."""
    rows = [one for version in VERSIONS for one in load_exchanges(version) if one.success]
    ways = {
        (one.call.endpoint.name, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", one.call.path))
        for one in rows
    }

    assert ways >= {
        ("metadata.built_in_fields", "/datasets/metadata/built-in"),
        ("documents.update_by_file", "/datasets/…/documents/…/update-by-file"),
        ("documents.update_by_file", "/datasets/…/documents/…/update_by_file"),
        ("documents.create_by_text", "/datasets/…/document/create_by_text"),
    }


def test_every_error_shape_of_the_page_is_among_the_recordings() -> None:
    """The decoder of errors must be tested with all error formats."""
    refusals = [
        one.parsed for version in VERSIONS for one in load_exchanges(version) if not one.success
    ]
    shapes = {frozenset(parsed) if isinstance(parsed, dict) else "html" for parsed in refusals}

    assert shapes >= {
        frozenset({"code", "message", "status"}),
        frozenset({"code", "message", "params"}),
        frozenset({"code", "message"}),
        frozenset({"errors", "message"}),
        frozenset({"error"}),
        "html",
    }


def test_unset_is_never_in_a_decoded_reply() -> None:
    """`UNSET` is only for requests; in a response it would be neither a value nor null."""
    decoded = [
        decode_response(one.call, one.reply)
        for version in VERSIONS
        for one in load_exchanges(version)
        if one.success and one.case != NO_FIELD
    ]

    assert "UNSET" not in repr(decoded)
    assert UNSET not in decoded


# --- answers that do not mean what they say


@pytest.mark.parametrize("case", ["821-tag-create", "820-tags-list-empty", "828-tags-list"])
def test_a_created_tag_is_reported_although_the_server_refuses(case: str) -> None:
    """1.12.1 returns an error although it created the tag; a retry fails as the name exists."""
    error = load_errors("1.12.1")[case]

    assert isinstance(error, dify_kb.BadRequestError)
    assert "Ignore this error" in error.hint
    assert "tags.list_for_dataset" in error.hint


@pytest.mark.parametrize("case", ["822-tag-create-dup", "823-tag-create-empty"])
def test_a_tag_that_was_not_created_is_not_reported_as_created(case: str) -> None:
    """A genuine error of the same version and status differs only in its message."""
    assert "Ignore this error" not in load_errors("1.12.1")[case].hint


@pytest.mark.parametrize(
    ("case", "told"),
    [("077-list-tag_ids=00000000-0000-4000-8000-000000000000", True), ("066-list-page=abc", False)],
)
def test_a_filter_refused_by_a_version_is_reported_with_the_workaround(
    case: str,
    told: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    """1.12.1 rejects all `tag_ids`; other errors of that list are genuine."""
    assert ("Use datasets.iter" in load_errors("1.12.1")[case].hint) is told


@pytest.mark.parametrize("case", ["1012-hier-cc-update", "1024-hier-cc-delete-again"])
def test_a_child_chunk_never_found_is_reported_with_the_workaround(case: str) -> None:
    """1.8.1 searches the wrong table, so valid ids are not found."""
    error = load_errors("1.8.1")[case]

    assert isinstance(error, dify_kb.NotFoundError)
    assert "Update or delete the segment" in error.hint


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.12.1"])
def test_a_metadata_field_of_nulls_is_an_error(version: str) -> None:
    """The server returns 200 for an unknown id; a field without id or name would be worse."""
    one = next(one for one in load_exchanges(version) if one.case == NO_FIELD)

    with pytest.raises(dify_kb.ProtocolError) as raised:
        decode_response(one.call, one.reply)

    assert one.reply.status == 200
    assert raised.value.endpoint == "metadata.update"
    assert "Check the field id" in raised.value.hint


@pytest.mark.parametrize(
    ("version", "case", "since"),
    [
        ("1.4.3", "340-wait-status-disable", "it was added in 1.8"),
        ("1.4.3", "129-text-same-name-get", "it was added in 1.8"),
        ("1.12.1", "431-upload-file-route", "it was removed in 1.11"),
    ],
)
def test_an_operation_missing_in_the_version_is_reported(
    version: str, case: str, since: str
) -> None:
    """With only a 404 or 405, users would search for a wrong id."""
    error = load_errors(version)[case]

    assert isinstance(error, dify_kb.NotFoundError)
    assert f"Dify {version} does not have this operation: {since}" in str(error)
