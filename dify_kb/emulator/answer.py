"""Replies in the shapes of Dify, of werkzeug before it, and of nginx before both."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web

from dify_kb.models import Event
from dify_kb.wire import codec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dify_kb.wire.endpoint import Endpoint

    from .context import Notes
    from .profile import Profile
    from .refused import RefusedError
    from .store import DocumentRow

_SENT_IF_SET: Final = frozenset({"upload_file", "upload_file_id", "partial_member_list", "count"})
"""Fields that no server sends as null: an answer has them, or does not."""

_THEIRS: Final = frozenset({"doc_metadata", "retrieval_model_dict"})
"""Fields with keys that are not ours to judge."""

_MISSING_PAGE: Final = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL manually please"
    " check your spelling and try again.</p>\n"
)

_LOGIN_PAGE: Final = (
    "<!doctype html>\n<html><head><title>Sign in</title></head>\n<body><form method=post>"
    "<input name=user><input name=password type=password></form></body></html>\n"
)

_NGINX: Final = {
    413: "Request Entity Too Large",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
"""Where nginx says it otherwise than Python (recordings of nginx)."""


def success(
    profile: Profile, endpoint: Endpoint[Any, Any], value: object, notes: Notes
) -> web.Response:
    """Answer with a model, a file, events, or that it is done."""
    if notes.events is not None:
        return _stream(profile, notes.events)
    if isinstance(value, bytes):
        return _reply(profile, endpoint.status, value, "application/zip")
    if value is None:
        return _done(profile, endpoint)
    if isinstance(value, Event):
        return _reply(profile, endpoint.status, _json(profile, value.data))
    fields = _sent(codec.encode(value), profile.never_sent)
    if notes.floats and isinstance(fields, dict):
        fields |= {name: float(fields[name]) for name in notes.floats if name in fields}
    if notes.only is not None and isinstance(fields, dict):
        fields = {name: field for name, field in fields.items() if name in notes.only}
    return _reply(profile, endpoint.status, _json(profile, fields))


def _done(profile: Profile, endpoint: Endpoint[Any, Any]) -> web.Response:
    if endpoint.status == HTTPStatus.NO_CONTENT:
        return _reply(profile, profile.delete_status, profile.delete_body)
    if endpoint.name in profile.bare_success:
        return _reply(profile, 200, b"200\n")
    return _reply(profile, 200, _json(profile, {"result": "success"}))


def _stream(profile: Profile, events: Sequence[Event]) -> web.Response:
    body = "".join(f"data: {json.dumps(event.data)}\n\n" for event in events)
    return _reply(profile, 200, body.encode(), "text/event-stream")


def refusal(profile: Profile, refused: RefusedError) -> web.Response:
    """Answer with a reason."""
    response = _reply(profile, refused.status, _json(profile, refused.body))
    if profile.challenge and refused.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="api"'
    return response


def crash(profile: Profile) -> web.Response:
    """Answer what an exception that nobody foresaw is answered with."""
    body: dict[str, object] = {"message": "Internal Server Error", "code": "unknown"}
    if profile.crash_status:
        body["status"] = 500
    return _reply(profile, 500, _json(profile, body))


def file(profile: Profile, row: DocumentRow, content: bytes, *, attachment: bool) -> web.Response:
    """Answer with a document's file."""
    kind = row.file_mime_type or "application/octet-stream"
    response = _reply(profile, 200, content, kind)
    if attachment:
        name = quote(row.file_name)
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    return response


def missing_page(profile: Profile) -> web.Response:
    """Answer that there is no such route."""
    return web.Response(
        status=404,
        text=_MISSING_PAGE,
        content_type="text/html",
        charset="utf-8",
        headers=_headers(profile),
    )


def proxy_page(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as nginx does when it does not pass a request on (measured)."""
    reason = _NGINX.get(status) or HTTPStatus(status).phrase
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
        # What is left of the body is read and dropped, then the connection is closed.
        response.force_close()
    return response


def empty(profile: Profile) -> web.Response:
    """Answer a success that says nothing."""
    return _reply(profile, 200, _json(profile, {}))


def login_page() -> web.Response:
    """Answer as a gateway does that wants to know first who is there."""
    return web.Response(text=_LOGIN_PAGE, content_type="text/html", charset="utf-8")


def redirect(location: str) -> web.Response:
    """Answer as a gateway does that sends whoever is not signed in elsewhere."""
    return web.Response(
        status=HTTPStatus.FOUND,
        text=f"<a href={location}>Found</a>.\n",
        content_type="text/html",
        charset="utf-8",
        headers={"Location": location},
    )


def _reply(
    profile: Profile, status: int, body: bytes, content_type: str = "application/json"
) -> web.Response:
    response = web.Response(status=status, body=body or None, headers=_headers(profile))
    response.headers["Content-Type"] = content_type
    return response


def _headers(profile: Profile) -> dict[str, str]:
    return {"X-Version": profile.version, "X-Env": "PRODUCTION", "Server": "gunicorn"}


def _json(profile: Profile, value: object) -> bytes:
    """Write ASCII with a line end, and compact since flask-restx (§1.5; recordings 000, 221)."""
    separators = (",", ":") if profile.compact else None
    return f"{json.dumps(value, separators=separators)}\n".encode()


def _sent(value: object, never: Collection[str]) -> object:
    if isinstance(value, list):
        return [_sent(item, never) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: field if name in _THEIRS else _sent(field, never)
        for name, field in value.items()
        if name not in never and (field is not None or name not in _SENT_IF_SET)
    }
