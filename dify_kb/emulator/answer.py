"""Replies in the shapes of Dify, of werkzeug before it, and of nginx before both."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dify_kb.wire import codec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .profiles import Profile
    from .refused import RefusedError

_SENT_IF_SET: Final = frozenset({"upload_file", "upload_file_id", "partial_member_list"})
"""Fields that no server sends as null: an answer has them, or does not."""

_THEIRS: Final = frozenset({"doc_metadata", "retrieval_model_dict"})
"""Fields with keys that are not ours to judge."""

_MISSING_PAGE: Final = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL manually please"
    " check your spelling and try again.</p>\n"
)


def success(
    profile: Profile, status: int, value: object, only: Collection[str] | None
) -> web.Response:
    """Answer with a model."""
    if value is None:
        return _reply(profile, profile.delete_status, profile.delete_body)
    fields = _sent(codec.encode(value), profile.never_sent)
    if only is not None and isinstance(fields, dict):
        fields = {name: field for name, field in fields.items() if name in only}
    return _reply(profile, status, _json(fields))


def refusal(profile: Profile, refused: RefusedError) -> web.Response:
    """Answer with a reason."""
    body = {"code": refused.code, "message": refused.message, "status": refused.status}
    response = _reply(profile, refused.status, _json(body))
    if refused.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="api"'
    return response


def crash(profile: Profile) -> web.Response:
    """Answer what an exception that nobody foresaw is answered with."""
    body = {"message": "Internal Server Error", "code": "unknown", "status": 500}
    return _reply(profile, 500, _json(body))


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
    """Answer as nginx does when it does not pass a request on (findings.md §12)."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return web.Response(
        status=status,
        text=f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}"
        "</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        content_type="text/html",
        headers={"Server": "nginx/1.22.1"} | dict(headers or {}),
    )


def _reply(profile: Profile, status: int, body: bytes) -> web.Response:
    response = web.Response(status=status, body=body or None, headers=_headers(profile))
    response.headers["Content-Type"] = "application/json"
    return response


def _headers(profile: Profile) -> dict[str, str]:
    return {"X-Version": profile.version, "X-Env": "PRODUCTION", "Server": "gunicorn"}


def _json(value: object) -> bytes:
    """Write as flask-restx does: compact, ASCII, with a line end (recordings 000, 221)."""
    return f"{json.dumps(value, separators=(',', ':'))}\n".encode()


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
