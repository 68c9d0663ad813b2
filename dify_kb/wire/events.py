"""Server-sent events out of the bytes of a reply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterator


class EventReader:
    """Takes a stream piece by piece and gives the events that are complete.

    Each event's data is a JSON object that names the event; what is none (a comment, a keep-alive)
    is left out.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Add bytes; give the events that they completed."""
        *blocks, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            event = _event(block)
            if event is not None:
                yield event


def _event(block: bytes) -> Event | None:
    name, data = "", []
    for line in block.decode(errors="replace").split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    try:
        content = json.loads("\n".join(data))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return None
    return Event(event=str(content.get("event", name)), data=content)
