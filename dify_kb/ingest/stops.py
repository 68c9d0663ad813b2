from __future__ import annotations

from dify_kb.errors import (
    ForbiddenError,
    JournalError,
    KnowledgeError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    UnauthorizedError,
)

from .engine.gate import passing
from .report import StopReason

_REASONS: tuple[tuple[type[KnowledgeError], StopReason], ...] = (
    (QuotaExceededError, StopReason.PLAN_LIMIT),
    (UnauthorizedError, StopReason.UNAUTHORIZED),
    (ForbiddenError, StopReason.UNAUTHORIZED),
    (RateLimitedError, StopReason.RATE_LIMIT),
    (NotFoundError, StopReason.MISCONFIGURED),
    (JournalError, StopReason.JOURNAL),
)


def stop_reason(error: KnowledgeError) -> StopReason | None:
    """Tell whether an error concerns every file, not one."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return StopReason.OUTAGE if passing(error) else None
