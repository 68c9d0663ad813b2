"""Sending a call until it has an outcome: the only loop between a resource and the socket."""

from __future__ import annotations

import logging
import warnings
from contextlib import aclosing
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import attrs
from attrs import field, frozen

from dify_kb.config import Policy
from dify_kb.errors import ApiError, KnowledgeError, NotFoundError, ProtocolError
from dify_kb.wire.decipher import Reply, decipher
from dify_kb.wire.events import EventReader
from dify_kb.wire.version import danger

from . import retry
from .body import Body
from .clock import loop_time
from .events import Attempted, OnAttempt
from .request_limiter import RequestLimiter
from .session import Session, streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.models import Event
    from dify_kb.wire.endpoint import Call

R = TypeVar("R")

_log = logging.getLogger(__name__)


@attrs.define
class Seen:
    """What the server last said of itself, and what of that was told."""

    version: str | None = None
    warned: set[str] = attrs.field(factory=set)


def _is_deleted(call: Call[Any], error: KnowledgeError) -> bool:
    """Return whether a delete met its own earlier attempt, whose answer was lost."""
    return call.endpoint.method == "DELETE" and isinstance(error, NotFoundError)


@frozen
class Sender:
    """Takes any call to the server and back: pace, attempt, decipher, retry."""

    session: Session
    pace: RequestLimiter
    policy: Policy
    on_attempt: OnAttempt | None = None
    seen: Seen = field(factory=Seen)
    random: Random = field(factory=Random)

    async def __call__(self, call: Call[R], /) -> R:
        """Send `call`, again where that is safe, and decode its reply.

        Raises:
            OutcomeUnknownError: it may have been carried out; repeating it is not safe.
            KnowledgeError: what the last attempt met.
        """
        attempt = 0
        began: float | None = None
        started = 0.0
        moved = delivered = False
        version = self.seen.version
        body = None
        while True:
            attempt += 1
            body = Body.of(call, self.policy.timeout, body)
            reply = None
            try:
                async with self.pace:
                    started = loop_time()
                    began = started if began is None else began
                    version = self.seen.version
                    self._warn(call)
                    reply = await self.session.attempt(call, body, self.policy.timeout, version)
                self._note(reply)
                self._warn(call)
                value = decipher(call, reply)
            except KnowledgeError as error:
                if not moved and self._elsewhere(call, version, error):
                    moved = True
                    self._tell(call, attempt, started, error, retry.Again(0.0), reply)
                    continue
                if delivered and _is_deleted(call, error):
                    self._tell(call, attempt, started, None, None, reply)
                    return cast("R", None)
                delivered = delivered or retry.may_have_arrived(error)
                again = self._again(call, attempt, error, started if began is None else began)
                self._tell(call, attempt, started, error, again, reply)
                if again is None:
                    lost = retry.unknown(call.endpoint.repeat, error)
                    if lost is None:
                        raise
                    raise lost from error
            else:
                self._tell(call, attempt, started, None, None, reply)
                return value
            if again.everyone:
                self.pace.pause(again.seconds)
            else:
                await anyio.sleep(again.seconds)

    def _again(
        self, call: Call[Any], attempt: int, error: KnowledgeError, began: float
    ) -> retry.Again | None:
        """Return when to try again, within the time that the whole call may take."""
        policy = self.policy.retry
        again = retry.decide(call.endpoint.repeat, attempt, error, policy, self.random)
        if again is None or policy.total is None:
            return again
        elapsed = loop_time() - began
        return None if elapsed + again.seconds > policy.total else again

    async def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Send `call` once and give the events of its reply as they come.

        Raises:
            KnowledgeError: the server refused, or the connection broke.
        """
        reader = EventReader()
        started = loop_time()
        self._warn(call)
        replies = self.session.stream(call, self.policy.timeout, self.seen.version)
        try:
            async with aclosing(replies):
                # The turn ends with the first piece: who follows the events makes other calls.
                async with self.pace:
                    reply = await anext(replies, None)
                while reply is not None:
                    self._note(reply)
                    if streams(reply):
                        for event in reader.feed(reply.body):
                            yield event
                    else:
                        yield decipher(call, reply)
                    reply = await anext(replies, None)
        except KnowledgeError as error:
            self._tell(call, 1, started, error, None, None)
            raise
        self._tell(call, 1, started, None, None, Reply(HTTPStatus.OK, {}, b""))

    def _elsewhere(self, call: Call[Any], asked: str | None, error: KnowledgeError) -> bool:
        """Tell whether there was no such route, and the version now known has it elsewhere."""
        return (
            isinstance(error, ApiError)
            and error.status in {404, 405}
            and call.route(self.seen.version) != call.route(asked)
        )

    def _note(self, reply: Reply) -> None:
        self.seen.version = reply.headers.get("x-version", self.seen.version)

    def _warn(self, call: Call[Any]) -> None:
        """Warn once of what a call does on this version; before the call, if that is known."""
        warning = danger(call.endpoint.name, self.seen.version)
        if warning and warning not in self.seen.warned:
            self.seen.warned.add(warning)
            warnings.warn(warning, stacklevel=4)

    def _tell(
        self,
        call: Call[R],
        attempt: int,
        started: float,
        error: KnowledgeError | None,
        again: retry.Again | None,
        reply: Reply | None,
    ) -> None:
        if error is not None:
            wait = "" if again is None else f"; again in {again.seconds:.2f} s"
            _log.info(
                "%s%s",
                error.summary,
                wait,
                extra={"endpoint": call.endpoint.name, "attempt": attempt},
            )
        if self.on_attempt is None:
            return
        status = None if reply is None else reply.status
        if isinstance(error, ApiError | ProtocolError):
            status = error.status
        self.on_attempt(
            Attempted(
                endpoint=call.endpoint.name,
                attempt=attempt,
                status=status,
                seconds=loop_time() - started,
                retry_in=None if again is None else again.seconds,
                error=None if error is None else error.summary,
                waited=None if reply is None else reply.waited,
                trouble=None if error is None else retry.trouble(error),
                retry_after=error.retry_after if isinstance(error, ApiError) else None,
            )
        )
