"""Dispatch requests: authentication, dataset lookup, fault injection, error mapping."""

from __future__ import annotations

import logging
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import attrs
from aiohttp import web
from attrs import field, frozen

from dify_kb.wire.codec import DecodeError

from . import http_responses
from .errors import (
    RATE_LIMIT_MESSAGE,
    EmulatedError,
    UnvalidatedInputError,
    invalid_param_error,
    not_found_error,
)
from .faults import Faults
from .faults.apply import apply_fault
from .history import History
from .request_body import read_body, read_whole_body
from .request_capacity import CREATE_ENDPOINTS, CapacityModel
from .request_context import ApiCall, EndpointHandler, RequestContext
from .request_races import RequestRaces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dify_kb.wire.endpoint import Endpoint

    from .settings import Settings
    from .store import DatasetRow

_log = logging.getLogger(__name__)

TEXT_PARAMETERS: Final = frozenset({"batch", "model_type", "action", "node_id"})
"""Path parameters that accept any text. All others must be UUIDs, or the route does not match."""

KEYLESS_ENDPOINT: Final = "server.info"
"""The only endpoint that needs no API key."""


@frozen
class Dispatcher:
    """The request dispatcher: runs the handlers of API endpoints and sends their responses."""

    context: RequestContext
    api_key: str
    faults: Faults
    history: History
    capacity: CapacityModel | None
    quota: RequestQuota
    races: RequestRaces = field(factory=RequestRaces)

    @web.middleware
    async def handle_unrouted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Respond to requests without a route, and to bodies that are too large (middleware)."""
        max_body = self.context.settings.max_body
        try:
            if (request.content_length or 0) > max_body:
                return http_responses.proxy_page(413)
            response: web.StreamResponse = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return http_responses.proxy_page(413)
        except web.HTTPMethodNotAllowed as error:
            return self._refuse_method(request, error.allowed_methods)
        except web.HTTPNotFound:
            return await self._redirect_or_refuse(request)
        return response

    def _refuse_method(self, request: web.Request, allowed: Collection[str]) -> web.Response:
        profile = self.context.profile
        if request.method == "OPTIONS":
            return http_responses.options_response(profile, allowed)
        message = "The method is not allowed for the requested URL."
        return http_responses.error_response(
            profile, EmulatedError(405, "method_not_allowed", message)
        )

    async def _redirect_or_refuse(self, request: web.Request) -> web.Response:
        profile, path = self.context.profile, await _find_redirect(request)
        if path is None:
            return http_responses.not_found_page(profile)
        return http_responses.moved_page(profile, str(request.url.origin()) + path)

    async def dispatch(
        self, handler: EndpointHandler[Any, Any], request: web.Request
    ) -> web.StreamResponse:
        """Process a request, applying the fault planned for it, if any."""
        clock, max_body = self.context.clock, self.context.settings.max_body
        call = ApiCall(handler, request, self.history, clock, clock.now(), max_body)
        try:
            response = await self._process(call)
        except (ConnectionError, web.RequestPayloadError):
            # The client disconnected before the request or the response was complete.
            response = None
        if response is None:
            call.record(0)
            # aiohttp needs a response, although the connection is closed.
            return web.Response(status=500)
        call.record(response.status)
        return response

    async def _process(self, call: ApiCall) -> web.StreamResponse | None:
        if self.capacity is not None:
            await self.capacity.admit(call)
        if self.faults.has_body_rules and call.request.can_read_body:
            call.body = await read_whole_body(call.request, call.max_body)
        fault = self.faults.take_fault(call.endpoint_name, call.body)
        if fault is None:
            return await self._respond(call)
        return await apply_fault(fault, call, self.context.profile, self._respond)

    async def _respond(self, call: ApiCall) -> web.Response:
        profile, endpoint = self.context.profile, call.handler.endpoint
        if not profile.routes(endpoint):
            return http_responses.not_found_page(profile)
        try:
            value = await self._execute(call)
        except EmulatedError as error:
            return http_responses.error_response(profile, error)
        except DecodeError as error:
            return http_responses.error_response(profile, invalid_param_error(str(error)))
        except UnvalidatedInputError as error:
            _log.error("%s failed: %s", endpoint.name, error)
            return http_responses.crash_response(profile)
        except (web.HTTPException, web.RequestPayloadError, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 -- a server responds to and logs any error
            _log.exception("%s failed", endpoint.name)
            return http_responses.crash_response(profile)
        return http_responses.success_response(profile, endpoint, value, call.notes)

    async def _execute(self, call: ApiCall) -> object:
        """Read the body, simulate the duration of the work, and run the handler."""
        endpoint = call.handler.endpoint
        context = self._prepare_context(call)
        raw = await read_body(endpoint, call.request, context.settings, context.profile, call.body)
        body = call.handler.reader(context, raw)
        if self.capacity is not None:
            await self.capacity.simulate_work(call)
        if call.endpoint_name in CREATE_ENDPOINTS:
            await self.faults.wait_for_lock(
                call.endpoint_name, call.request.match_info["dataset_id"]
            )
        async with self.races.enter(context, body):
            value = call.handler(context, body)
        call.notes.committed = True
        return value

    def _prepare_context(self, call: ApiCall) -> RequestContext:
        """Check the API key and the dataset, in the order of the server version (measured)."""
        if call.endpoint_name == KEYLESS_ENDPOINT:
            return attrs.evolve(self.context, notes=call.notes)
        if self.context.profile.checks_dataset_first:
            context = self._build_context(call)
            self._authorize(call)
            return context
        self._authorize(call)
        return self._build_context(call)

    def _authorize(self, call: ApiCall) -> None:
        _check_api_key(call.request.headers.get("Authorization", ""), self.api_key)
        self.quota.count_request(call.handler.endpoint)

    def _build_context(self, call: ApiCall) -> RequestContext:
        """Return the context of a request, with the dataset of its path if there is one."""
        parameters = {
            name: value if name in TEXT_PARAMETERS else value.lower()
            for name, value in call.request.match_info.items()
        }
        dataset = None
        if "dataset_id" in parameters:
            dataset = self._get_dataset(call.endpoint_name, parameters["dataset_id"])
        return attrs.evolve(
            self.context,
            path_parameters=parameters,
            path_dataset=dataset,
            notes=call.notes,
            url=call.request.url,
        )

    def _get_dataset(self, endpoint_name: str, dataset_id: str) -> DatasetRow | None:
        profile = self.context.profile
        dataset = self.context.store.datasets.get(dataset_id)
        if dataset is not None or endpoint_name in profile.dataset_unchecked_endpoints:
            return dataset
        if endpoint_name in profile.dataset_is_param_endpoints:
            raise invalid_param_error("Dataset does not exist.")
        raise not_found_error("Dataset not found.")

    async def send_file(self, request: web.Request) -> web.Response:
        """Send a file for a signed URL; no API key is needed."""
        context, query, file_id = self.context, request.query, request.match_info["file_id"]
        signature = (query.get("timestamp", ""), query.get("nonce", ""), query.get("sign", ""))
        row = None
        if context.signed_urls.is_valid(file_id, *signature, context.clock.now()):
            row = context.store.documents.get_by_file(file_id)
        if row is None:
            message = "File not found or signature is invalid"
            return http_responses.error_response(context.profile, not_found_error(message))
        content = context.store.documents.get_content(row.id) or b""
        attachment = query.get("as_attachment") == "true"
        return http_responses.file_response(context.profile, row, content, attachment=attachment)


async def _find_redirect(request: web.Request) -> str | None:
    """Return the path that werkzeug redirects a request without a route to, if any (1221, 1226)."""
    if request.path == "/v1":
        return "/v1/"
    merged = re.sub("/{2,}", "/", request.raw_path)
    match = await request.app.router.resolve(request.clone(rel_url=merged))
    return merged if merged != request.raw_path and match.http_exception is None else None


def _check_api_key(header: str, api_key: str) -> None:
    scheme, space, token = header.partition(" ")
    if not space:
        message = "Authorization header must be provided and start with 'Bearer'"
        raise EmulatedError(401, "unauthorized", message)
    if scheme.lower() != "bearer":
        raise EmulatedError(401, "unauthorized", "Authorization scheme must be 'Bearer'")
    if token.strip() != api_key:
        raise EmulatedError(401, "unauthorized", "Access token is invalid")


class RequestQuota:
    """A subscription's request quota in a sliding window. Refused requests count (measured)."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._limit = settings.quota
        self._window = settings.quota_window
        self._now = now
        self._calls: deque[float] = deque()

    def count_request(self, endpoint: Endpoint[Any, Any]) -> None:
        """Count a write or a search; other requests are free (measured).

        Raises:
            EmulatedError: the quota of the window is exceeded.
        """
        if self._limit is None or endpoint.method == "GET" or _is_exempt_from_quota(endpoint.name):
            return
        now = self._now()
        self._calls.append(now)
        while self._calls[0] <= now - self._window:
            self._calls.popleft()
        if len(self._calls) > self._limit:
            raise EmulatedError(403, "forbidden", RATE_LIMIT_MESSAGE)


def _is_exempt_from_quota(name: str) -> bool:
    return name == "documents.set_status" or name.startswith("tags.")
