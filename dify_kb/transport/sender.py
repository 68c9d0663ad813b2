"""Send calls to the server, with retries, and decode the responses."""

from __future__ import annotations

import inspect
import logging
import warnings
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import attrs
from attrs import field, frozen

from dify_kb.config import Policy
from dify_kb.errors import ApiError, KnowledgeError, ProtocolError, RateLimitedError
from dify_kb.wire.decode_response import Response, decode_response
from dify_kb.wire.sse import SSEDecoder
from dify_kb.wire.version_bugs import find_warning

from . import retry
from .attempt_event import AttemptEvent, OnAttempt
from .clock import loop_time
from .connection import Connection
from .http_session import is_event_stream
from .request_limiter import RequestLimiter
from .upload_body import UploadBody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.models import Event
    from dify_kb.wire.endpoint import Call

R = TypeVar("R")

_log = logging.getLogger(__name__)

_PACKAGE = str(Path(__file__).parent.parent)


@attrs.define
class ServerState:
    """The version that the server last reported, and the warnings already issued about it."""

    version: str | None = None
    issued_warnings: set[str] = attrs.field(factory=set)


def _find_caller_level() -> int:
    """Return the stack level of the caller's line, the first one outside of this package."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


@frozen
class Sender:
    """The path of all calls to the server: limit, send, decode, retry."""

    session: Connection
    limiter: RequestLimiter
    policy: Policy
    on_attempt: OnAttempt | None = None
    server: ServerState = field(factory=ServerState)
    random: Random = field(factory=Random)

    @property
    def server_version(self) -> str | None:
        """The version that the server last reported, or None."""
        return self.server.version

    async def __call__(self, call: Call[R], /) -> R:
        """Send `call`, retry it if that is safe, and return the decoded response.

        Raises:
            OutcomeUnknownError: the request may have succeeded; repeating it is not safe.
            RateLimitedError: the server asked for a longer delay than `Retry.total` allows, also
                in response to another call.
            KnowledgeError: the last attempt failed.
        """
        attempt = 0
        first_start = started = loop_time()
        is_rerouted = may_be_carried_out = False
        version = self.server.version
        body = None
        while True:
            attempt += 1
            body = UploadBody.from_call(call, self.policy.timeout, body)
            response = None
            await self._acquire(call, first_start)
            try:
                try:
                    started = loop_time()
                    first_start = started if attempt == 1 else first_start
                    version = self.server.version
                    self._warn_once(call)
                    response = await self.session.attempt(call, body, self.policy.timeout, version)
                finally:
                    self.limiter.release()
                self._record_version(response)
                self._warn_once(call)
                value = decode_response(call, response)
            except KnowledgeError as error:
                if not is_rerouted and self._has_other_route(call, version, error):
                    is_rerouted = True
                    self._report_attempt(
                        call, attempt, started, error, retry.RetryDelay(0.0), response
                    )
                    continue
                if may_be_carried_out and isinstance(error, ApiError):
                    error.after_lost_response = True
                    if retry.is_already_deleted(call, error):
                        self._report_attempt(call, attempt, started, None, None, response)
                        return cast("R", None)
                may_be_carried_out = may_be_carried_out or retry.may_have_arrived(error)
                retry_delay = self._decide_retry(call, attempt, error, first_start)
                self._report_attempt(call, attempt, started, error, retry_delay, response)
                if retry_delay is None:
                    unknown_outcome = retry.outcome_unknown_error(
                        call.endpoint.repeatability, error
                    )
                    if unknown_outcome is None:
                        raise
                    raise unknown_outcome from error
            else:
                self._report_attempt(call, attempt, started, None, None, response)
                return value
            if retry_delay.pauses_all:
                self.limiter.pause(retry_delay.seconds)
            else:
                await anyio.sleep(retry_delay.seconds)

    async def _acquire(self, call: Call[Any], since: float) -> None:
        """Occupy a request slot, unless a pause lasts longer than the call may take."""
        total = self.policy.retry.total
        if await self.limiter.acquire(None if total is None else since + total):
            return
        seconds = self.limiter.remaining_pause
        raise RateLimitedError(
            f"{call.endpoint.name}: not sent, as the server asked this client to wait"
            f" {seconds:.0f} s longer.",
            endpoint=call.endpoint.name,
            status=HTTPStatus.TOO_MANY_REQUESTS,
            retry_after=seconds,
            hint="Wait, then try again, or raise Retry.total.",
        )

    def _decide_retry(
        self, call: Call[Any], attempt: int, error: KnowledgeError, first_start: float
    ) -> retry.RetryDelay | None:
        """Return the delay before a retry, or None to give up or if `Retry.total` is exceeded."""
        policy = self.policy.retry
        retry_delay = retry.decide_retry(
            call.endpoint.repeatability, attempt, error, policy, self.random
        )
        if retry_delay is None or policy.total is None:
            return retry_delay
        elapsed = loop_time() - first_start
        return None if elapsed + retry_delay.seconds > policy.total else retry_delay

    async def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Send `call` once and yield the events of its response as they arrive.

        Raises:
            KnowledgeError: the server responded with an error, or the connection was lost.
        """
        decoder = SSEDecoder()
        started = loop_time()
        self._warn_once(call)
        responses = self.session.stream(call, self.policy.timeout, self.server.version)
        try:
            async with aclosing(responses):
                # The request slot is released after the first part: consumers of the events may
                # send other requests.
                await self._acquire(call, started)
                try:
                    response = await anext(responses, None)
                finally:
                    self.limiter.release()
                while response is not None:
                    self._record_version(response)
                    if is_event_stream(response):
                        for event in decoder.feed(response.body):
                            yield event
                    else:
                        yield decode_response(call, response)
                    response = await anext(responses, None)
        except KnowledgeError as error:
            self._report_attempt(call, 1, started, error, None, None)
            raise
        self._report_attempt(call, 1, started, None, None, Response(HTTPStatus.OK, {}, b""))

    def _has_other_route(
        self, call: Call[Any], sent_version: str | None, error: KnowledgeError
    ) -> bool:
        """Return whether a route was not found but the reported version has a different route."""
        return (
            isinstance(error, ApiError)
            and error.status in {404, 405}
            and call.select_route(self.server.version) != call.select_route(sent_version)
        )

    def _record_version(self, response: Response) -> None:
        self.server.version = response.headers.get("x-version", self.server.version)

    def _warn_once(self, call: Call[Any]) -> None:
        """Warn once about a call that does harm on the server's version."""
        warning = find_warning(call.endpoint.name, self.server.version)
        if warning and warning not in self.server.issued_warnings:
            self.server.issued_warnings.add(warning)
            warnings.warn(warning, stacklevel=_find_caller_level())

    def _report_attempt(
        self,
        call: Call[R],
        attempt: int,
        started: float,
        error: KnowledgeError | None,
        retry_delay: retry.RetryDelay | None,
        response: Response | None,
    ) -> None:
        if error is not None:
            wait = "" if retry_delay is None else f"; retry in {retry_delay.seconds:.2f} s"
            _log.info(
                "%s%s",
                error.summary,
                wait,
                extra={"endpoint": call.endpoint.name, "attempt": attempt},
            )
        if self.on_attempt is None:
            return
        status = None if response is None else response.status
        if isinstance(error, ApiError | ProtocolError):
            status = error.status
        self.on_attempt(
            AttemptEvent(
                endpoint=call.endpoint.name,
                attempt=attempt,
                status=status,
                seconds=loop_time() - started,
                retry_in=None if retry_delay is None else retry_delay.seconds,
                error=None if error is None else error.summary,
                server_seconds=None if response is None else response.server_seconds,
                failure_kind=None if error is None else retry.classify_failure(error),
                retry_after=error.retry_after if isinstance(error, ApiError) else None,
                date=None if response is None else response.headers.get("date"),
            )
        )
