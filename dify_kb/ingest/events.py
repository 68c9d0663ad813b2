"""What a load tells a listener while it runs."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .report import ItemResult


@frozen(kw_only=True)
class Progress:
    """How far a load is. Counts are files; `scanned` tells that `found` is final.

    `to_send` of those found go to the server, `accepted` got there, `ended` have an outcome.
    `settling` are looked for or wait for a time; `paused` says what the server failed of, while
    nothing is sent because of it.
    """

    found: int
    scanned: bool
    to_send: int
    accepted: int
    ended: int
    failed: int
    bytes: int
    settling: int
    paused: str | None
    stopped: str | None


LoadEvent = Progress | ItemResult
"""A change of the counts, or one file that ended."""

OnLoadEvent = Callable[[LoadEvent], None]
"""Called in the loop thread; must return at once."""
