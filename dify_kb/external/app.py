"""The HTTP side: `POST /retrieval`, as Dify asks it."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import anyio
from aiohttp import web
from attrs import frozen

from dify_kb.errors import ConfigError

from .answering import answered, asked_of, dumped, filters_itself
from .contract import RetrievalRequest, Retriever
from .reading import read_request
from .refused import BAD_FORMAT, BAD_KEY, UNKNOWN_KNOWLEDGE, RefusedError

_log = logging.getLogger(__name__)

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request; a query is whatever an app produced, but hardly a book."""

MAX_TOP_K: Final = 100
"""Records of an answer. Dify's console asks for 10 at most, its API for any number."""

TIMEOUT: Final = 4.5
"""Seconds for a retriever; after 5 without an answer Dify asks once more (SSRF_DEFAULT_*)."""

_PATIENCE: Final = 5.0
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
    keys = _Keys.of([api_keys] if isinstance(api_keys, str) else [*api_keys])
    served = _Served(dict(retrievers), keys, timeout, max_top_k)
    app = web.Application(middlewares=[_pages], client_max_size=MAX_BODY)
    app.cleanup_ctx.append(served.opened)
    app.router.add_post("/{prefix:(?:.*/)?}retrieval", served.retrieval)
    return app


@frozen
class _Keys:
    digests: tuple[bytes, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, keys: Collection[str]) -> _Keys:
        if not keys or not all(key.strip() for key in keys):
            raise ConfigError("An API key is missing or empty.", hint="Dify insists on one.")
        texts = tuple(key.strip() for key in keys)
        return cls(tuple(map(_digest, texts)), texts)

    def check(self, header: str) -> None:
        """Compare with all keys, in a time that tells nothing of them."""
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            what = "The Authorization header must be 'Bearer <api-key>'."
            raise RefusedError(401, what, code=BAD_FORMAT)
        given = _digest(token.strip())
        if sum(hmac.compare_digest(given, digest) for digest in self.digests) == 0:
            raise RefusedError(401, "The API key is not known here.", code=BAD_KEY)

    def hidden(self, text: str) -> str:
        for key in self.texts:
            text = text.replace(key, "…")
        return text


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


@frozen
class _Served:
    retrievers: Mapping[str, Retriever]
    keys: _Keys
    timeout: float
    max_top_k: int

    async def opened(self, _: web.Application) -> AsyncIterator[None]:
        """Keep the retrievers open that want it, each once."""
        async with AsyncExitStack() as stack:
            for retriever in {id(one): one for one in self.retrievers.values()}.values():
                if isinstance(retriever, AbstractAsyncContextManager):
                    await stack.enter_async_context(retriever)
            yield

    async def retrieval(self, request: web.Request) -> web.Response:
        self.keys.check(request.headers.get("Authorization", ""))
        body = await _body(request)
        query = read_request(body, request.content_type, max_top_k=self.max_top_k)
        retriever = self.retrievers.get(query.knowledge_id)
        if retriever is None:
            what = f"There is no knowledge base {query.knowledge_id[:60]!r} here."
            raise RefusedError(404, what, code=UNKNOWN_KNOWLEDGE)
        return _json(200, await self._asked(retriever, query))

    async def _asked(self, retriever: Retriever, query: RetrievalRequest) -> bytes:
        if not query.query.strip():
            return dumped({"records": []})
        why = f"it took longer than {self.timeout:g} s"
        try:
            with anyio.move_on_after(self.timeout):
                found = await retriever.retrieve(asked_of(retriever, query))
                return answered(found, query, filtered=filters_itself(retriever))
        except Exception as error:  # noqa: BLE001 -- a retriever is anybody's code
            why = self.keys.hidden(f"{type(error).__name__}: {error}")
            _log.debug("the retriever's traceback", exc_info=error)
        _log.error("retrieval from %r failed: %s", query.knowledge_id, why)
        raise RefusedError(500, "The search behind this knowledge base failed; its log says why.")


async def _body(request: web.Request) -> bytes:
    try:
        with anyio.fail_after(_PATIENCE):
            return await request.read()
    except TimeoutError as error:
        raise RefusedError(408, f"The body did not come within {_PATIENCE:g} s.") from error
    except web.HTTPRequestEntityTooLarge as error:
        what = f"The body has more than {MAX_BODY:,} bytes."
        raise RefusedError(413, what) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise RefusedError(400, "The body did not come whole.") from error


@web.middleware
async def _pages(request: web.Request, handler: Any) -> web.StreamResponse:
    """Have every refusal look alike."""
    try:
        response: web.StreamResponse = await handler(request)
    except RefusedError as refused:
        return _refusal(refused)
    except web.HTTPMethodNotAllowed:
        return _refusal(RefusedError(405, "Dify asks by POST."))
    except web.HTTPNotFound:
        return _refusal(RefusedError(404, "Dify asks POST /retrieval; there is nothing else here."))
    return response


def _refusal(refused: RefusedError) -> web.Response:
    body = {"error_code": refused.code, "error_msg": refused.message}
    response = _json(refused.status, dumped(body))
    if refused.status == 408:  # noqa: PLR2004 -- what still comes is nobody's
        response.force_close()
    return response


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
