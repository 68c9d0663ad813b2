"""The HTTP side: routes from the catalogue and the profile, and the order of the checks."""

from __future__ import annotations

import functools
import logging
import re
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from aiohttp import web
from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.wire.codec import DecodeError

from . import answer
from .bodies import read
from .context import Context, Notes, Served
from .faults import Fault, Faults
from .history import Exchange, History
from .refused import RefusedError, UncheckedError, invalid_param, not_found
from .serve import HANDLERS

if TYPE_CHECKING:
    from .profiles import Profile

_log = logging.getLogger(__name__)

_UUID: Final = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

_TEXT_SLOTS: Final = frozenset({"batch", "model_type", "action", "node_id"})
"""Slots that take any text; all others are UUIDs, and else there is no such route."""

_ALIASES: Final = {
    "/document/create-by-text": "/document/create_by_text",
    "/document/create-by-file": "/document/create_by_file",
    "/update-by-text": "/update_by_text",
    "/update-by-file": "/update_by_file",
    "/retrieve": "/hit-testing",
}
"""Second spellings of paths (measured)."""

_RATE_LIMIT: Final = (
    "Sorry, you have reached the knowledge base request rate limit of your subscription."
)
_OPEN: Final = "server.info"
"""The one endpoint that needs no key."""


def application(
    context: Context, api_key: str, faults: Faults, history: History
) -> web.Application:
    """Put the routes together."""
    door = _Door(context, api_key, faults, history)
    app = web.Application(middlewares=[door.pages], client_max_size=context.settings.max_body)
    for served in HANDLERS:
        handler = functools.partial(door.answer, served)
        for method, path in context.profile.routes(served.endpoint):
            for spelling in _spellings(path):
                app.router.add_route(method, f"/v1{spelling}", handler)
                if method == "GET":
                    app.router.add_route("HEAD", f"/v1{spelling}", handler)
    app.router.add_get("/files/{file_id}/file-preview", door.file)
    app.router.add_get("/_emulator/faults", door.faults_left)
    app.router.add_post("/_emulator/faults", door.faults_plan)
    return app


def _spellings(path: str) -> list[str]:
    spellings = [path] + [
        path.removesuffix(end) + alias for end, alias in _ALIASES.items() if path.endswith(end)
    ]
    return [re.sub(r"{(\w+)}", _slot, spelling) for spelling in spellings]


def _slot(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name in _TEXT_SLOTS else f"{{{name}:{_UUID}}}"


@frozen
class _Door:
    """Where requests come in."""

    context: Context
    api_key: str
    faults: Faults
    history: History

    @web.middleware
    async def pages(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer what never gets to an endpoint."""
        profile, limit = self.context.profile, self.context.settings.max_body
        try:
            if (request.content_length or 0) > limit:
                return answer.proxy_page(413)
            response: web.StreamResponse = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return answer.proxy_page(413)
        except web.HTTPMethodNotAllowed:
            message = "The method is not allowed for the requested URL."
            return answer.refusal(profile, RefusedError(405, "method_not_allowed", message))
        except web.HTTPNotFound:
            return answer.missing_page(profile)
        return response

    async def answer(self, served: Served[Any, Any], request: web.Request) -> web.StreamResponse:
        """Answer a call, and as planned if a fault was planned for it."""
        notes, name = Notes(), served.endpoint.name
        fault = self.faults.take(name)
        try:
            response = (
                await self._meet(fault, served, request, notes)
                if fault
                else await self._carry_out(served, request, notes)
            )
        except (ConnectionError, web.RequestPayloadError):
            # The client left before it had sent everything.
            response = None
        if response is None:
            self.history.add(Exchange(name, 0, notes.document))
            # What is sent over a connection that is gone reaches nobody.
            return web.Response(status=500)
        self.history.add(Exchange(name, response.status, notes.document))
        return response

    async def _meet(
        self, fault: Fault, served: Served[Any, Any], request: web.Request, notes: Notes
    ) -> web.Response | None:
        """Have a call fail; None when its connection is gone."""
        response = await self._carry_out(served, request, notes) if fault.commit else None
        await anyio.sleep(fault.stall)
        if fault.reset:
            _abort(request)
            return None
        planned = _planned(fault, self.context.profile)
        if planned is not None:
            return planned
        response = response or await self._carry_out(served, request, notes)
        if fault.truncate and isinstance(response.body, bytes):
            response.body = response.body[: len(response.body) // 2]
        return response

    async def _carry_out(
        self, served: Served[Any, Any], request: web.Request, notes: Notes
    ) -> web.Response:
        profile, endpoint = self.context.profile, served.endpoint
        try:
            context = self._enter(endpoint.name, request, notes)
            raw = await read(endpoint, request, context.settings, profile)
            body = served.reader(context, raw)
            value = served(context, body)
        except RefusedError as refused:
            return answer.refusal(profile, refused)
        except DecodeError as error:
            return answer.refusal(profile, invalid_param(str(error)))
        except UncheckedError as unchecked:
            if profile.quirks.crashes_unchecked:
                _log.error("%s failed: %s", endpoint.name, unchecked)
                return answer.crash(profile)
            return answer.refusal(profile, unchecked.refusal)
        except (web.HTTPException, web.RequestPayloadError, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 -- a server answers whatever happens, and logs it
            _log.exception("%s failed", endpoint.name)
            return answer.crash(profile)
        return answer.success(profile, endpoint, value, notes)

    def _enter(self, name: str, request: web.Request, notes: Notes) -> Context:
        """Check the key and the dataset, in the version's order (measured)."""
        if name == _OPEN:
            return attrs.evolve(self.context, notes=notes)
        if self.context.profile.dataset_first:
            context = self._find(name, request, notes)
            _authorize(request.headers.get("Authorization", ""), self.api_key)
            return context
        _authorize(request.headers.get("Authorization", ""), self.api_key)
        return self._find(name, request, notes)

    def _find(self, name: str, request: web.Request, notes: Notes) -> Context:
        """Find the dataset that the path names, if it names one."""
        slots = {
            slot: value if slot in _TEXT_SLOTS else value.lower()
            for slot, value in request.match_info.items()
        }
        context = attrs.evolve(
            self.context, slots=slots, notes=notes, origin=str(request.url.origin())
        )
        if "dataset_id" not in slots:
            return context
        dataset = self.context.store.datasets.get(slots["dataset_id"])
        if dataset is None and name in self.context.profile.dataset_unchecked:
            return context
        if dataset is None and name in self.context.profile.dataset_is_param:
            raise invalid_param("Dataset does not exist.")
        if dataset is None:
            raise not_found("Dataset not found.")
        return attrs.evolve(context, found=dataset)

    async def file(self, request: web.Request) -> web.Response:
        """Send a file to whoever has a link to it."""
        context, query, file_id = self.context, request.query, request.match_info["file_id"]
        said = (query.get("timestamp", ""), query.get("nonce", ""), query.get("sign", ""))
        row = None
        if context.links.allows(file_id, *said, context.clock.now()):
            row = context.store.documents.of_file(file_id)
        if row is None:
            message = "File not found or signature is invalid"
            return answer.refusal(context.profile, not_found(message))
        content = context.store.documents.content(row.id) or b""
        attachment = query.get("as_attachment") == "true"
        return answer.file(context.profile, row, content, attachment=attachment)

    async def faults_left(self, _: web.Request) -> web.Response:
        """Tell the plans."""
        return web.json_response(self.faults.left())

    async def faults_plan(self, request: web.Request) -> web.Response:
        """Take plans over HTTP, for servers in other processes."""
        try:
            plans = await request.json()
            for endpoint, words in plans.items():
                self.faults.plan(endpoint, words)
        except (ConfigError, ValueError, AttributeError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(self.faults.left())


def _planned(fault: Fault, profile: Profile) -> web.Response | None:
    """Make the answer that a fault consists of, if it is one."""
    if fault.rate_limit:
        return answer.refusal(profile, RefusedError(403, "forbidden", _RATE_LIMIT))
    if not fault.status:
        return None
    after = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if fault.html:
        return answer.proxy_page(fault.status, after)
    if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer.crash(profile)
    response = answer.refusal(profile, RefusedError(fault.status, "planned", "A planned fault."))
    response.headers.update(after)
    return response


def _authorize(header: str, api_key: str) -> None:
    scheme, space, token = header.partition(" ")
    if not space:
        message = "Authorization header must be provided and start with 'Bearer'"
        raise RefusedError(401, "unauthorized", message)
    if scheme.lower() != "bearer":
        raise RefusedError(401, "unauthorized", "Authorization scheme must be 'Bearer'")
    if token.strip() != api_key:
        raise RefusedError(401, "unauthorized", "Access token is invalid")


def _abort(request: web.Request) -> None:
    """End the connection with a reset, not with an orderly end."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
