"""Decoding of responses into models or errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dify_kb
from dify_kb.errors import ApiError, KnowledgeError, ProtocolError
from dify_kb.models import CreateByFile, Dataset, DocumentIds, File, GetDocument, Page, Retrieve
from dify_kb.wire import catalog
from dify_kb.wire.decode_response import Response, decode_response
from dify_kb.wire.endpoint import Call

GET = catalog.GET_DATASET.call(dataset_id="d1")
DELETE = catalog.DELETE_DATASET.call(dataset_id="d1")
CREATE_BY_FILE = catalog.CREATE_DOCUMENT_BY_FILE(
    CreateByFile(file=File(name="a.txt", content=b"", size=0)), dataset_id="d1"
)
RETRIEVE = catalog.RETRIEVE(Retrieve(query="a"), dataset_id="d1")
GET_DOCUMENT = catalog.GET_DOCUMENT(GetDocument(), dataset_id="d1", document_id="d2")

RATE = "Sorry, you have reached the knowledge base request rate limit of your subscription."
SPACE = "The capacity of the knowledge storage space has reached the limit of your subscription."
DAEMON = "Failed to request plugin daemon, url: plugin/x/management/models"
DOCUMENTS = "The number of documents has reached the limit of your subscription."


def html_page(title: str) -> bytes:
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>"
        "</center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
    ).encode()


def make_response(
    status: int, body: object = b"", headers: dict[str, str] | None = None, kind: str = ""
) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = kind or ("text/html" if content.startswith(b"<") else "application/json")
    return Response(
        status, {"content-type": kind, "x-version": "1.12.1", **(headers or {})}, content
    )


def decode_api_error(response: Response) -> ApiError:
    with pytest.raises(ApiError) as raised:
        decode_response(GET, response)
    return raised.value


def decode_protocol_error(response: Response) -> ProtocolError:
    with pytest.raises(ProtocolError) as raised:
        decode_response(GET, response)
    return raised.value


# --- error responses: the envelopes (server source) and the codes (measured)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, {"code": "not_found", "message": "Gone.", "status": 404}, "not_found", "Gone."),
        (
            400,
            {"code": "invalid_param", "message": "bad", "params": "name"},
            "invalid_param",
            "bad [name]",
        ),
        (
            400,
            {
                "errors": {"name": "must be short", "text": "is missing"},
                "message": "Input payload validation failed",
            },
            "",
            "Input payload validation failed name: must be short; text: is missing",
        ),
        (
            400,
            {
                "code": "invalid_param",
                "message": "1 validation error for X\nname\n  Field required",
                "status": 400,
            },
            "invalid_param",
            "1 validation error for X\nname\n  Field required",
        ),
        (400, {"error": "Segments is required"}, "", "Segments is required"),
        (400, {"error_code": 1001, "error_msg": "no"}, "", "no"),
        (
            500,
            {"message": "Internal Server Error", "code": "unknown", "status": 500},
            "unknown",
            "Internal Server Error",
        ),
        (500, {"code": "internal_server_error", "message": "'k'"}, "internal_server_error", "'k'"),
        (400, {"code": None, "message": None, "error": "why"}, "", "why"),
        (400, {"code": None, "message": None}, "", ""),
        (400, {"message": {"name": "must be short"}}, "", "{'name': 'must be short'}"),
        (400, ["a"], "", "['a']"),
        (400, "a text", "", "a text"),
        (400, None, "", "None"),
    ],
)
def test_code_and_message_are_taken_from_every_envelope(
    status: int, body: object, code: str, message: str
) -> None:
    """Each version has its own error format; callers see the same one."""
    error = decode_api_error(make_response(status, body))

    assert (error.status, error.code, error.message) == (status, code, message)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid_param", dify_kb.BadRequestError),
        (400, "bad_request", dify_kb.BadRequestError),
        (400, "no_file_uploaded", dify_kb.BadRequestError),
        (400, "too_many_files", dify_kb.BadRequestError),
        (400, "filename_not_exists_error", dify_kb.BadRequestError),
        (400, "document_indexing", dify_kb.BadRequestError),
        (400, "invalid_metadata", dify_kb.BadRequestError),
        (400, "provider_not_initialize", dify_kb.BadRequestError),
        (400, "provider_quota_exceeded", dify_kb.BadRequestError),
        (400, "model_currently_not_support", dify_kb.BadRequestError),
        (400, "completion_request_error", dify_kb.BadRequestError),
        (400, "dataset_not_initialized", dify_kb.BadRequestError),
        (401, "unauthorized", dify_kb.UnauthorizedError),
        (402, "payment_required", dify_kb.QuotaExceededError),
        (403, "forbidden", dify_kb.ForbiddenError),
        (403, "archived_document_immutable", dify_kb.ForbiddenError),
        (404, "not_found", dify_kb.NotFoundError),
        (405, "method_not_allowed", dify_kb.BadRequestError),
        (408, "request_timeout", dify_kb.RateLimitedError),
        (409, "dataset_name_duplicate", dify_kb.ConflictError),
        (409, "dataset_in_use", dify_kb.ConflictError),
        (413, "request_entity_too_large", dify_kb.TooLargeError),
        (415, "unsupported_media_type", dify_kb.UnsupportedTypeError),
        (422, "unprocessable_entity", dify_kb.BadRequestError),
        (425, "too_early", dify_kb.RateLimitedError),
        (429, "too_many_requests", dify_kb.RateLimitedError),
        (418, "teapot", dify_kb.ApiError),
        (500, "unknown", dify_kb.ServerError),
        (500, "internal_server_error", dify_kb.ServerError),
        (502, "", dify_kb.ServerError),
        (503, "", dify_kb.ServerError),
        (503, "service_unavailable", dify_kb.ServerError),
        (504, "", dify_kb.ServerError),
        (524, "", dify_kb.ServerError),
    ],
)
def test_a_status_maps_to_its_error_class(status: int, code: str, expected: type[ApiError]) -> None:
    """Callers catch exceptions by class, and each class requires another action."""
    error = decode_api_error(
        make_response(status, {"code": code, "message": "no", "status": status})
    )

    assert type(error) is expected


def test_an_error_names_endpoint_response_and_next_step() -> None:
    """The error has all details that a caller, a log or a bug report needs."""
    response = make_response(
        404,
        {"code": "not_found", "message": "Dataset not found.", "status": 404},
        {"x-request-id": "r-1", "retry-after": "3"},
    )

    error = decode_api_error(response)

    assert error.endpoint == "datasets.get"
    assert error.status == 404
    assert error.code == "not_found"
    assert error.message == "Dataset not found."
    assert error.server_version == "1.12.1"
    assert error.request_id == "r-1"
    assert error.retry_after == 3.0
    assert error.hint
    assert str(error) == (
        "datasets.get: the server returned 404 (not_found: Dataset not found.; Dify 1.12.1)."
        f" {error.hint}"
    )


def test_an_error_without_version_or_reason_is_still_a_sentence() -> None:
    """Proxies remove headers and bodies; the text must not contain `None` or empty brackets."""
    error = decode_api_error(Response(418, {}, b""))

    assert error.summary == "datasets.get: the server returned 418 (no reason given)."
    assert error.server_version is None
    assert error.request_id is None
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "message", "expected", "hint"),
    [
        (403, RATE, dify_kb.RateLimitedError, "Wait a minute"),
        (403, RATE.upper(), dify_kb.RateLimitedError, "Wait a minute"),
        (403, SPACE, dify_kb.QuotaExceededError, "retrying does not help"),
        (403, DOCUMENTS, dify_kb.QuotaExceededError, "retrying does not help"),
        (400, DAEMON, dify_kb.ServerError, "plugin daemon is down"),
        (403, "Dataset api access is not enabled.", dify_kb.ForbiddenError, "API access"),
        (
            400,
            "You have reached the limit of your subscription.",
            dify_kb.QuotaExceededError,
            "retrying does not help",
        ),
        (
            400,
            "Default model not found for text-embedding",
            dify_kb.BadRequestError,
            "economy dataset",
        ),
        (400, "Document is not available", dify_kb.BadRequestError, "is indexed"),
    ],
)
def test_errors_that_differ_only_in_their_message_are_distinguished(
    status: int, message: str, expected: type[ApiError], hint: str
) -> None:
    """A rate limit is temporary, a plan limit is not; Dify sends both as 403 forbidden."""
    error = decode_api_error(
        make_response(status, {"code": "forbidden", "message": message, "status": status})
    )

    assert type(error) is expected
    assert hint in error.hint


def test_the_rate_limit_message_counts_only_with_status_403() -> None:
    """A 404 about a document called "request rate limit" must not be retried."""
    error = decode_api_error(
        make_response(404, {"code": "not_found", "message": RATE, "status": 404})
    )

    assert type(error) is dify_kb.NotFoundError


def test_an_empty_refusal_of_a_file_names_both_reasons() -> None:
    """An unsupported type and a file too large both get an empty message (measured)."""
    response = make_response(400, {"code": "invalid_param", "message": "", "status": 400})
    with pytest.raises(dify_kb.BadRequestError) as raised:
        decode_response(CREATE_BY_FILE, response)

    assert "type and size" in raised.value.hint
    assert "invalid_param" in str(raised.value)


def test_an_empty_refusal_of_anything_else_does_not_speak_of_files() -> None:
    """The hint applies to one operation only."""
    error = decode_api_error(
        make_response(400, {"code": "invalid_param", "message": "", "status": 400})
    )

    assert "size" not in error.hint


@pytest.mark.parametrize(
    ("status", "title", "expected"),
    [
        (404, "404 Not Found", dify_kb.NotFoundError),
        (413, "413 Request Entity Too Large", dify_kb.TooLargeError),
        (502, "502 Bad Gateway", dify_kb.ServerError),
        (503, "503 Service Temporarily Unavailable", dify_kb.ServerError),
        (504, "504 Gateway Time-out", dify_kb.ServerError),
    ],
)
def test_a_proxy_page_is_described_by_its_title(
    status: int, title: str, expected: type[ApiError]
) -> None:
    """The title is readable in a log line, unlike three kilobytes of markup."""
    error = decode_api_error(make_response(status, html_page(title)))

    assert type(error) is expected
    assert error.message == f"an HTML page ({title})"
    assert "<" not in str(error)
    assert error.code == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><body>no title</body></html>", "an HTML page"),
        (b"  <!DOCTYPE HTML>\n<TITLE lang=en>\n Two \n words </TITLE>", "an HTML page (Two words)"),
        (b"<html><title>" + b"x" * 500 + b"</title>", f"an HTML page ({'x' * 80})"),
        (b"<html><title>\xff</title>", "an HTML page (\ufffd)"),
    ],
)
def test_html_is_detected_by_its_beginning_whatever_its_content_type(
    body: bytes, message: str
) -> None:
    """Some proxies send their pages with another content type, or without one."""
    assert decode_api_error(make_response(502, body, kind="text/plain")).message == message


def test_a_missing_route_differs_from_a_missing_resource() -> None:
    """The server returns an HTML page for an unknown route or an invalid id."""
    route = decode_api_error(make_response(404, html_page("404 Not Found")))
    thing = decode_api_error(
        make_response(404, {"code": "not_found", "message": "Dataset not found."})
    )

    assert "no such route" in route.hint
    assert "Check the id" in thing.hint


def test_a_plain_text_error_is_truncated() -> None:
    """The beginning of a text is the most useful part."""
    error = decode_api_error(make_response(502, b"upstream \xff" + b"x" * 5000, kind="text/plain"))

    assert error.message.startswith("upstream \ufffdx")
    assert len(error.message) <= 200


def test_a_very_long_message_is_truncated() -> None:
    """Validation errors echo the whole input, which may be a document."""
    error = decode_api_error(
        make_response(400, {"code": "invalid_param", "message": "x" * 100_000})
    )

    assert len(error.message) == 1000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_its_target(status: int) -> None:
    """Following the redirect would turn the POST into a GET (measured)."""
    response = make_response(
        status, html_page("301 Moved"), {"location": "https://dify.test/v1/datasets"}
    )

    error = decode_api_error(response)

    assert type(error) is ApiError
    assert "https://dify.test/v1/datasets" in error.summary


@pytest.mark.parametrize("status", [300, 304, 399])
def test_a_redirect_without_target_is_not_a_success(status: int) -> None:
    assert decode_api_error(make_response(status)).status == status


# --- Retry-After


@pytest.mark.parametrize("body", [b"", b'{"url": "https://a.test"}', b"null", b"PK"])
def test_a_download_that_is_not_an_archive_is_an_error(body: bytes) -> None:
    """A proxy that answers for the server would otherwise become the user's file."""
    call = catalog.DOWNLOAD_ZIP(DocumentIds(document_ids=["d2"]), dataset_id="d1")

    with pytest.raises(ProtocolError, match=r"documents.download_zip: .* 200 with"):
        decode_response(call, Response(200, {"content-type": "application/zip"}, body))


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("-5", 0.0),
        ("1e9", 1e9),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("soon", None),
        ("", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2026 23:59:59 +99999999999999999999", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_ignored(hint: str, expected: float | None) -> None:
    """An invalid header must not fail the call."""
    assert (
        decode_api_error(make_response(429, headers={"retry-after": hint})).retry_after == expected
    )


@pytest.mark.parametrize(
    ("zone", "seconds", "expected"),
    [("GMT", 90, 90.0), ("GMT", -90, 0.0), ("-0000", 90, 90.0), ("GMT", 0, 0.0)],
)
def test_a_retry_after_date_is_relative_to_the_server_clock(
    zone: str, seconds: int, expected: float
) -> None:
    """The two clocks may differ by minutes; both dates are by the server's clock."""
    now = datetime(2020, 1, 1, tzinfo=UTC)
    until = format_datetime(now + timedelta(seconds=seconds), usegmt=True).replace("GMT", zone)
    headers = {"retry-after": until, "date": format_datetime(now, usegmt=True)}

    assert decode_api_error(make_response(503, headers=headers)).retry_after == expected


def test_a_retry_after_date_without_a_date_header_uses_the_local_clock() -> None:
    """A delay that is wrong by some seconds is better than none."""
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    seconds = decode_api_error(make_response(503, headers={"retry-after": until})).retry_after

    assert seconds is not None
    assert 3500 < seconds <= 3600


@given(hint=st.text(max_size=40), date=st.text(max_size=40))
def test_an_invalid_retry_after_does_not_break_decoding(hint: str, date: str) -> None:
    """Proxies may send any header."""
    seconds = decode_api_error(
        make_response(429, headers={"retry-after": hint, "date": date})
    ).retry_after

    assert seconds is None or seconds >= 0


# --- successes


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"204\n"), (200, {"result": "success"}), (204, b""), (200, b"")]
)
def test_a_delete_succeeds_whatever_its_body(status: int, body: object) -> None:
    """Four versions send four different responses (measured)."""
    assert decode_response(DELETE, make_response(status, body)) is None


def test_any_2xx_is_a_success() -> None:
    """Callers do not need to distinguish 201 and 200."""
    call = catalog.GET_SERVER_INFO.call()

    assert (
        decode_response(call, make_response(201, {"server_version": "2.0"})).server_version == "2.0"
    )


def test_an_html_page_is_a_protocol_error() -> None:
    """The console's address, a wrong base URL, returns 200 with a page."""
    error = decode_protocol_error(make_response(200, html_page("Dify")))

    assert error.complete
    assert (error.endpoint, error.status) == ("datasets.get", 200)
    assert "an HTML page (Dify)" in str(error)
    assert "base URL" in error.hint


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": "d1", "na', b'"', b"tru", b"\xff"])
def test_a_cut_body_is_not_complete(body: bytes) -> None:
    """The server may have carried out the request: retry a read, but not a create."""
    assert not decode_protocol_error(make_response(200, body)).complete


@pytest.mark.parametrize("body", [{}, [], None, {"id": "d1"}, 204, "text"])
def test_json_of_something_else_is_complete(body: object) -> None:
    """A retry would return the same."""
    error = decode_protocol_error(make_response(200, body))

    assert error.complete
    assert error.hint


def test_json_of_something_else_names_the_field() -> None:
    """A bug report about a new version needs the name of the field."""
    call = catalog.LIST_DATASETS(catalog.LIST_DATASETS.request_type())
    with pytest.raises(ProtocolError, match=r"required field missing @ \$\.data\[0\]\.id"):
        decode_response(
            call, make_response(200, {"data": [{}], "total": 1, "page": 1, "limit": 20})
        )

    assert catalog.LIST_DATASETS.response_type == Page[Dataset]


@pytest.mark.parametrize("status", [200, 400, 500])
def test_endless_nesting_is_a_knowledge_error(status: int) -> None:
    """Python's JSON parser raises RecursionError, which callers do not expect."""
    with pytest.raises(KnowledgeError):
        decode_response(GET, make_response(status, b"[" * 100_000))


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=60) | st.text(max_size=30).map(lambda text: json.dumps(text).encode()),
    kind=st.sampled_from(["application/json", "text/html", "", "text/plain; charset=latin-1"]),
)
def test_any_response_is_a_value_or_a_knowledge_error(status: int, body: bytes, kind: str) -> None:
    """Callers catch KnowledgeError for anything that a server or a proxy may send."""
    calls: list[Call[Any]] = [GET, DELETE, CREATE_BY_FILE, RETRIEVE, GET_DOCUMENT]
    for call in calls:
        try:
            decode_response(call, make_response(status, body, kind=kind))
        except KnowledgeError as error:
            told = error.summary and error.hint
        else:
            told = "a success" if 200 <= status < 300 else ""

        assert told
