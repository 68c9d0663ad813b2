"""The HTTP side: `POST /retrieval`, as Dify asks it."""

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
"""Bytes of a request; a query is whatever an app produced, but hardly a book."""

MAX_TOP_K: Final = 100
"""Records of an answer. Dify's console asks for 10 at most, its API for any number."""

TIMEOUT: Final = 4.5
"""Seconds for a retriever; after 5 without an answer Dify asks once more (SSRF_DEFAULT_*)."""

_BODY_TIMEOUT: Final = 5.0
"""Seconds for the body of a request to come."""


def create_app(
    retrievers: Mapping[str, Retriever],
    *,
    api_keys: str | Collection[str],
    timeout: float = TIMEOUT,
    max_top_k: int = MAX_TOP_K,
) -> web.Application:
    """Make an aiohttp application that Dify takes for an external knowledge base.

    In Dify's console, give its address without `/retrieval`, which Dify appends; the double one
    of an address with it, or with a slash at its end, is understood as well. The bases are told
    apart by `knowledge_id`, and each of the keys opens all of them.

    Args:
        retrievers: by the knowledge id that is entered in Dify.
        api_keys: one key, or several while one is exchanged for another.
        timeout: seconds for a retriever, after which Dify gets a 500.
        max_top_k: records of an answer; a higher top_k is cut to it.

    Raises:
        ConfigError: no retriever, or no key, or an empty one; Dify insists on a key.
    """
    if not retrievers:
        raise ConfigError("There is no retriever.", hint='Pass {"knowledge-id": retriever}.')
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
            raise ConfigError("An API key is missing or empty.", hint="Dify insists on one.")
        texts = tuple(key.strip() for key in keys)
        return cls(tuple(map(_hash_key, texts)), texts)

    def check(self, header: str) -> None:
        """Compare with all keys, in a time that tells nothing of them."""
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            message = "The Authorization header must be 'Bearer <api-key>'."
            raise RequestRejectedError(401, message, code=INVALID_AUTHORIZATION)
        token_digest = _hash_key(token.strip())
        if sum(hmac.compare_digest(token_digest, digest) for digest in self.digests) == 0:
            raise RequestRejectedError(401, "The API key is not known here.", code=INVALID_API_KEY)

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
        """Keep the retrievers open that want it, each once."""
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
            message = f"There is no knowledge base {query.knowledge_id[:60]!r} here."
            raise RequestRejectedError(404, message, code=UNKNOWN_KNOWLEDGE_ID)
        return _json_response(200, await self._run_retriever(retriever, query))

    async def _run_retriever(self, retriever: Retriever, query: RetrievalRequest) -> bytes:
        if not query.query.strip():
            return dump_json({"records": []})
        reason = f"it took longer than {self.timeout:g} s"
        try:
            with anyio.move_on_after(self.timeout):
                records = await retriever.retrieve(widen_request(retriever, query))
                return build_response(records, query, is_filtered=applies_filter(retriever))
        except Exception as error:  # noqa: BLE001 -- a retriever is anybody's code
            reason = self.keys.redact(f"{type(error).__name__}: {error}")
            _log.debug("the retriever's traceback", exc_info=error)
        _log.error("retrieval from %r failed: %s", query.knowledge_id, reason)
        raise RequestRejectedError(
            500, "The search behind this knowledge base failed; its log says why."
        )


async def _read_body(request: web.Request) -> bytes:
    try:
        with anyio.fail_after(_BODY_TIMEOUT):
            return await request.read()
    except TimeoutError as error:
        raise RequestRejectedError(
            408, f"The body did not come within {_BODY_TIMEOUT:g} s."
        ) from error
    except web.HTTPRequestEntityTooLarge as error:
        message = f"The body has more than {MAX_BODY:,} bytes."
        raise RequestRejectedError(413, message) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise RequestRejectedError(400, "The body did not come whole.") from error


@web.middleware
async def _error_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Have every refusal look alike."""
    try:
        response: web.StreamResponse = await handler(request)
    except RequestRejectedError as error:
        return _error_response(error)
    except web.HTTPMethodNotAllowed:
        return _error_response(RequestRejectedError(405, "Dify asks by POST."))
    except web.HTTPNotFound:
        return _error_response(
            RequestRejectedError(404, "Dify asks POST /retrieval; there is nothing else here.")
        )
    return response


def _error_response(error: RequestRejectedError) -> web.Response:
    body = {"error_code": error.code, "error_msg": error.message}
    response = _json_response(error.status, dump_json(body))
    if error.status == 408:  # noqa: PLR2004 -- what still comes is nobody's
        response.force_close()
    return response


def _json_response(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


_SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds that open requests get when the server stops; Dify waits no longer."""


def _drop_request_lines(record: logging.LogRecord) -> bool:
    """Tell what broke, and not the lines that it broke on: they may hold the key."""
    if record.exc_info and (error := record.exc_info[1]) is not None:
        record.msg = f"{record.getMessage()}: {type(error).__name__}"
        record.args, record.exc_info = (), None
    return True


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_drop_request_lines)


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve while the block runs, and give the address; port 0 takes a free one.

    Unlike aiohttp's own runners this one puts no line of a request into the log.

    Raises:
        ConfigError: nobody can listen there.
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
            f"Port {port} on {host} is taken.", hint="Choose another port, or 0 for a free one."
        )
    return ConfigError(
        f"The server cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Use 127.0.0.1, or 0.0.0.0 for all addresses, and a port above 1023.",
    )
