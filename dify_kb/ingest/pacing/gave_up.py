"""Describe why a load gave up on its server."""

from __future__ import annotations

from attrs import frozen

from dify_kb.ingest.report import StopReason


@frozen
class GaveUp:
    """The reason with which a load stops once its circuit breaker has given up."""

    reason: StopReason
    message: str
