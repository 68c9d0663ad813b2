from __future__ import annotations

from typing import Any

from aiohttp import web
from attrs import define, field

from .clock import Clock
from .context import Notes, Served
from .history import Exchange, History


@define(eq=False)
class Call:
    """A request while it is answered, and what became known of it."""

    served: Served[Any, Any]
    request: web.Request
    history: History
    clock: Clock
    started: float
    limit: int
    """Bytes that its body may have."""

    notes: Notes = field(factory=Notes)
    sent: bytes | None = None
    """Its body, if that was read already."""

    process: int = 0
    """The process that its connection is of."""

    told: bool = False

    @property
    def name(self) -> str:
        """The endpoint."""
        return self.served.endpoint.name

    def tell(self, status: int) -> None:
        """Put it into the history, once; status 0 is no answer."""
        if self.told:
            return
        self.told = True
        notes = self.notes
        self.history.add(
            Exchange(
                self.name,
                status,
                notes.document,
                self.started,
                self.clock.now(),
                self.request.match_info.get("dataset_id", "").lower() or None,
                notes.document_id,
                notes.file_id,
                notes.committed,
                notes.replaced,
                _connection(self.request),
            )
        )


def _connection(request: web.Request) -> str | None:
    peer = request.protocol.peername
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else None
