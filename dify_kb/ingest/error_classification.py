"""Classify errors: transient errors, reasons to stop a load, refusals that affect every file."""

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
    ServerError,
    TooLargeError,
    TransportError,
    UnauthorizedError,
    UnsupportedTypeError,
)
from dify_kb.models import IndexingErrorCode

from .report import StopReason

SAME_REFUSALS = 20
"""Consecutive uploads refused with the same message after which a load stops. Dify checks little
of a file when it creates a document: so many equal refusals do not concern single files."""

SAME_PAGES = 2
"""The same limit for redirects and pages from outside the API, such as a login form."""

_TRANSIENT = re.compile(
    r"rate.?limit|too many requests|quota.{0,20}per (second|minute)|time[d ]*[ -]?out|timeout"
    r"|connection|connect(ing)? (to|error)|temporar|unavailable|overload|try again|throttl"
    r"|\b(429|500|502|503|504|529)\b|server error|bad gateway|deadlock|lock wait"
    r"|plugin daemon",
    re.IGNORECASE,
)

_PLAN_LIMIT = "limit of the current plan"
"""Part of the message of an upload that the plan's vector space cannot hold (server source)."""

_VARIABLE = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|\d+|'[^']*'|\"[^\"]*\"")
"""The parts of a message that differ between calls: ids, numbers, quoted names."""

_REASONS: tuple[tuple[type[KnowledgeError], StopReason], ...] = (
    (QuotaExceededError, StopReason.PLAN_LIMIT),
    (UnauthorizedError, StopReason.UNAUTHORIZED),
    (ForbiddenError, StopReason.UNAUTHORIZED),
    (RateLimitedError, StopReason.RATE_LIMIT),
    (NotFoundError, StopReason.DATASET_DELETED),
    (JournalError, StopReason.JOURNAL),
)


def is_transient(error: KnowledgeError) -> bool:
    """Return whether an error is a temporary fault of the server or of the network."""
    if isinstance(error, ProtocolError):
        return not error.complete
    if isinstance(error, ConnectError):
        return not error.permanent
    return isinstance(error, TransportError | ServerError | RateLimitedError)


def is_call_refusal(error: KnowledgeError) -> bool:
    """Return whether a refusal concerns only this call and would be repeated on a retry."""
    refusals = BadRequestError | ConflictError | TooLargeError | UnsupportedTypeError
    return isinstance(error, refusals)


def stop_reason(error: KnowledgeError) -> StopReason:
    """Return the stop reason of a load that stops because of `error`."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return StopReason.OUTAGE if is_transient(error) else StopReason.MISCONFIGURED


def stop_message(error: KnowledgeError) -> str:
    """Return the message of a load that stops because of `error`: call, response, next step."""
    return str(error)


def is_from_other_server(error: KnowledgeError) -> bool:
    """Return whether the response is not from the API: a redirect, or a page with status 2xx."""
    if isinstance(error, ProtocolError):
        return error.page
    return isinstance(error, ApiError) and 300 <= error.status < 400  # noqa: PLR2004 -- HTTP


def refusal_signature(error: KnowledgeError) -> str:
    """Return a string that is equal for refusals with the same reason."""
    if isinstance(error, ApiError):
        message = _VARIABLE.sub("#", error.message)[:200]
        return f"{type(error).__name__} {error.status} {error.code} {message}"
    return type(error).__name__


def is_transient_indexing_error(error: str, code: IndexingErrorCode | None = None) -> bool:
    """Return whether a document's indexing error is temporary.

    Examples are a provider's rate limit or outage, and a broken connection. A known `code` decides;
    without one, only the message tells. That of a full vector space contains sizes, such as 500 MB.
    """
    if code is IndexingErrorCode.VECTOR_SPACE_ESTIMATE_EXCEEDED or _PLAN_LIMIT in error:
        return False
    return _TRANSIENT.search(error) is not None
