"""The reason why a load gave up on the server."""

from __future__ import annotations

from attrs import frozen

from dify_kb.ingest.report import StopReason


@frozen
class GaveUp:
    """The stop reason of a load whose circuit breaker has given up on the server."""

    reason: StopReason
    message: str
