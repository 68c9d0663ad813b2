"""Classify errors: faults that pass, reasons to stop a load, refusals that concern every file."""

from __future__ import annotations

import re

from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ConnectError,
    ForbiddenError,
    JournalError,
    KnowledgeError,
    NotFoundError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TooLargeError,
    TransportError,
    UnauthorizedError,
    UnsupportedTypeError,
)

from .report import StopReason

SAME_REFUSALS = 20
"""Uploads refused with the same words, and none accepted between, after which a load stops. Dify
checks little of a single file when it creates a document, so that so many are never about files."""

SAME_PAGES = 2
"""Likewise for a redirect or a page that is not of the API, such as a login form."""

_TRANSIENT = re.compile(
    r"rate.?limit|too many requests|quota.{0,20}per (second|minute)|time[d ]*[ -]?out|timeout"
    r"|connection|connect(ing)? (to|error)|temporar|unavailable|overload|try again|throttl"
    r"|\b(429|500|502|503|504|529)\b|server error|bad gateway|deadlock|lock wait"
    r"|plugin daemon",
    re.IGNORECASE,
)

_VARIABLE = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|\d+|'[^']*'|\"[^\"]*\"")
"""The parts of a message that differ from call to call: ids, numbers, quoted names."""

_REASONS: tuple[tuple[type[KnowledgeError], StopReason], ...] = (
    (QuotaExceededError, StopReason.PLAN_LIMIT),
    (UnauthorizedError, StopReason.UNAUTHORIZED),
    (ForbiddenError, StopReason.UNAUTHORIZED),
    (RateLimitedError, StopReason.RATE_LIMIT),
    (NotFoundError, StopReason.DATASET_DELETED),
    (JournalError, StopReason.JOURNAL),
)


def is_transient(error: KnowledgeError) -> bool:
    """Return whether an error is a fault of the server, or of the way to it, that may pass."""
    if isinstance(error, ProtocolError):
        return not error.complete
    return isinstance(
        error,
        ConnectError | RequestTimeoutError | TransportError | ServerError | RateLimitedError,
    )


def is_call_refusal(error: KnowledgeError) -> bool:
    """Return whether a refusal is about the call alone, so that a repetition meets it again."""
    refusals = BadRequestError | ConflictError | TooLargeError | UnsupportedTypeError
    return isinstance(error, refusals)


def stop_reason(error: KnowledgeError) -> StopReason:
    """Return the reason of a load that stops because of `error`."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return StopReason.OUTAGE if is_transient(error) else StopReason.MISCONFIGURED


def stop_message(error: KnowledgeError) -> str:
    """Return the message of a load that stops because of `error`: call, answer, remedy."""
    return str(error)


def is_from_other_server(error: KnowledgeError) -> bool:
    """Return whether something other than the API answered: a redirect, or a page with 2xx."""
    if isinstance(error, ProtocolError):
        return error.page
    return isinstance(error, ApiError) and 300 <= error.status < 400  # noqa: PLR2004 -- HTTP


def refusal_signature(error: KnowledgeError) -> str:
    """Return what two refusals for the same reason have in common."""
    if isinstance(error, ApiError):
        message = _VARIABLE.sub("#", error.message)[:200]
        return f"{type(error).__name__} {error.status} {error.code} {message}"
    return type(error).__name__


def is_transient_indexing_error(error: str) -> bool:
    """Return whether a document's error names a fault that passes: a provider's rate limit or
    outage, a broken connection.
    """
    return _TRANSIENT.search(error) is not None
