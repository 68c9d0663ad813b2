"""Events that a load passes to its listener."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .report import ItemResult


@frozen(kw_only=True)
class Progress:
    """The progress of a load. Counts are files, sizes are bytes.

    `found` files were scanned so far, all of them once `scanned` is True. `total` and
    `total_bytes` are counted ahead of the scan, None while they are not known. Of the files
    found, `to_send` go to the server, `accepted` are there, `ended` have an outcome and `failed`
    failed. `bytes` were accepted by the server; `bytes_done` is the size of all files that have an
    outcome, in this run or an earlier one. `eta` is the estimated time left in seconds, None while
    it is not known. `in_flight` uploads wait for a response. `settling` files are looked up on the
    server or held until they may be sent again. `paused` is the server's error while it keeps the
    load from sending, `stopped` the reason why the run ends early.
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
    total: int | None = None
    total_bytes: int | None = None
    bytes_done: int = 0
    eta: float | None = None
    in_flight: int = 0


LoadEvent = Progress | ItemResult
"""A change of the counts, or the result of one file."""

OnLoadEvent = Callable[[LoadEvent], None]
"""A listener; called in the loop thread, must return at once."""
