"""Decode server-sent events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterator


class SSEDecoder:
    """An incremental decoder of an event stream.

    The data of each event is a JSON object with the event's name. Comments, keep-alives and other
    data are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Add bytes and yield the events that are now complete."""
        *blocks, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            event = _parse_event(block)
            if event is not None:
                yield event


def _parse_event(block: bytes) -> Event | None:
    name, data = "", []
    for line in block.decode(errors="replace").split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    try:
        payload = json.loads("\n".join(data))
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return None
    return Event(event=str(payload.get("event", name)), data=payload)
