"""Apply a fault to a request (delay, drop or replace its response); lock datasets."""

from __future__ import annotations

import math
import socket
import struct
import time
from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from dify_kb.emulator import http_responses
from dify_kb.emulator.errors import RATE_LIMIT_MESSAGE, EmulatedError
from dify_kb.emulator.request_body import read_slowly, read_whole_body, skip_bytes
from dify_kb.emulator.stub_models import no_default_model_message

from .spec import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dify_kb.emulator.request_context import ApiCall
    from dify_kb.emulator.server_profile import ServerProfile

    CallHandler = Callable[[ApiCall], Awaitable[web.Response]]

_PIECES_PER_SECOND: Final = 10
"""Pieces per second of a `trickle` response; also its minimum number of pieces."""

_POLL_INTERVAL: Final = 0.05
"""Seconds between checks whether the client of an unanswered request has disconnected."""

_LOCK_POLL_INTERVAL: Final = 0.02
"""Seconds between checks whether a lock was released early."""


async def apply_fault(
    fault: Fault, call: ApiCall, profile: ServerProfile, carry_out: CallHandler
) -> web.StreamResponse | None:
    """Apply a fault to a call; return None if the connection was dropped or stays unanswered."""
    match fault.kind:
        case FaultKind.RESET_AFTER | FaultKind.LATE:
            await _drop_call(fault, call, carry_out)
            return None
        case FaultKind.STALE_LIST:
            if fault.always or not _forbids_cache(call.request):
                call.notes.as_of = call.clock.now() - fault.seconds
            return await carry_out(call)
        case FaultKind.TRICKLE:
            return await _send_slowly(call.request, await carry_out(call), fault.seconds)
        case FaultKind.SLOW_READ if call.body is None:
            call.body = await read_slowly(call.request, call.max_body, fault.amount)
    response = await carry_out(call) if fault.commit else None
    await anyio.sleep(fault.seconds)
    if fault.kind in {FaultKind.RESET, FaultKind.CLOSE}:
        abort_connection(call.request, reset=fault.kind is FaultKind.RESET)
        return None
    if fault.kind in _FAULT_RESPONSES:
        return _FAULT_RESPONSES[fault.kind](fault, profile)
    response = response or await carry_out(call)
    if fault.kind is FaultKind.TRUNCATE and isinstance(response.body, bytes):
        response.body = response.body[: len(response.body) // 2]
    return response


def abort_connection(request: web.Request, *, reset: bool = True) -> None:
    """Close the connection without a response, by a TCP reset or an orderly close."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _count_bytes_before_reset(fault: Fault, call: ApiCall) -> int:
    """Return the number of bytes to read before the reset; 1 for a percentage of unknown length."""
    if not fault.percent:
        return fault.amount
    return math.ceil((call.request.content_length or 1) * fault.amount / 100)


async def _drop_call(fault: Fault, call: ApiCall, carry_out: CallHandler) -> None:
    """Drop a call without a response; a `late` call is processed afterwards."""
    if fault.kind is FaultKind.LATE:
        await _carry_out_late(fault, call, carry_out)
        return
    await skip_bytes(call.request, _count_bytes_before_reset(fault, call))
    abort_connection(call.request)


async def _carry_out_late(fault: Fault, call: ApiCall, carry_out: CallHandler) -> None:
    """Read the whole request, then process it after the client has lost the connection."""
    if call.body is None:
        call.body = await read_whole_body(call.request, call.max_body)
    if not fault.silent:
        abort_connection(call.request)
    await anyio.sleep(fault.seconds)
    await carry_out(call)
    call.record(0)
    while call.request.transport is not None:  # noqa: ASYNC110 -- aiohttp has no event for it
        await anyio.sleep(_POLL_INTERVAL)


async def _send_slowly(
    request: web.Request, whole_response: web.Response, seconds: float
) -> web.StreamResponse:
    body = whole_response.body if isinstance(whole_response.body, bytes) else b""
    response = web.StreamResponse(status=whole_response.status, headers=whole_response.headers)
    response.content_length = len(body)
    await response.prepare(request)
    pieces = max(
        1, min(len(body), max(_PIECES_PER_SECOND, math.ceil(seconds * _PIECES_PER_SECOND)))
    )
    size = math.ceil(len(body) / pieces)
    for start in range(0, pieces * size, max(1, size)):
        await anyio.sleep(seconds / pieces)
        await response.write(body[start : start + size])
    await response.write_eof()
    return response


def _forbids_cache(request: web.Request) -> bool:
    words = request.headers.get("Cache-Control", "").lower().split(",")
    return "no-cache" in {word.strip() for word in words}


_LIMIT_MESSAGES: Final[Mapping[FaultKind, str]] = {
    FaultKind.RATE_LIMIT: RATE_LIMIT_MESSAGE,
    FaultKind.DOCUMENT_LIMIT: "The number of documents has reached the limit of your subscription.",
    FaultKind.VECTOR_LIMIT: "The capacity of the vector space has reached the limit of your"
    " subscription.",
}
"""Messages of the cloud's 403 responses (recordings 1080 to 1091 of 1.12.1)."""


def _build_limit_response(fault: Fault, profile: ServerProfile) -> web.Response:
    return http_responses.error_response(
        profile, EmulatedError(403, "forbidden", _LIMIT_MESSAGES[fault.kind])
    )


def _build_no_provider_response(_fault: Fault, profile: ServerProfile) -> web.Response:
    return http_responses.error_response(
        profile, EmulatedError(400, "provider_not_initialize", no_default_model_message(profile))
    )


def _build_plugin_daemon_response(_fault: Fault, profile: ServerProfile) -> web.Response:
    url = "plugin/00000000-0000-4000-8000-000000000000/management/models"
    message = f"Failed to request plugin daemon, url: {url}"
    return http_responses.error_response(profile, EmulatedError(400, "invalid_param", message))


def _build_being_indexed_response(_fault: Fault, profile: ServerProfile) -> web.Response:
    message = "Document:document.txt is being indexed, please try again later"
    return http_responses.error_response(profile, EmulatedError(400, "invalid_action", message))


def _build_status_response(fault: Fault, profile: ServerProfile) -> web.Response:
    if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return http_responses.crash_response(profile)
    refused = EmulatedError(fault.status, "planned", "A planned fault.")
    response = http_responses.error_response(profile, refused)
    response.headers.update(_build_retry_after_header(fault))
    return response


def _build_retry_after_header(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after is None else {"Retry-After": fault.retry_after}


_FAULT_RESPONSES: Final[Mapping[FaultKind, Callable[[Fault, ServerProfile], web.Response]]] = {
    FaultKind.RATE_LIMIT: _build_limit_response,
    FaultKind.DOCUMENT_LIMIT: _build_limit_response,
    FaultKind.VECTOR_LIMIT: _build_limit_response,
    FaultKind.NO_PROVIDER: _build_no_provider_response,
    FaultKind.PLUGIN_DAEMON: _build_plugin_daemon_response,
    FaultKind.BEING_INDEXED: _build_being_indexed_response,
    FaultKind.EMPTY: lambda _, profile: http_responses.empty_response(profile),
    FaultKind.LOGIN_PAGE: lambda _, __: http_responses.login_page(),
    FaultKind.REDIRECT: lambda _, __: http_responses.redirect_response("/signin"),
    FaultKind.EARLY: lambda _, __: http_responses.proxy_page(413),
    FaultKind.PAGE: lambda fault, _: http_responses.proxy_page(
        fault.status, _build_retry_after_header(fault)
    ),
    FaultKind.STATUS: _build_status_response,
}
"""Builders of the responses that replace the server's own."""


class DatasetLocks:
    """Locks by dataset, timed in real seconds. `lock` and `release_all` are thread-safe."""

    def __init__(self) -> None:
        self._end_times: dict[str, float] = {}
        self._queues: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    def lock(self, dataset_id: str, seconds: float) -> None:
        """Lock a dataset for `seconds` from now."""
        self._end_times[dataset_id] = time.monotonic() + seconds

    def release_all(self) -> None:
        """Release all locks."""
        self._end_times = {}

    def is_locked(self, dataset_id: str) -> bool:
        """Return whether creates in the dataset are blocked."""
        return self._remaining_seconds(dataset_id) > 0

    async def wait(self, dataset_id: str) -> None:
        """Wait until the lock ends; waiters continue in order of arrival."""
        async with self._queues[dataset_id]:
            while (remaining := self._remaining_seconds(dataset_id)) > 0:  # noqa: ASYNC110 -- threads end it
                await anyio.sleep(min(remaining, _LOCK_POLL_INTERVAL))

    def _remaining_seconds(self, dataset_id: str) -> float:
        return self._end_times.get(dataset_id, 0.0) - time.monotonic()
