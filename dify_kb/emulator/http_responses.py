"""Build HTTP responses as sent by Dify, by werkzeug and by an nginx in front."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web

from dify_kb.models import Event
from dify_kb.wire import codec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dify_kb.wire.endpoint import Endpoint

    from .errors import EmulatedError
    from .request_context import RequestNotes
    from .server_profile import ServerProfile
    from .store import DocumentRow

_OMITTED_IF_NULL: Final = frozenset(
    {
        "count",
        "error_code",
        "estimated_vector_space_mb",
        "has_more",
        "partial_member_list",
        "upload_file",
        "upload_file_id",
        "vector_space_limit_mb",
    }
)
"""Fields that servers omit instead of sending null."""

_OPAQUE_FIELDS: Final = frozenset({"doc_metadata", "retrieval_model_dict"})
"""Fields with arbitrary keys, which are sent unchanged."""

_NOT_FOUND_PAGE: Final = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL manually please"
    " check your spelling and try again.</p>\n"
)

_LOGIN_PAGE: Final = (
    "<!doctype html>\n<html><head><title>Sign in</title></head>\n<body><form method=post>"
    "<input name=user><input name=password type=password></form></body></html>\n"
)

_NGINX_REASONS: Final = {
    413: "Request Entity Too Large",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
"""Reason phrases of nginx that differ from Python's (recordings of nginx)."""


def success_response(
    profile: ServerProfile, endpoint: Endpoint[Any, Any], value: object, notes: RequestNotes
) -> web.Response:
    """Return a success response: a model, a file, a stream of events, or only the status."""
    if notes.events is not None:
        return _event_stream(profile, notes.events)
    if isinstance(value, bytes):
        response = _build_response(profile, endpoint.status, value, "application/zip")
        name = f"{uuid.uuid4().hex}.zip"
        response.headers["Content-Disposition"] = f"attachment; filename={name}"
        return response
    if value is None:
        return _empty_success(profile, endpoint)
    if isinstance(value, Event):
        return _build_response(profile, endpoint.status, _to_json(profile, value.data))
    fields = _drop_unsent_fields(codec.encode(value), profile.unknown_fields)
    if notes.float_fields and isinstance(fields, dict):
        fields |= {name: float(fields[name]) for name in notes.float_fields if name in fields}
    if notes.response_fields is not None and isinstance(fields, dict):
        fields = {name: field for name, field in fields.items() if name in notes.response_fields}
    return _build_response(profile, endpoint.status, _to_json(profile, fields))


def _empty_success(profile: ServerProfile, endpoint: Endpoint[Any, Any]) -> web.Response:
    if endpoint.status == HTTPStatus.NO_CONTENT:
        return _build_response(profile, profile.delete_status, profile.delete_body)
    if endpoint.name in profile.bare_success_endpoints:
        return _build_response(profile, 200, b"200\n")
    return _build_response(profile, 200, _to_json(profile, {"result": "success"}))


def _event_stream(profile: ServerProfile, events: Sequence[Event]) -> web.Response:
    body = "".join(f"data: {json.dumps(event.data)}\n\n" for event in events)
    return _build_response(profile, 200, body.encode(), "text/event-stream")


def error_response(profile: ServerProfile, error: EmulatedError) -> web.Response:
    """Return the response for an error."""
    response = _build_response(profile, error.status, _to_json(profile, error.body))
    if profile.sends_challenge and error.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="api"'
    return response


def crash_response(profile: ServerProfile) -> web.Response:
    """Return the 500 of an unhandled exception."""
    body: dict[str, object] = {"message": "Internal Server Error", "code": "unknown"}
    if profile.crash_body_has_status:
        body["status"] = 500
    return _build_response(profile, 500, _to_json(profile, body))


def file_response(
    profile: ServerProfile, row: DocumentRow, content: bytes, *, attachment: bool
) -> web.Response:
    """Return a document's file, optionally as an attachment that browsers save."""
    kind = row.file_mime_type or "application/octet-stream"
    response = _build_response(profile, 200, content, kind)
    if attachment:
        name = quote(row.file_name)
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    return response


def not_found_page(profile: ServerProfile) -> web.Response:
    """Return the HTML 404 of an unknown route."""
    return web.Response(
        status=404,
        text=_NOT_FOUND_PAGE,
        content_type="text/html",
        charset="utf-8",
        headers=_server_headers(profile),
    )


def options_response(profile: ServerProfile, methods: Collection[str]) -> web.Response:
    """Return the response of werkzeug to OPTIONS, which needs no API key (878, 1215)."""
    headers = _server_headers(profile) | {"Allow": ", ".join([*sorted(methods), "OPTIONS"])}
    return web.Response(content_type="text/html", charset="utf-8", headers=headers)


def moved_page(profile: ServerProfile, location: str) -> web.Response:
    """Return the 308 of werkzeug for another spelling of a path (1221)."""
    return web.Response(
        status=308,
        text="<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting..."
        "</h1>\n<p>You should be redirected automatically to the target URL: <a href="
        f'"{location}">{location}</a>. If not, click the link.\n',
        content_type="text/html",
        charset="utf-8",
        headers=_server_headers(profile) | {"Location": location},
    )


def proxy_page(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error page of nginx, as sent without passing the request on (measured)."""
    reason = _NGINX_REASONS.get(status) or HTTPStatus(status).phrase
    title = f"{status} {reason}"
    response = web.Response(
        status=status,
        reason=reason,
        text=f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}"
        "</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        content_type="text/html",
        headers={"Server": "nginx/1.22.1"} | dict(headers or {}),
    )
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The rest of the body is read and discarded, then the connection is closed.
        response.force_close()
    return response


def empty_response(profile: ServerProfile) -> web.Response:
    """Return a 200 with an empty JSON object."""
    return _build_response(profile, 200, _to_json(profile, {}))


def login_page() -> web.Response:
    """Return a 200 with an HTML sign-in page, as gateways do."""
    return web.Response(text=_LOGIN_PAGE, content_type="text/html", charset="utf-8")


def redirect_response(location: str) -> web.Response:
    """Return a 302 to `location`, as gateways do for clients that are not signed in."""
    return web.Response(
        status=HTTPStatus.FOUND,
        text=f"<a href={location}>Found</a>.\n",
        content_type="text/html",
        charset="utf-8",
        headers={"Location": location},
    )


def _build_response(
    profile: ServerProfile, status: int, body: bytes, content_type: str = "application/json"
) -> web.Response:
    response = web.Response(status=status, body=body or None, headers=_server_headers(profile))
    response.headers["Content-Type"] = content_type
    return response


def _server_headers(profile: ServerProfile) -> dict[str, str]:
    return {"X-Version": profile.version, "X-Env": "PRODUCTION", "Server": "gunicorn"}


def _to_json(profile: ServerProfile, value: object) -> bytes:
    """Encode as ASCII JSON with a final newline; compact on versions with `compact_json`.

    See §1.5 and recordings 000, 221.
    """
    separators = (",", ":") if profile.compact_json else None
    return f"{json.dumps(value, separators=separators)}\n".encode()


def _drop_unsent_fields(value: object, never_sent: frozenset[str]) -> object:
    if isinstance(value, list):
        return [_drop_unsent_fields(item, never_sent) for item in value]
    if not isinstance(value, dict):
        return value
    fields = value.copy()
    for name in value.keys() & never_sent:
        del fields[name]
    for name in fields.keys() & _OMITTED_IF_NULL:
        if fields[name] is None:
            del fields[name]
    for name, field in fields.items():
        if type(field) in {dict, list} and name not in _OPAQUE_FIELDS:
            fields[name] = _drop_unsent_fields(field, never_sent)
    return fields
