"""Why a run stops early. Written once, by `FileLifecycle.stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
from attrs import define

from dify_kb.ingest.report import StopReason

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


@define
class RunStop:
    """The reason of a run that stops early; nothing more is sent from then on.

    `abandoned`: documents that the server has are not followed any longer either.
    """

    reason: StopReason | None = None
    message: str | None = None
    abandoned: bool = False
    _waiting: anyio.CancelScope | None = None

    def request(self, reason: StopReason, message: str) -> None:
        """Request the stop; the first reason counts."""
        if self.reason is None:
            self.reason, self.message = reason, message
            if self._waiting is not None:
                self._waiting.cancel()

    async def wait_unless_requested(self, awaitable: Awaitable[T]) -> T | None:
        """Await something; return None as soon as the stop is requested."""
        with anyio.CancelScope() as scope:
            self._waiting = scope
            if self.requested:
                scope.cancel()
            try:
                return await awaitable
            finally:
                self._waiting = None
        return None

    @property
    def requested(self) -> bool:
        """Whether nothing more is to be sent."""
        return self.reason is not None
