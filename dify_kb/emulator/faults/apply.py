"""Apply a fault to a call: what happens to the connection, and whether the call is done."""

from __future__ import annotations

import math
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from dify_kb.emulator import answer
from dify_kb.emulator.bodies import skip, slowly, whole
from dify_kb.emulator.chosen import no_model
from dify_kb.emulator.refused import RATE_LIMIT, RefusedError

from .spec import Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dify_kb.emulator.call import Call
    from dify_kb.emulator.profile import Profile

    CarryOut = Callable[[Call], Awaitable[web.Response]]

_PIECES: Final = 10
"""Pieces a second of an answer that trickles, and the least in all."""

_LOOKS: Final = 0.05
"""Seconds between two looks whether a client that waits in vain has left."""


async def meet(
    fault: Fault, call: Call, profile: Profile, carry_out: CarryOut
) -> web.StreamResponse | None:
    """Apply a fault to a call; None if its connection is gone or never answered."""
    match fault.kind:
        case Kind.RESET_AFTER | Kind.LATE:
            await _drop(fault, call, carry_out)
            return None
        case Kind.STALE_LIST:
            if fault.always or not _forbids_cache(call.request):
                call.notes.as_of = call.clock.now() - fault.seconds
            return await carry_out(call)
        case Kind.TRICKLE:
            return await _trickle(call.request, await carry_out(call), fault.seconds)
        case Kind.SLOW_READ if call.sent is None:
            call.sent = await slowly(call.request, call.limit, fault.amount)
    response = await carry_out(call) if fault.commit else None
    await anyio.sleep(fault.seconds)
    if fault.kind in {Kind.RESET, Kind.CLOSE}:
        abort(call.request, reset=fault.kind is Kind.RESET)
        return None
    if fault.kind in _ANSWERS:
        return _ANSWERS[fault.kind](fault, profile)
    response = response or await carry_out(call)
    if fault.kind is Kind.TRUNCATE and isinstance(response.body, bytes):
        response.body = response.body[: len(response.body) // 2]
    return response


def abort(request: web.Request, *, reset: bool = True) -> None:
    """End the connection without an answer, with a reset or in order."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _portion(fault: Fault, call: Call) -> int:
    """Return the number of bytes before the reset; 1 for a percentage of an unknown length."""
    if not fault.percent:
        return fault.amount
    return math.ceil((call.request.content_length or 1) * fault.amount / 100)


async def _drop(fault: Fault, call: Call, carry_out: CarryOut) -> None:
    """Leave a call without an answer: not carried out, or later."""
    if fault.kind is Kind.LATE:
        await _late(fault, call, carry_out)
        return
    await skip(call.request, _portion(fault, call))
    abort(call.request)


async def _late(fault: Fault, call: Call, carry_out: CarryOut) -> None:
    """Read the whole call, and carry it out when nobody waits for it any more."""
    if call.sent is None:
        call.sent = await whole(call.request, call.limit)
    if not fault.silent:
        abort(call.request)
    await anyio.sleep(fault.seconds)
    await carry_out(call)
    call.tell(0)
    while call.request.transport is not None:  # noqa: ASYNC110 -- aiohttp tells nobody
        await anyio.sleep(_LOOKS)


async def _trickle(
    request: web.Request, whole_response: web.Response, seconds: float
) -> web.StreamResponse:
    body = whole_response.body if isinstance(whole_response.body, bytes) else b""
    response = web.StreamResponse(status=whole_response.status, headers=whole_response.headers)
    response.content_length = len(body)
    await response.prepare(request)
    pieces = max(1, min(len(body), max(_PIECES, math.ceil(seconds * _PIECES))))
    size = math.ceil(len(body) / pieces)
    for start in range(0, pieces * size, max(1, size)):
        await anyio.sleep(seconds / pieces)
        await response.write(body[start : start + size])
    await response.write_eof()
    return response


def _forbids_cache(request: web.Request) -> bool:
    words = request.headers.get("Cache-Control", "").lower().split(",")
    return "no-cache" in {word.strip() for word in words}


_LIMITS: Final[Mapping[Kind, str]] = {
    Kind.RATE_LIMIT: RATE_LIMIT,
    Kind.DOCUMENT_LIMIT: "The number of documents has reached the limit of your subscription.",
    Kind.VECTOR_LIMIT: "The capacity of the vector space has reached the limit of your"
    " subscription.",
}
"""The texts of the cloud's 403s (recordings 1080 to 1091 of 1.12.1)."""


def _limit(fault: Fault, profile: Profile) -> web.Response:
    return answer.refusal(profile, RefusedError(403, "forbidden", _LIMITS[fault.kind]))


def _no_provider(_fault: Fault, profile: Profile) -> web.Response:
    return answer.refusal(profile, RefusedError(400, "provider_not_initialize", no_model(profile)))


def _plugin_daemon(_fault: Fault, profile: Profile) -> web.Response:
    url = "plugin/00000000-0000-4000-8000-000000000000/management/models"
    message = f"Failed to request plugin daemon, url: {url}"
    return answer.refusal(profile, RefusedError(400, "invalid_param", message))


def _being_indexed(_fault: Fault, profile: Profile) -> web.Response:
    message = "Document:document.txt is being indexed, please try again later"
    return answer.refusal(profile, RefusedError(400, "invalid_action", message))


def _status(fault: Fault, profile: Profile) -> web.Response:
    if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer.crash(profile)
    refused = RefusedError(fault.status, "planned", "A planned fault.")
    response = answer.refusal(profile, refused)
    response.headers.update(_hint(fault))
    return response


def _hint(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after is None else {"Retry-After": fault.retry_after}


_ANSWERS: Final[Mapping[Kind, Callable[[Fault, Profile], web.Response]]] = {
    Kind.RATE_LIMIT: _limit,
    Kind.DOCUMENT_LIMIT: _limit,
    Kind.VECTOR_LIMIT: _limit,
    Kind.NO_PROVIDER: _no_provider,
    Kind.PLUGIN_DAEMON: _plugin_daemon,
    Kind.BEING_INDEXED: _being_indexed,
    Kind.EMPTY: lambda _, profile: answer.empty(profile),
    Kind.LOGIN_PAGE: lambda _, __: answer.login_page(),
    Kind.REDIRECT: lambda _, __: answer.redirect("/signin"),
    Kind.EARLY: lambda _, __: answer.proxy_page(413),
    Kind.PAGE: lambda fault, _: answer.proxy_page(fault.status, _hint(fault)),
    Kind.STATUS: _status,
}
"""The failures that are an answer of their own."""
