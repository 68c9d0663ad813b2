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
from dify_kb.wire.endpoint import Repeat

if TYPE_CHECKING:
    from random import Random

    from dify_kb.config import Retry

    from .events import Trouble

UNAVAILABLE = 503

BROKEN = 500
"""Below it, a `ServerError` is a refusal that passes: nothing was done."""


@frozen
class Again:
    """Try again in `seconds`; `everyone` says that all calls should wait, not this one alone."""

    seconds: float
    everyone: bool = False


def decide(
    repeat: Repeat, attempt: int, error: KnowledgeError, retry: Retry, random: Random
) -> Again | None:
    """Tell what to do after attempt number `attempt` (from 1) ended in `error`."""
    if throttles(error):
        if attempt >= retry.throttled:
            return None
        return _later(error, attempt, retry, random)
    if attempt >= _attempts(repeat, error, retry):
        return None
    return Again(random.uniform(0, _bound(retry.base, attempt, retry.longest)))


def unknown(repeat: Repeat, error: KnowledgeError) -> OutcomeUnknownError | None:
    """Tell whether `error` leaves open if a call that creates was carried out."""
    if repeat in {Repeat.SAFE, Repeat.IDEMPOTENT} or throttles(error):
        return None
    match error:
        case ConnectError():
            return None
        case TransportError(delivered=False) if repeat is Repeat.UPSERT:
            return None
        case ServerError(status=status) if status < BROKEN:
            return None
        case TransportError() | ServerError() | ProtocolError(complete=False):
            return OutcomeUnknownError(
                f"{error.summary.removesuffix('.')}; it may have been carried out all the same.",
                endpoint=error.endpoint,
                hint="Look on the server before sending it again.",
            )
        case _:
            return None


def trouble(error: KnowledgeError) -> Trouble | None:
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
            return status >= BROKEN and status != UNAVAILABLE
        case _:
            return False


def throttles(error: KnowledgeError) -> bool:
    """Tell whether the server said to come back later, having done nothing."""
    return isinstance(error, RateLimitedError) or (
        isinstance(error, ServerError) and error.status == UNAVAILABLE
    )


def _attempts(repeat: Repeat, error: KnowledgeError, retry: Retry) -> int:
    reading = repeat in {Repeat.SAFE, Repeat.IDEMPOTENT}
    most = {Repeat.SAFE: retry.reads, Repeat.IDEMPOTENT: retry.idempotent}.get(repeat, retry.writes)
    match error:
        case ConnectError():
            return most
        case ServerError(status=status) if status < BROKEN:
            return most
        case TransportError(delivered=False) if reading or repeat is Repeat.UPSERT:
            return most
        case ServerError(status=500) if reading:
            return min(most, retry.server_errors)
        case TransportError() | ServerError() | ProtocolError(complete=False) if reading:
            return most
        case _:
            return 1


def _later(error: KnowledgeError, attempt: int, retry: Retry, random: Random) -> Again:
    hint = error.retry_after if isinstance(error, RateLimitedError | ServerError) else None
    if isinstance(error, RateLimitedError) and error.status == 403:  # noqa: PLR2004 -- Dify's own
        seconds = random.uniform(0.6 * retry.quota, retry.quota)
    else:
        bound = _bound(retry.overload_base, attempt, retry.overload_longest)
        seconds = random.uniform(retry.overload_shortest, max(retry.overload_shortest, bound))
    if hint is not None:
        seconds = max(seconds, min(hint, retry.hint_longest)) * random.uniform(1.0, 1.1)
    return Again(seconds, everyone=True)


def _bound(base: float, attempt: int, longest: float) -> float:
    # A float holds no more than 2 to the 1023rd, and who waits for days gets there.
    return min(longest, base * 2.0 ** min(attempt - 1, 64))
