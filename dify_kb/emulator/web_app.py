"""Build the aiohttp application: API routes of a server version, and control routes."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from attrs import frozen

from .dispatch import KEYLESS_ENDPOINT, TEXT_PARAMETERS, Dispatcher, RequestQuota
from .external_knowledge import ExternalKnowledge, InvalidResponseError
from .faults import Faults
from .handlers import HANDLERS
from .history import History, to_jsonl
from .version_profiles import get_profile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .request_capacity import CapacityModel
    from .request_context import EndpointHandler, RequestContext

_UUID: Final = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

_DISPATCHER: Final = web.AppKey("dispatcher", Dispatcher)

_PATH_ALIASES: Final = {
    "/document/create-by-text": "/document/create_by_text",
    "/document/create-by-file": "/document/create_by_file",
    "/update-by-text": "/update_by_text",
    "/update-by-file": "/update_by_file",
    "/retrieve": "/hit-testing",
}
"""Alternative spellings of paths (measured)."""


def build_app(
    context: RequestContext,
    api_key: str,
    faults: Faults,
    history: History,
    capacity: CapacityModel | None = None,
) -> web.Application:
    """Build the application with all routes."""
    quota = RequestQuota(context.settings, context.clock.now)
    dispatcher = Dispatcher(context, api_key, faults, history, capacity, quota)
    app = web.Application(
        middlewares=[dispatcher.handle_unrouted], client_max_size=context.settings.max_body
    )
    app[_DISPATCHER] = dispatcher
    for resource in _create_api_resources(context.profile.version):
        app.router.register_resource(resource)
    app.router.add_get("/files/{file_id}/file-preview", dispatcher.send_file)
    app.router.add_routes(ControlRoutes(faults, history, ExternalKnowledge(context)).routes())
    return app


@functools.cache
def _create_api_resources(version: str) -> Sequence[web.AbstractResource]:
    """Create the API routes of a version, once: they cost a third of the start of a server."""
    profile, router = get_profile(version), web.UrlDispatcher()
    for endpoint_handler in HANDLERS:
        handler = functools.partial(_dispatch, endpoint_handler)
        endpoint = endpoint_handler.endpoint
        routes = profile.routes(endpoint)
        if endpoint.name == KEYLESS_ENDPOINT:
            # Served on all versions, as a 404 where it is missing, so that faults can be planned.
            routes = [(endpoint.method, endpoint.path)]
        for method, path in routes:
            for spelling in _path_spellings(path):
                router.add_route(method, f"/v1{spelling}", handler)
                if method == "GET":
                    router.add_route("HEAD", f"/v1{spelling}", handler)
    return [*router.resources()]


async def _dispatch(
    endpoint_handler: EndpointHandler[Any, Any], request: web.Request
) -> web.StreamResponse:
    return await request.app[_DISPATCHER].dispatch(endpoint_handler, request)


def _path_spellings(path: str) -> list[str]:
    spellings = [path] + [
        path.removesuffix(end) + alias for end, alias in _PATH_ALIASES.items() if path.endswith(end)
    ]
    return [re.sub(r"{(\w+)}", _to_route_parameter, spelling) for spelling in spellings]


def _to_route_parameter(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name in TEXT_PARAMETERS else f"{{{name}:{_UUID}}}"


@frozen
class ControlRoutes:
    """Routes that plan faults, return the history and simulate the console; they need no key."""

    faults: Faults
    history: History
    external: ExternalKnowledge

    def routes(self) -> list[web.RouteDef]:
        """Return the route definitions."""
        return [
            web.get("/_emulator/faults", self.show_faults),
            web.post("/_emulator/faults", self.add_faults),
            web.delete("/_emulator/faults", self.clear_faults),
            web.get("/_emulator/history", self.show_history),
            web.post("/_emulator/external-apis", self.register_external_api),
            web.post("/_emulator/external-datasets/{dataset_id}/retrieve", self.retrieve_external),
        ]

    async def show_faults(self, _: web.Request) -> web.Response:
        """Return the remaining planned faults, and how often each fault occurred."""
        return self._fault_state()

    async def add_faults(self, request: web.Request) -> web.Response:
        """Add fault plans."""
        try:
            self.faults.load(await request.json())
        except ValueError as error:
            # Includes invalid JSON.
            return web.json_response({"error": str(error)}, status=400)
        return self._fault_state()

    async def clear_faults(self, _: web.Request) -> web.Response:
        """Remove all fault plans."""
        self.faults.clear()
        return self._fault_state()

    async def show_history(self, _: web.Request) -> web.Response:
        """Return the recorded requests and indexing runs as JSON Lines."""
        text = "".join(
            f"{line}\n"
            for line in to_jsonl(self.history.list_exchanges(), self.history.list_runs())
        )
        return web.Response(text=text, content_type="application/jsonl")

    async def register_external_api(self, request: web.Request) -> web.Response:
        """Register an external knowledge API, as the console does."""
        return await self._respond(request, self._register_external_api)

    async def _register_external_api(self, request: web.Request) -> dict[str, object]:
        parameters = await request.json()
        values = (parameters.get(name, "") for name in ("name", "endpoint", "api_key"))
        return {"id": await self.external.register(*map(str, values))}

    async def retrieve_external(self, request: web.Request) -> web.Response:
        """Query an external dataset, as an app does."""
        return await self._respond(request, self._retrieve_external)

    async def _retrieve_external(self, request: web.Request) -> dict[str, object]:
        parameters = await request.json()
        records = await self.external.retrieve(
            request.match_info["dataset_id"],
            str(parameters.get("query", "")),
            metadata_condition=parameters.get("metadata_condition"),
            console=parameters.get("console") is True,
        )
        return {"records": records}

    async def _respond(
        self,
        request: web.Request,
        action: Callable[[web.Request], Awaitable[dict[str, object]]],
    ) -> web.Response:
        try:
            return web.json_response(await action(request))
        except (ValueError, AttributeError, InvalidResponseError) as error:
            # Includes invalid JSON, and JSON that is not an object.
            return web.json_response({"error": str(error)}, status=400)

    def _fault_state(self) -> web.Response:
        return web.json_response({"left": self.faults.left(), "met": self.faults.met()})
