"""The events of a load: progress, and the result of each file."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .report import ItemResult


@frozen(kw_only=True)
class Progress:
    """The progress of a load. Counts are files, sizes are bytes.

    `found` counts the files scanned so far; the scan has ended once `scanned` is True. `total` and
    `total_bytes` are counted ahead of the scan; None while unknown. Of the files found, `to_send`
    have to be uploaded, `accepted` were accepted by the server, `ended` have an outcome and
    `failed` failed. `bytes` is the size of the accepted files, `bytes_done` that of all files with
    an outcome, in this run or an earlier one. `eta` is the estimated time left in seconds; None
    while unknown. `in_flight` uploads wait for a response. `settling` files are looked up on the
    server or held until they may be sent again. `paused` is the error because of which uploads are
    paused, `stopped` the reason why the run ends early.
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
"""New counts, or the result of one file."""

OnLoadEvent = Callable[[LoadEvent], None]
"""A callback for events; called in the loop thread, must not block."""
