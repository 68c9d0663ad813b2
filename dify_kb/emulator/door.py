"""Where requests come in: the order of the checks, and what every call meets on its way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import attrs
from aiohttp import web
from attrs import frozen

from dify_kb.wire.codec import DecodeError

from . import answer
from .bodies import read, whole
from .call import Call
from .capacity import CREATES, Capacity
from .context import Context, Served
from .faults import Faults
from .faults.apply import meet
from .history import History
from .quota import Quota
from .refused import RefusedError, UncheckedError, invalid_param, not_found

if TYPE_CHECKING:
    from .store import DatasetRow

_log = logging.getLogger(__name__)

TEXT_SLOTS: Final = frozenset({"batch", "model_type", "action", "node_id"})
"""Slots that take any text; all others are UUIDs, and else there is no such route."""

_OPEN: Final = "server.info"
"""The one endpoint that needs no key."""


@frozen
class Door:
    """Answers requests, on behalf of the handlers."""

    context: Context
    api_key: str
    faults: Faults
    history: History
    capacity: Capacity | None
    quota: Quota

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
        clock, limit = self.context.clock, self.context.settings.max_body
        call = Call(served, request, self.history, clock, clock.now(), limit)
        try:
            response = await self._meet(call)
        except (ConnectionError, web.RequestPayloadError):
            # The client left before it had sent, or got, everything.
            response = None
        if response is None:
            call.tell(0)
            # What is sent over a connection that is gone reaches nobody.
            return web.Response(status=500)
        call.tell(response.status)
        return response

    async def _meet(self, call: Call) -> web.StreamResponse | None:
        if self.capacity is not None:
            await self.capacity.admit(call)
        if self.faults.refuses_bodies and call.request.can_read_body:
            call.sent = await whole(call.request, call.limit)
        fault = self.faults.take(call.name, call.sent)
        if fault is None:
            return await self._carry_out(call)
        return await meet(fault, call, self.context.profile, self._carry_out)

    async def _carry_out(self, call: Call) -> web.Response:
        profile, endpoint = self.context.profile, call.served.endpoint
        try:
            value = await self._serve(call)
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
        return answer.success(profile, endpoint, value, call.notes)

    async def _serve(self, call: Call) -> object:
        """Read a call and do it, after the time that it takes."""
        endpoint = call.served.endpoint
        context = self._enter(call)
        raw = await read(endpoint, call.request, context.settings, context.profile, call.sent)
        body = call.served.reader(context, raw)
        if self.capacity is not None:
            await self.capacity.work(call)
        if call.name in CREATES:
            await self.faults.wait_for_lock(call.name, call.request.match_info["dataset_id"])
        value = call.served(context, body)
        call.notes.committed = True
        return value

    def _enter(self, call: Call) -> Context:
        """Check the key and the dataset, in the version's order (measured)."""
        if call.name == _OPEN:
            return attrs.evolve(self.context, notes=call.notes)
        if self.context.profile.dataset_first:
            context = self._find(call)
            self._admit(call)
            return context
        self._admit(call)
        return self._find(call)

    def _admit(self, call: Call) -> None:
        _authorize(call.request.headers.get("Authorization", ""), self.api_key)
        self.quota.charge(call.served.endpoint)

    def _find(self, call: Call) -> Context:
        """Find the dataset that the path names, if it names one."""
        slots = {
            slot: value if slot in TEXT_SLOTS else value.lower()
            for slot, value in call.request.match_info.items()
        }
        found = self._dataset(call.name, slots["dataset_id"]) if "dataset_id" in slots else None
        return attrs.evolve(
            self.context, slots=slots, notes=call.notes, url=call.request.url, found=found
        )

    def _dataset(self, name: str, dataset_id: str) -> DatasetRow | None:
        profile = self.context.profile
        dataset = self.context.store.datasets.get(dataset_id)
        if dataset is not None or name in profile.dataset_unchecked:
            return dataset
        if name in profile.dataset_is_param:
            raise invalid_param("Dataset does not exist.")
        raise not_found("Dataset not found.")

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


def _authorize(header: str, api_key: str) -> None:
    scheme, space, token = header.partition(" ")
    if not space:
        message = "Authorization header must be provided and start with 'Bearer'"
        raise RefusedError(401, "unauthorized", message)
    if scheme.lower() != "bearer":
        raise RefusedError(401, "unauthorized", "Authorization scheme must be 'Bearer'")
    if token.strip() != api_key:
        raise RefusedError(401, "unauthorized", "Access token is invalid")
