"""Decide whether and when to retry a request, by its repeatability and error. No I/O.

| failure | SAFE | IDEMPOTENT | UPSERT | CREATE |
|---|---|---|---|---|
| connection failed; nothing sent | retry | retry | retry | retry |
| invalid certificate; refused by the proxy | raise | raise | raise | raise |
| 408, 425, 429, 503, 403 rate limit | delay | delay | delay | delay |
| connection lost before the body was complete | retry | retry | retry | unknown |
| connection lost, or timeout, after that | retry | retry | unknown | unknown |
| 500 | retry (3 attempts) | retry (3) | unknown | unknown |
| other 5xx | retry | retry | unknown | unknown |
| 400, plugin daemon down | retry | retry | retry | retry |
| 2xx, truncated | retry | retry | unknown | unknown |
| 400, busy with an earlier attempt of the call | raise | retry | raise | raise |
| 2xx with an unexpected body; any other error response | raise | raise | raise | raise |

"delay" also pauses all other requests. "unknown" raises `OutcomeUnknownError`: check on the server
whether the request succeeded before repeating it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConnectError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from dify_kb.wire.endpoint import Repeatability
from dify_kb.wire.version_bugs import find_bug_hint

if TYPE_CHECKING:
    from random import Random

    from dify_kb.config import Retry
    from dify_kb.wire.endpoint import Call

    from .attempt_event import FailureKind

NOT_FOUND = 404
UNAVAILABLE = 503

_BUSY = re.compile(r"operation is running|segment is indexing", re.IGNORECASE)
"""The messages of a 400 while the server works on the same object (measured on 1.14.2)."""

_BEING_DELETED = "is deleting"
"""Part of the message of a 400 for a segment whose delete is in progress (segment_service)."""

MIN_SERVER_ERROR = 500
"""A `ServerError` with a lower status is a temporary rejection: the server changed nothing."""


@frozen
class RetryDelay:
    """The delay before a retry, in seconds; `pauses_all` is whether it applies to all requests."""

    seconds: float
    pauses_all: bool = False


def decide_retry(
    repeatability: Repeatability, attempt: int, error: KnowledgeError, retry: Retry, random: Random
) -> RetryDelay | None:
    """Return the delay before a retry, or None to give up. `attempt` counts from 1."""
    if is_throttled(error):
        if attempt >= retry.throttled_attempts:
            return None
        return _delay_throttled(error, attempt, retry, random)
    if attempt >= _max_attempts(repeatability, error, retry):
        return None
    return RetryDelay(random.uniform(0, _backoff_limit(retry.base_delay, attempt, retry.max_delay)))


def outcome_unknown_error(
    repeatability: Repeatability, error: KnowledgeError
) -> OutcomeUnknownError | None:
    """Return the error to raise if a create may have succeeded despite `error`, else None."""
    if repeatability in {Repeatability.SAFE, Repeatability.IDEMPOTENT} or is_throttled(error):
        return None
    match error:
        case ConnectError():
            return None
        case TransportError(delivered=False) if repeatability is Repeatability.UPSERT:
            return None
        case ServerError(status=status) if status < MIN_SERVER_ERROR:
            return None
        case TransportError() | ServerError() | ProtocolError(complete=False):
            return OutcomeUnknownError(
                f"{error.summary.removesuffix('.')}; the request may have succeeded.",
                endpoint=error.endpoint,
                hint="Check on the server whether it succeeded before you repeat it.",
            )
        case _:
            return None


def classify_failure(error: KnowledgeError) -> FailureKind | None:
    """Return the kind of server failure, or None if `error` concerns only this request."""
    match error:
        case RateLimitedError(status=403):
            return "quota"
        case RateLimitedError() | ServerError(status=503):
            return "overload"
        case RequestTimeoutError():
            return "timeout"
        case ConnectError():
            return None if error.permanent else "unreachable"
        case TransportError() | ServerError() | ProtocolError(complete=False):
            return "failed"
        case _:
            return None


def is_already_deleted(call: Call[Any], error: KnowledgeError) -> bool:
    """Return whether a delete failed because its earlier attempt succeeded without a response.

    A 404 without Dify's code is of a proxy or a missing route, and proves nothing.
    """
    if call.endpoint.method != "DELETE" or not isinstance(error, ApiError) or not error.code:
        return False
    if error.status == NOT_FOUND:
        return find_bug_hint(call.endpoint.name, error.server_version, NOT_FOUND) is None
    return isinstance(error, BadRequestError) and _BEING_DELETED in error.message


def may_have_arrived(error: KnowledgeError) -> bool:
    """Return whether the server may have carried out the request that failed with `error`."""
    match error:
        case ConnectError() | TransportError(delivered=False):
            return False
        case TransportError() | ProtocolError():
            return True
        case ServerError(status=status):
            return status >= MIN_SERVER_ERROR and status != UNAVAILABLE
        case _:
            return False


def is_throttled(error: KnowledgeError) -> bool:
    """Return whether the server rejected a request temporarily, without carrying it out."""
    return isinstance(error, RateLimitedError) or (
        isinstance(error, ServerError) and error.status == UNAVAILABLE
    )


def _max_attempts(  # noqa: PLR0911 -- the table of the module
    repeatability: Repeatability, error: KnowledgeError, retry: Retry
) -> int:
    is_repeatable = repeatability in {Repeatability.SAFE, Repeatability.IDEMPOTENT}
    max_attempts = {
        Repeatability.SAFE: retry.read_attempts,
        Repeatability.IDEMPOTENT: retry.idempotent_attempts,
    }.get(repeatability, retry.write_attempts)
    match error:
        case ConnectError(permanent=True):
            return 1
        case ConnectError():
            return max_attempts
        case ServerError(status=status) if status < MIN_SERVER_ERROR:
            return max_attempts
        case TransportError(delivered=False) if (
            is_repeatable or repeatability is Repeatability.UPSERT
        ):
            return max_attempts
        case ServerError(status=500) if is_repeatable:
            return min(max_attempts, retry.server_error_attempts)
        case TransportError() | ServerError() | ProtocolError(complete=False) if is_repeatable:
            return max_attempts
        case BadRequestError(after_lost_response=True) if _BUSY.search(error.message):
            return max_attempts
        case _:
            return 1


def _delay_throttled(
    error: KnowledgeError, attempt: int, retry: Retry, random: Random
) -> RetryDelay:
    hint = error.retry_after if isinstance(error, RateLimitedError | ServerError) else None
    if isinstance(error, RateLimitedError) and error.status == 403:  # noqa: PLR2004 -- Dify's own
        seconds = random.uniform(0.6 * retry.quota_delay, retry.quota_delay)
    else:
        bound = _backoff_limit(retry.overload_base_delay, attempt, retry.overload_max_delay)
        seconds = random.uniform(retry.overload_min_delay, max(retry.overload_min_delay, bound))
    if hint is not None:
        seconds = max(seconds, min(hint, retry.max_retry_after)) * random.uniform(1.0, 1.1)
    return RetryDelay(seconds, pauses_all=True)


def _backoff_limit(base: float, attempt: int, max_delay: float) -> float:
    # The exponent is limited, as 2.0 ** 1024 overflows after days of retries.
    return min(max_delay, base * 2.0 ** min(attempt - 1, 64))
