"""Decode a response into a model, or raise the matching error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import evolve, frozen

from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    ServerError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedTypeError,
)
from dify_kb.models import DOCUMENT_EXTENSIONS, MAX_FILE_SIZE, Event

from . import codec
from .version_bugs import find_bug_hint

if TYPE_CHECKING:
    from .endpoint import Call

R = TypeVar("R")

READ_HEADERS = ("content-type", "x-version", "x-request-id", "retry-after", "date", "location")
"""The response headers that are used."""

_JSON_ERRORS = (ValueError, RecursionError)
"""The exceptions of `json.loads`; RecursionError for deeply nested values."""

_LOGIN = re.compile(r"log-?in|sign-?in|sign in|log in|\bauth|oauth|\bsso\b|saml", re.IGNORECASE)
"""Words in the title or address of a login page."""

_LOGIN_HINT = (
    "Use an address that programs can reach without a login: a proxy in front of the server asks"
    " for one."
)

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)

_ERRORS_BY_STATUS: Mapping[int, tuple[type[ApiError], str]] = {
    400: (BadRequestError, "Correct the request; retrying does not help."),
    401: (
        UnauthorizedError,
        "Use a knowledge API key (dataset-…) of this server; app keys are not accepted.",
    ),
    402: (QuotaExceededError, "The plan's limit is reached; retrying does not help."),
    403: (
        ForbiddenError,
        "Check that the dataset belongs to the key's workspace and that its API access is enabled.",
    ),
    404: (NotFoundError, "Check the id: it must belong to this server and the key's workspace."),
    407: (
        ApiError,
        "Pass the proxy's credentials in its address: http://USER:PASSWORD@HOST:PORT.",
    ),
    405: (BadRequestError, "Check the server's version: it does not support this operation."),
    408: (RateLimitedError, "Try again: the server timed out while reading the request."),
    409: (ConflictError, "Choose another name, or use the existing object of that name."),
    413: (
        TooLargeError,
        "Send a smaller file, or raise UPLOAD_FILE_SIZE_LIMIT and the proxy's body size.",
    ),
    415: (UnsupportedTypeError, "Send a file type that the server accepts."),
    422: (BadRequestError, "Correct the request; retrying does not help."),
    425: (RateLimitedError, "Wait, then try again."),
    429: (RateLimitedError, "Wait, then try again with fewer concurrent requests."),
}

# Dify distinguishes these errors only by their message (measured, with billing enabled).
_ERRORS_BY_MESSAGE: tuple[tuple[int, str, type[ApiError], str], ...] = (
    (
        403,
        "request rate limit",
        RateLimitedError,
        "Wait a minute: rejected requests also count towards the limit.",
    ),
    (
        403,
        "archived document",
        ForbiddenError,
        "Unarchive the document first.",
    ),
    (
        403,
        "has reached the limit",
        QuotaExceededError,
        "The plan's limit of documents or vector space is reached; retrying does not help.",
    ),
    (
        400,
        "limit of your subscription",
        QuotaExceededError,
        "The plan's limit of documents is reached; retrying does not help.",
    ),
    (
        400,
        "failed to request plugin daemon",
        ServerError,
        "Try again later: the server's plugin daemon is down. The key and the request are valid.",
    ),
    *(
        (400, words, BadRequestError, "Use https:// in the base URL.")
        for words in (  # of nginx, Go and Apache
            "http request was sent to https port",
            "http request to an https server",
            "speaking plain http to an ssl-enabled",
        )
    ),
    (
        400,
        "default model not found",
        BadRequestError,
        "Configure a default model in the workspace, or use an economy dataset (keyword search).",
    ),
    (
        400,
        "document is not available",
        BadRequestError,
        "Wait until the document is indexed; enable or unarchive it; create it again if it failed.",
    ),
)


_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of an archive, and of an empty one."""


@frozen
class Response:
    """An undecoded response, with the headers of `READ_HEADERS`.

    `server_seconds` is the time from the last byte of the request to the response headers.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    server_seconds: float | None = None


def decode_response(call: Call[R], response: Response) -> R:
    """Decode the response to `call`.

    Raises:
        ApiError: the server responded with an error.
        ProtocolError: a 2xx response with a body that the API does not document.
    """
    if not 200 <= response.status < 300:
        raise _api_error(call, response)
    response_type = call.endpoint.response_type
    if response_type is NoneType:
        # A delete returns 204, or 200 with the body `204`, `200` or an object (measured).
        return cast("R", None)
    if response_type is bytes:
        if not response.body.startswith(_ZIP_SIGNATURES):
            raise _protocol_error(call.endpoint.name, response, "not a zip archive")
        return cast("R", response.body)
    if response_type is Event:
        response = evolve(response, body=b'{"event": "", "data": %s}' % (response.body or b"null"))
    try:
        return codec.from_json(response_type, response.body)
    except codec.DecodeError as error:
        raise _protocol_error(call.endpoint.name, response, str(error)) from error


def _protocol_error(endpoint: str, response: Response, reason: str) -> ProtocolError:
    if _is_html(response):
        description = _describe_html_page(response.body)
        hint = (
            _LOGIN_HINT
            if _LOGIN.search(description)
            else "Check the base URL: it should be the address of a Dify API (…/v1), not of a web"
            " page."
        )
    elif not response.body:
        description = "an empty body"
        hint = "Check the proxies between this client and the server."
    else:
        description = f"an unexpected body: {reason}"
        hint = find_bug_hint(endpoint, response.headers.get("x-version"), response.status) or (
            "Check that the server is a Dify server of a supported version."
        )
    return ProtocolError(
        f"{endpoint}: the server returned {response.status} with {description}.",
        endpoint=endpoint,
        status=response.status,
        complete=_is_html(response) or _is_json(response.body),
        page=_is_html(response),
        hint=hint,
    )


def _api_error(call: Call[Any], response: Response) -> ApiError:
    endpoint = call.endpoint.name
    code, message = _read_code_and_message(response)
    version = response.headers.get("x-version")
    if 300 <= response.status < 400:
        error_class, hint = ApiError, _describe_redirect(call, response)
        message = f"redirect to {response.headers.get('location', 'no address')}"
    else:
        error_class, hint = _classify_error(endpoint, response, message)
    absence = call.endpoint.describe_absence(version) if _is_missing_route(response) else None
    if absence:
        error_class = NotFoundError
        hint = f"Dify {version} does not have this operation: {absence}."
    hint = find_bug_hint(endpoint, version, response.status, message) or hint
    retry_after = _parse_retry_after(response.headers)
    if retry_after:
        hint = hint.replace("Wait,", f"Wait {retry_after:.0f} s,", 1)
    explanation = ": ".join(part for part in (code, message) if part) or "no reason given"
    return error_class(
        f"{endpoint}: the server returned {response.status} ({explanation}"
        f"{f'; Dify {version}' if version else ''}).",
        endpoint=endpoint,
        status=response.status,
        code=code,
        message=message,
        server_version=version,
        request_id=response.headers.get("x-request-id"),
        retry_after=retry_after,
        hint=hint,
    )


def _classify_error(endpoint: str, response: Response, message: str) -> tuple[type[ApiError], str]:
    status = response.status
    is_from_proxy = _is_html(response) and "x-version" not in response.headers
    if status >= 500:
        return ServerError, (
            "Try again later; check that the Dify API is running behind the proxy that answered."
            if is_from_proxy
            else "Try again later; see the server's log for details."
        )
    if status in {401, 403} and is_from_proxy:
        return _ERRORS_BY_STATUS[status][0], (
            "Check the proxy or firewall in front of the server: it answered, not Dify. The API key"
            " was not checked."
        )
    if status == 400 and not message and endpoint == "documents.create_by_file":
        return BadRequestError, (
            "Check the file's type and size: the server rejected one of them. By default it accepts"
            f" {', '.join(sorted(DOCUMENT_EXTENSIONS))} files of at most {MAX_FILE_SIZE >> 20} MiB."
        )
    lowered = message.lower()
    for error_status, words, error_class, hint in _ERRORS_BY_MESSAGE:
        if status == error_status and words in lowered:
            return error_class, hint
    if status == 404 and _is_html(response):
        return NotFoundError, (
            "Check the path of the base URL: there is no Dify API at this address."
            if is_from_proxy
            else "Check the base URL and the server's version: there is no such route."
        )
    return _ERRORS_BY_STATUS.get(status, (ApiError, "See the server's documentation."))


def _describe_redirect(call: Call[Any], response: Response) -> str:
    """Return the remedy for a redirect, which is not followed: a POST would become a GET."""
    target = response.headers.get("location", "")
    for path in (call.path, call.legacy_path):
        # The path of the server information is only a slash, as that of many pages.
        suffix = "/v1/" if path == "/" else path
        if suffix and target.rstrip("/").endswith(suffix.rstrip("/")):
            base_url = target.rstrip("/").removesuffix((path or "").rstrip("/"))
            return f"Use the address of the redirect as base URL: {base_url}."
    if _LOGIN.search(target):
        return _LOGIN_HINT
    return "Check the base URL: it should be the address of a Dify API (…/v1)."


def _read_code_and_message(response: Response) -> tuple[str, str]:
    """Return code and message from any error format that servers and proxies use."""
    if _is_html(response):
        return "", _describe_html_page(response.body)
    try:
        value = json.loads(response.body)
    except _JSON_ERRORS:
        return "", response.body[:200].decode(errors="replace").strip()
    if not isinstance(value, dict):
        return "", str(value)[:200]
    messages = (value.get(name) for name in ("message", "error", "error_msg"))
    message = next((text for text in messages if text is not None), "")
    details = value.get("errors")
    if isinstance(details, dict):
        message = f"{message} {'; '.join(f'{name}: {text}' for name, text in details.items())}"
    if value.get("params"):
        message = f"{message} [{value['params']}]"
    return str(value.get("code") or ""), str(message)[:1000]


def _parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; a date is relative to the server's clock."""
    hint = headers.get("retry-after", "").strip()
    if not hint:
        return None
    try:
        seconds = float(hint)
    except ValueError:
        until, now = _parse_date(hint), _parse_date(headers.get("date", ""))
        if until is None:
            return None
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _parse_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _is_html(response: Response) -> bool:
    start = response.body[:200].lstrip().lower()
    content_type = response.headers.get("content-type", "")
    return "html" in content_type or start.startswith((b"<!doctype", b"<html"))


def _is_missing_route(response: Response) -> bool:
    """Return whether the route is missing: a 404 in HTML; other 404s are JSON (measured)."""
    return response.status == 405 or (response.status == 404 and _is_html(response))


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except _JSON_ERRORS:
        return False
    return True


def _describe_html_page(body: bytes) -> str:
    title = _TITLE.search(body[:4096].decode(errors="replace"))
    return f"an HTML page ({' '.join(title[1].split())[:80]})" if title else "an HTML page"
