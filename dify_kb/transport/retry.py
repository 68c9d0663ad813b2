"""Whether and when to try again: pure, (call's repeat, attempt, error) -> seconds or None.

| what happened | SAFE | IDEMPOTENT | UPSERT | CREATES |
|---|---|---|---|---|
| not reached; nothing sent | again | again | again | again |
| 408, 425, 429, 503, 403 rate limit | later | later | later | later |
| broke before the body was whole | again | again | again | unknown |
| broke, or timed out, after that | again | again | unknown | unknown |
| 500 | again (3 attempts) | again (3) | unknown | unknown |
| other 5xx | again | again | unknown | unknown |
| 400, the plugin daemon is down | again | again | again | again |
| 2xx cut short | again | again | unknown | unknown |
| 2xx of something else; any other refusal | no | no | no | no |

"unknown" is `OutcomeUnknownError`: only a look at the server tells whether to repeat the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import (
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

if TYPE_CHECKING:
    from random import Random

    from dify_kb.config import Retry

    from .attempt_event import FailureKind

UNAVAILABLE = 503

MIN_SERVER_ERROR = 500
"""Below it, a `ServerError` is a refusal that passes: nothing was done."""


@frozen
class RetryDelay:
    """Try again in `seconds`; `pauses_all` says that all calls should wait, not this one alone."""

    seconds: float
    pauses_all: bool = False


def decide_retry(
    repeatability: Repeatability, attempt: int, error: KnowledgeError, retry: Retry, random: Random
) -> RetryDelay | None:
    """Tell what to do after attempt number `attempt` (from 1) ended in `error`."""
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
    """Tell whether `error` leaves open if a call that creates was carried out."""
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
                f"{error.summary.removesuffix('.')}; it may have been carried out all the same.",
                endpoint=error.endpoint,
                hint="Look on the server before sending it again.",
            )
        case _:
            return None


def classify_failure(error: KnowledgeError) -> FailureKind | None:
    """Tell what `error` says of the server; None when it is about this call alone."""
    match error:
        case RateLimitedError(status=403):
            return "quota"
        case RateLimitedError() | ServerError(status=503):
            return "overload"
        case RequestTimeoutError():
            return "timeout"
        case ConnectError():
            return "unreachable"
        case TransportError() | ServerError() | ProtocolError(complete=False):
            return "failed"
        case _:
            return None


def may_have_arrived(error: KnowledgeError) -> bool:
    """Return whether the server may have carried out the call that met `error`."""
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
    """Tell whether the server said to come back later, having done nothing."""
    return isinstance(error, RateLimitedError) or (
        isinstance(error, ServerError) and error.status == UNAVAILABLE
    )


def _max_attempts(repeatability: Repeatability, error: KnowledgeError, retry: Retry) -> int:
    is_repeatable = repeatability in {Repeatability.SAFE, Repeatability.IDEMPOTENT}
    max_attempts = {
        Repeatability.SAFE: retry.read_attempts,
        Repeatability.IDEMPOTENT: retry.idempotent_attempts,
    }.get(repeatability, retry.write_attempts)
    match error:
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
    # A float holds no more than 2 to the 1023rd, and who waits for days gets there.
    return min(max_delay, base * 2.0 ** min(attempt - 1, 64))
