"""The HTTP server for retrievers: handle `POST /retrieval` requests of Dify."""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio
from aiohttp import web
from attrs import frozen

from dify_kb.errors import ConfigError

from .request import (
    INVALID_API_KEY,
    INVALID_AUTHORIZATION,
    UNKNOWN_KNOWLEDGE_ID,
    RequestRejectedError,
    parse_request,
)
from .response import applies_filter, build_response, dump_json, widen_request
from .retriever import RetrievalRequest, Retriever

_log = logging.getLogger(__name__)

MAX_BODY: Final = 1024 * 1024
"""Maximum bytes of a request; apps may produce long queries."""

MAX_TOP_K: Final = 100
"""Maximum records of a response. Dify's console allows up to 10, its API any number."""

TIMEOUT: Final = 4.5
"""Seconds for a retriever; after 5 s without a response Dify retries (SSRF_DEFAULT_*)."""

_BODY_TIMEOUT: Final = 5.0
"""Seconds for receiving the body of a request."""


def create_app(
    retrievers: Mapping[str, Retriever],
    *,
    api_keys: str | Collection[str],
    timeout: float = TIMEOUT,
    max_top_k: int = MAX_TOP_K,
) -> web.Application:
    """Create an aiohttp application that serves retrievers as external knowledge bases.

    In Dify's console enter its address without `/retrieval`, which Dify appends. Addresses entered
    with `/retrieval` or a trailing slash work too. The `knowledge_id` of a request selects the
    retriever; every key gives access to all retrievers.

    Args:
        retrievers: retrievers by the knowledge id entered in Dify.
        api_keys: one key, or several during a key rotation.
        timeout: seconds for a retriever; then Dify gets a 500.
        max_top_k: maximum records of a response; a higher top_k is reduced to this.

    Raises:
        ConfigError: there are no retrievers, or a key is missing or empty; Dify requires a key.
    """
    if not retrievers:
        raise ConfigError("No retrievers given.", hint='Pass {"knowledge-id": retriever}.')
    keys = _ApiKeys.of([api_keys] if isinstance(api_keys, str) else [*api_keys])
    handler = _RetrievalHandler(dict(retrievers), keys, timeout, max_top_k)
    app = web.Application(middlewares=[_error_middleware], client_max_size=MAX_BODY)
    app.cleanup_ctx.append(handler.open_retrievers)
    app.router.add_post("/{prefix:(?:.*/)?}retrieval", handler.handle_retrieval)
    return app


@frozen
class _ApiKeys:
    digests: tuple[bytes, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, keys: Collection[str]) -> _ApiKeys:
        if not keys or not all(key.strip() for key in keys):
            raise ConfigError(
                "An API key is missing or empty.", hint="Pass `api_keys`; Dify requires a key."
            )
        texts = tuple(key.strip() for key in keys)
        return cls(tuple(map(_hash_key, texts)), texts)

    def check(self, header: str) -> None:
        """Check the Authorization header against all keys in constant time."""
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            message = "The Authorization header must be 'Bearer <api-key>'."
            raise RequestRejectedError(401, message, code=INVALID_AUTHORIZATION)
        token_digest = _hash_key(token.strip())
        if sum(hmac.compare_digest(token_digest, digest) for digest in self.digests) == 0:
            raise RequestRejectedError(401, "Unknown API key.", code=INVALID_API_KEY)

    def redact(self, text: str) -> str:
        for key in self.texts:
            text = text.replace(key, "…")
        return text


def _hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


@frozen
class _RetrievalHandler:
    retrievers: Mapping[str, Retriever]
    keys: _ApiKeys
    timeout: float
    max_top_k: int

    async def open_retrievers(self, _: web.Application) -> AsyncIterator[None]:
        """Open each retriever that is a context manager, once, while the server runs."""
        async with AsyncExitStack() as stack:
            for retriever in {id(item): item for item in self.retrievers.values()}.values():
                if isinstance(retriever, AbstractAsyncContextManager):
                    await stack.enter_async_context(retriever)
            yield

    async def handle_retrieval(self, request: web.Request) -> web.Response:
        self.keys.check(request.headers.get("Authorization", ""))
        body = await _read_body(request)
        query = parse_request(body, request.content_type, max_top_k=self.max_top_k)
        retriever = self.retrievers.get(query.knowledge_id)
        if retriever is None:
            message = f"Unknown knowledge base {query.knowledge_id[:60]!r}."
            raise RequestRejectedError(404, message, code=UNKNOWN_KNOWLEDGE_ID)
        return _json_response(200, await self._run_retriever(retriever, query))

    async def _run_retriever(self, retriever: Retriever, query: RetrievalRequest) -> bytes:
        if not query.query.strip():
            return dump_json({"records": []})
        reason = f"the retriever took longer than {self.timeout:g} s"
        try:
            with anyio.move_on_after(self.timeout):
                records = await retriever.retrieve(widen_request(retriever, query))
                return build_response(records, query, is_filtered=applies_filter(retriever))
        except Exception as error:  # noqa: BLE001 -- retrievers may raise anything
            reason = self.keys.redact(f"{type(error).__name__}: {error}")
            _log.debug("Traceback of the retriever", exc_info=error)
        _log.error("Retrieval from %r failed: %s", query.knowledge_id, reason)
        raise RequestRejectedError(
            500, "The retriever of this knowledge base failed; see the log of its server."
        )


async def _read_body(request: web.Request) -> bytes:
    try:
        with anyio.fail_after(_BODY_TIMEOUT):
            return await request.read()
    except TimeoutError as error:
        raise RequestRejectedError(
            408, f"The body was not received within {_BODY_TIMEOUT:g} s."
        ) from error
    except web.HTTPRequestEntityTooLarge as error:
        message = f"The body is larger than {MAX_BODY:,} bytes."
        raise RequestRejectedError(413, message) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise RequestRejectedError(400, "The body is incomplete.") from error


@web.middleware
async def _error_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Send every error as JSON in the format of Dify's external knowledge API."""
    try:
        response: web.StreamResponse = await handler(request)
    except RequestRejectedError as error:
        return _error_response(error)
    except web.HTTPMethodNotAllowed:
        return _error_response(RequestRejectedError(405, "Method not allowed; use POST."))
    except web.HTTPNotFound:
        return _error_response(
            RequestRejectedError(404, "Not found; this server only handles POST /retrieval.")
        )
    return response


def _error_response(error: RequestRejectedError) -> web.Response:
    body = {"error_code": error.code, "error_msg": error.message}
    response = _json_response(error.status, dump_json(body))
    if error.status == 408:  # noqa: PLR2004 -- the rest of the body is not read
        response.force_close()
    return response


def _json_response(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


_SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds for open requests when the server stops; Dify does not wait longer."""


def _drop_request_lines(record: logging.LogRecord) -> bool:
    """Log only the type of an error, not the request lines: they may contain the key."""
    if record.exc_info and (error := record.exc_info[1]) is not None:
        record.msg = f"{record.getMessage()}: {type(error).__name__}"
        record.args, record.exc_info = (), None
    return True


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_drop_request_lines)


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve the application while the block runs; yield its URL. Port 0 selects a free port.

    Unlike aiohttp's own runners, this one never logs request lines.

    Raises:
        ConfigError: the server cannot listen on this host and port.
    """
    runner = web.AppRunner(
        app, access_log=None, logger=_http_log, shutdown_timeout=_SHUTDOWN_TIMEOUT
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise _bind_error(host, port, error) from error
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _bind_error(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} on {host} is already in use.",
            hint="Choose another port, or 0 for a free one.",
        )
    return ConfigError(
        f"Cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Use 127.0.0.1, or 0.0.0.0 for all addresses, and a port above 1023.",
    )
