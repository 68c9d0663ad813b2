"""Send single HTTP requests with aiohttp, and convert its errors to those of this package."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import anyio
from attrs import Factory, evolve, field, frozen
from yarl import URL

from dify_kb.config import KEEP_ALIVE, Config, Timeout
from dify_kb.errors import ConnectError, RequestTimeoutError, TransportError
from dify_kb.models import Event
from dify_kb.wire import codec
from dify_kb.wire.decode_response import READ_HEADERS, Response
from dify_kb.wire.endpoint import Call, RequestEncoding

from .clock import loop_time

if TYPE_CHECKING:
    import ssl as _ssl
    from contextlib import AbstractAsyncContextManager

    from .upload_body import UploadBody

MAX_ERROR_BODY = 64 * 1024
"""Maximum bytes read of an error response; proxies may send long pages."""

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


def open_session(
    *, proxy: str | None, trust_env: bool, ssl: _ssl.SSLContext | None
) -> aiohttp.ClientSession:
    """Open an aiohttp session. Its pool is unlimited, as `RequestLimiter` limits requests."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE, ssl=True if ssl is None else ssl
        ),
        proxy=proxy,
        trust_env=trust_env,
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
        with anyio.move_on_after(allowed.connect + answer) as scope:
            try:
                if body is None:
                    headers, data = _encode_body(call)
                else:
                    data = await body.open(scope)
                    headers = body.headers
                sent_at = loop_time()
                async with self._request(call, version, allowed, headers, data) as response:
                    if body is not None and body.sent_at is not None:
                        sent_at = body.sent_at
                    waited = loop_time() - sent_at
                    return self._to_response(response, await self._read(response), waited)
            except (aiohttp.ClientError, OSError) as error:
                if body is not None and body.error is not None:
                    raise body.error from error
                # The repr of a ClientResponseError contains the request headers, with the key.
                cause = None if isinstance(error, aiohttp.ClientResponseError) else error
                raise self._to_transport_error(endpoint.name, error, body) from cause
            finally:
                if body is not None:
                    body.close()
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
        try:
            async with self._request(call, version, allowed, headers, data) as response:
                head = self._to_response(response, b"")
                if not is_event_stream(head):
                    yield evolve(head, body=await self._read(response))
                    return
                async for piece in response.content.iter_any():
                    yield evolve(head, body=piece)
        except aiohttp.SocketTimeoutError as error:
            raise RequestTimeoutError(
                f"{call.endpoint.name}: no event received for {allowed.answer:g} s.",
                endpoint=call.endpoint.name,
                hint="The run may still continue; check its documents before starting it again.",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            cause = None if isinstance(error, aiohttp.ClientResponseError) else error
            raise self._to_transport_error(call.endpoint.name, error, None) from cause

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
            timeout=_client_timeout(allowed.connect, allowed.answer if is_stream else None),
        )

    def _build_headers(self) -> Mapping[str, str]:
        key = {"Authorization": f"Bearer {self._config.api_key}"}
        return {"User-Agent": _USER_AGENT, **self._headers, **key}

    def _to_response(
        self, response: aiohttp.ClientResponse, body: bytes, waited: float | None = None
    ) -> Response:
        key, headers = self._config.api_key, response.headers
        return Response(
            status=response.status,
            headers={
                name: headers[name].replace(key, "***") for name in READ_HEADERS if name in headers
            },
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

    def _to_transport_error(
        self, endpoint: str, error: aiohttp.ClientError | OSError, body: UploadBody | None
    ) -> TransportError:
        where = self._config.base_url
        match error:
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                hint = "Pass an SSL context with the server's certificate authority as ssl."
            case aiohttp.ClientConnectorDNSError():
                hint = "Check the host name in the server address."
            case aiohttp.ClientHttpProxyError():
                hint = "Check the proxy and its credentials."
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                hint = "Check the server address, and that the server is running and reachable."
            case _:
                return TransportError(
                    f"{endpoint}: lost the connection to {where} ({_describe_error(error)}).",
                    endpoint=endpoint,
                    delivered=body is None or body.may_be_delivered,
                    hint="Check the server, and any proxy in front of it.",
                )
        return ConnectError(
            f"{endpoint}: cannot connect to {where} ({_describe_error(error)}).",
            endpoint=endpoint,
            delivered=False,
            hint=hint,
        )


def _encode_body(call: Call[Any]) -> tuple[dict[str, str], bytes | None]:
    if call.endpoint.encoding is not RequestEncoding.JSON:
        return {}, None
    return {"Content-Type": _JSON}, codec.to_json(call.body)


def _describe_error(error: aiohttp.ClientError | OSError) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error) or type(error).__name__
