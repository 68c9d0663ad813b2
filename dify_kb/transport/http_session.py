"""Send single HTTP requests with aiohttp, and convert its errors to those of this package."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode, urljoin

import aiohttp
import anyio
from attrs import Factory, evolve, field, frozen
from yarl import URL

from dify_kb.config import KEEP_ALIVE, Config, Timeout
from dify_kb.errors import KnowledgeError, RequestTimeoutError
from dify_kb.models import Event
from dify_kb.wire import codec
from dify_kb.wire.decode_response import READ_HEADERS, Response
from dify_kb.wire.endpoint import Call, RequestEncoding

from .clock import loop_time
from .connection_errors import convert_error

if TYPE_CHECKING:
    import ssl as _ssl
    from contextlib import AbstractAsyncContextManager

    from .upload_body import UploadBody

MAX_ERROR_BODY = 64 * 1024
"""Maximum bytes read of an error response; proxies may send long pages."""

_FOREIGN_ERRORS = (aiohttp.ClientError, OSError, ValueError)
"""The exceptions of aiohttp, the system and the SSL library; ValueError for invalid addresses."""

EVENT_STREAM_TYPE = "text/event-stream"
_JSON = "application/json"
_USER_AGENT = f"dify-kb/{importlib.metadata.version('dify-kb')}"


def is_event_stream(response: Response) -> bool:
    """Return whether a response is part of an event stream."""
    kind = response.headers.get("content-type", "")
    return kind.startswith(EVENT_STREAM_TYPE) and 200 <= response.status < 300  # noqa: PLR2004 -- any 2xx


@functools.lru_cache
def _client_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)


def open_session(*, proxy: str | None, ssl: _ssl.SSLContext | None) -> aiohttp.ClientSession:
    """Open an aiohttp session. Its pool is unlimited, as `RequestLimiter` limits requests.

    Its `trust_env` is off, as it would also read credentials from a netrc file.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE, ssl=True if ssl is None else ssl
        ),
        proxy=proxy,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    # aiohttp silently repeats a GET or DELETE after a connection reset (3.12 to 3.14, without a
    # public option): a delete that succeeded would then get a 404.
    session._retry_connection = False  # noqa: SLF001 -- see above
    return session


@frozen
class HTTPSession:
    """A session that sends requests to one server. Does not close the aiohttp session."""

    _http: aiohttp.ClientSession
    _config: Config
    _headers: Mapping[str, str]
    _default_headers: Mapping[str, str] = field(
        init=False, repr=False, default=Factory(lambda self: self._build_headers(), takes_self=True)
    )

    async def attempt(
        self, call: Call[Any], body: UploadBody | None, allowed: Timeout, version: str | None = None
    ) -> Response:
        """Send one request and return the response. `version` selects the server's route.

        Raises:
            ConnectError: the connection failed; nothing was sent.
            RequestTimeoutError: a timeout expired.
            TransportError: the connection was lost; `delivered` is whether the server may have
                received the request.
            SourceError: the file could not be read, or changed.
        """
        endpoint = call.endpoint
        data: bytes | AsyncIterator[bytes] | None
        answer = allowed.read if endpoint.method == "GET" else allowed.answer
        is_answered = False
        with anyio.move_on_after(allowed.connect + answer) as scope:
            try:
                if body is None:
                    headers, data = _encode_body(call)
                else:
                    data = await body.open(scope)
                    headers = body.headers
                sent_at = loop_time()
                async with self._request(call, version, allowed, headers, data) as response:
                    is_answered = True
                    if body is not None and body.sent_at is not None:
                        sent_at = body.sent_at
                    waited = loop_time() - sent_at
                    return self._to_response(response, await self._read(response), waited)
            except KnowledgeError:
                raise
            except _FOREIGN_ERRORS as error:
                if body is not None and body.error is not None:
                    raise body.error from error
                delivered = body is None or body.may_be_delivered
                self._raise_converted(
                    error, endpoint.name, delivered=delivered, is_answered=is_answered
                )
            finally:
                if body is not None:
                    body.close()
        if body is not None and body.is_reading:
            raise body.stuck_error(endpoint.name)
        raise RequestTimeoutError(
            f"{endpoint.name}: no response from {self._config.base_url} in time.",
            endpoint=endpoint.name,
            delivered=body is None or body.may_be_delivered,
            hint="The server may be overloaded; try again later or with a longer timeout.",
        )

    async def stream(
        self, call: Call[Any], allowed: Timeout, version: str | None = None
    ) -> AsyncGenerator[Response, None]:
        """Send one request and yield its response in parts; an error response in one part.

        Raises:
            TransportError: as `attempt`, also in the middle of the response.
        """
        headers, data = _encode_body(call)
        request = self._request(call, version, allowed, headers, data)
        is_answered = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                with anyio.fail_after(allowed.connect + allowed.answer):
                    response = await stack.enter_async_context(request)
                is_answered = True
                head = self._to_response(response, b"")
                if not is_event_stream(head):
                    yield evolve(head, body=await self._read(response))
                    return
                async for piece in response.content.iter_any():
                    yield evolve(head, body=piece)
        except _FOREIGN_ERRORS as error:
            if isinstance(error, TimeoutError) and not isinstance(
                error, aiohttp.ConnectionTimeoutError
            ):
                raise RequestTimeoutError(
                    f"{call.endpoint.name}: no event received for {allowed.answer:g} s.",
                    endpoint=call.endpoint.name,
                    hint="The run may still continue; check its documents before starting it"
                    " again.",
                ) from error
            self._raise_converted(
                error, call.endpoint.name, delivered=True, is_answered=is_answered
            )

    async def download(self, url: str, allowed: Timeout) -> bytes | None:
        """Return the file at a signed link, requested without the API key; None if it is refused.

        Redirects are not followed.

        Raises:
            TransportError: the host cannot be reached, or the connection was lost.
        """
        is_answered = False
        try:
            with anyio.fail_after(allowed.connect + allowed.answer):
                async with self._http.get(
                    URL(url, encoded=True),
                    headers={"User-Agent": _USER_AGENT},
                    allow_redirects=False,
                    timeout=_client_timeout(allowed.connect, allowed.progress),
                ) as response:
                    is_answered = True
                    return await response.read() if response.ok else None
        except _FOREIGN_ERRORS as error:
            cause = None if isinstance(error, aiohttp.ClientResponseError) else error
            raise convert_error(
                error, "file link", url.partition("?")[0], delivered=False, is_answered=is_answered
            ) from cause

    def _request(
        self,
        call: Call[Any],
        version: str | None,
        allowed: Timeout,
        headers: Mapping[str, str],
        data: bytes | AsyncIterator[bytes] | None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        method, path = call.select_route(version)
        if method == "GET":  # caching proxies must not return outdated data
            headers = {**headers, "Cache-Control": "no-cache"}
        is_stream = call.endpoint.response_type is Event
        return self._http.request(
            method,
            self._build_url(call, path),
            data=data,
            headers={**self._default_headers, **headers},
            allow_redirects=False,
            raise_for_status=False,
            timeout=_client_timeout(allowed.connect, allowed.answer if is_stream else None),
        )

    def _raise_converted(
        self, error: Exception, endpoint: str, *, delivered: bool, is_answered: bool
    ) -> NoReturn:
        # The repr of a ClientResponseError contains the request headers, with the key.
        cause = None if isinstance(error, aiohttp.ClientResponseError) else error
        raise convert_error(
            error, endpoint, self._config.base_url, delivered=delivered, is_answered=is_answered
        ) from cause

    def _build_headers(self) -> Mapping[str, str]:
        key = {"Authorization": f"Bearer {self._config.api_key}"}
        return {"User-Agent": _USER_AGENT, **self._headers, **key}

    def _to_response(
        self, response: aiohttp.ClientResponse, body: bytes, waited: float | None = None
    ) -> Response:
        headers = {
            name: response.headers[name] for name in READ_HEADERS if name in response.headers
        }
        if "location" in headers:
            headers["location"] = _resolve_location(response.url, headers["location"])
        key = self._config.api_key
        return Response(
            status=response.status,
            headers={name: value.replace(key, "***") for name, value in headers.items()},
            body=body,
            server_seconds=waited,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.ok:
            body = await response.read()
            # The error shows the title of an HTML page.
            return self._redact_key(body) if response.content_type.startswith("text/") else body
        body = b""
        while len(body) < MAX_ERROR_BODY and (block := await response.content.read(MAX_ERROR_BODY)):
            body += block
        return self._redact_key(body[:MAX_ERROR_BODY])

    def _redact_key(self, text: bytes) -> bytes:
        """Remove the key from a response that echoes the request, as errors show its text."""
        return text.replace(self._config.api_key.encode(), b"***")

    def _build_url(self, call: Call[Any], path: str) -> URL:
        url = f"{self._config.base_url}{path}"
        if call.endpoint.encoding is RequestEncoding.QUERY:
            url = f"{url}?{urlencode(codec.to_query(call.body))}"
        return URL(url, encoded=True)


def _resolve_location(url: URL, location: str) -> str:
    """Return the absolute address of a redirect, without its query, which may contain tokens."""
    with contextlib.suppress(ValueError):
        location = urljoin(str(url), location)
    return re.split("[?#]", location)[0]


def _encode_body(call: Call[Any]) -> tuple[dict[str, str], bytes | None]:
    if call.endpoint.encoding is not RequestEncoding.JSON:
        return {}, None
    return {"Content-Type": _JSON}, codec.to_json(call.body)
