"""Sending a call until it has an outcome: the only loop between a resource and the socket."""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, TypeVar

import anyio
import attrs
from attrs import field, frozen

from dify_kb.config import Policy
from dify_kb.errors import ApiError, KnowledgeError, ProtocolError
from dify_kb.wire.decipher import Reply, decipher

from . import retry
from .events import Attempted, OnAttempt
from .pace import Pace
from .session import Session

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Call

R = TypeVar("R")

_log = logging.getLogger(__name__)


@attrs.define
class Seen:
    """What the server last said of itself."""

    version: str | None = None


@frozen
class Sender:
    """Takes any call to the server and back: pace, attempt, decipher, retry."""

    session: Session
    pace: Pace
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
        while True:
            attempt += 1
            started = anyio.current_time()
            try:
                async with self.pace:
                    started = anyio.current_time()
                    reply = await self.session.attempt(call, self.policy.timeout)
                value = self._deciphered(call, reply)
            except KnowledgeError as error:
                again = retry.decide(
                    call.endpoint.repeat, attempt, error, self.policy.retry, self.random
                )
                self._tell(call, attempt, started, error, again)
                if again is None:
                    lost = retry.unknown(call.endpoint.repeat, error)
                    if lost is None:
                        raise
                    raise lost from error
            else:
                self._tell(call, attempt, started, None, None, reply.status)
                return value
            if again.everyone:
                self.pace.pause(again.seconds)
            else:
                await anyio.sleep(again.seconds)

    def _deciphered(self, call: Call[R], reply: Reply) -> R:
        self.seen.version = reply.headers.get("x-version", self.seen.version)
        return decipher(call, reply)

    def _tell(
        self,
        call: Call[R],
        attempt: int,
        started: float,
        error: KnowledgeError | None,
        again: retry.Again | None,
        status: int | None = None,
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
        if isinstance(error, ApiError | ProtocolError):
            status = error.status
        self.on_attempt(
            Attempted(
                endpoint=call.endpoint.name,
                attempt=attempt,
                status=status,
                seconds=anyio.current_time() - started,
                retry_in=None if again is None else again.seconds,
                error=None if error is None else error.summary,
            )
        )
