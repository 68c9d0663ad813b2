"""Retry decisions and delays."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dify_kb
from dify_kb.config import Policy, Retry
from dify_kb.errors import (
    ApiError,
    ConnectError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    SourceError,
    TransportError,
)
from dify_kb.transport.retry import RetryDelay, decide_retry, outcome_unknown_error
from dify_kb.wire.endpoint import Repeatability

SAFE, IDEMPOTENT, UPSERT, CREATES = (
    Repeatability.SAFE,
    Repeatability.IDEMPOTENT,
    Repeatability.UPSERT,
    Repeatability.CREATE,
)
RETRY = Retry()


def api_error(
    kind: type[ApiError], status: int, retry_after: float | None = None, message: str = ""
) -> ApiError:
    return kind("no", endpoint="e", status=status, retry_after=retry_after, message=message)


def transport_error(kind: type[TransportError], *, delivered: bool) -> TransportError:
    return kind("broke", endpoint="e", delivered=delivered)


def protocol_error(*, complete: bool) -> ProtocolError:
    return ProtocolError("odd", endpoint="e", status=200, complete=complete)


REFUSED = transport_error(ConnectError, delivered=False)
LIMIT = api_error(RateLimitedError, 403)

# The failure, and the results for SAFE, IDEMPOTENT, UPSERT and CREATE: the number of attempts
# if it is retried, "unknown" or "no". The rows are those of the table in the module.
TABLE: list[tuple[str, KnowledgeError, tuple[object, object, object, object]]] = [
    ("not reached", REFUSED, (6, 5, 4, 4)),
    ("408", api_error(RateLimitedError, 408), (10, 10, 10, 10)),
    ("425", api_error(RateLimitedError, 425), (10, 10, 10, 10)),
    ("429", api_error(RateLimitedError, 429), (10, 10, 10, 10)),
    ("503", api_error(ServerError, 503), (10, 10, 10, 10)),
    ("403 rate limit", LIMIT, (10, 10, 10, 10)),
    ("broke early", transport_error(TransportError, delivered=False), (6, 5, 4, "unknown")),
    (
        "timed out early",
        transport_error(RequestTimeoutError, delivered=False),
        (6, 5, 4, "unknown"),
    ),
    ("broke late", transport_error(TransportError, delivered=True), (6, 5, "unknown", "unknown")),
    (
        "timed out late",
        transport_error(RequestTimeoutError, delivered=True),
        (6, 5, "unknown", "unknown"),
    ),
    ("500", api_error(ServerError, 500), (3, 3, "unknown", "unknown")),
    ("400 plugin daemon", api_error(ServerError, 400), (6, 5, 4, 4)),
    ("502", api_error(ServerError, 502), (6, 5, "unknown", "unknown")),
    ("504", api_error(ServerError, 504), (6, 5, "unknown", "unknown")),
    ("524", api_error(ServerError, 524), (6, 5, "unknown", "unknown")),
    ("2xx cut short", protocol_error(complete=False), (6, 5, "unknown", "unknown")),
    ("2xx of something else", protocol_error(complete=True), ("no", "no", "no", "no")),
    ("400", api_error(dify_kb.BadRequestError, 400), ("no", "no", "no", "no")),
    ("401", api_error(dify_kb.UnauthorizedError, 401), ("no", "no", "no", "no")),
    ("402", api_error(dify_kb.QuotaExceededError, 402), ("no", "no", "no", "no")),
    ("403", api_error(dify_kb.ForbiddenError, 403), ("no", "no", "no", "no")),
    ("403 capacity", api_error(dify_kb.QuotaExceededError, 403), ("no", "no", "no", "no")),
    ("404", api_error(dify_kb.NotFoundError, 404), ("no", "no", "no", "no")),
    ("409", api_error(dify_kb.ConflictError, 409), ("no", "no", "no", "no")),
    ("413", api_error(dify_kb.TooLargeError, 413), ("no", "no", "no", "no")),
    ("415", api_error(dify_kb.UnsupportedTypeError, 415), ("no", "no", "no", "no")),
    ("301", api_error(ApiError, 301), ("no", "no", "no", "no")),
    ("file changed", SourceError("changed"), ("no", "no", "no", "no")),
]
CASES = [
    pytest.param(error, repeat, expected, id=f"{what}-{repeat.name}")
    for what, error, row in TABLE
    for repeat, expected in zip(Repeatability, row, strict=True)
]


def count_attempts(repeat: Repeatability, error: KnowledgeError, retry: Retry = RETRY) -> int:
    """Return the number of attempts of a call that fails with the same error each time."""
    attempt = 1
    while decide_retry(repeat, attempt, error, retry, Random(0)) is not None:
        attempt += 1
        assert attempt < 100, "it never ends"
    return attempt


@pytest.mark.parametrize(("error", "repeat", "expected"), CASES)
def test_decisions_match_the_documented_table(
    error: KnowledgeError, repeat: Repeatability, expected: object
) -> None:
    """A wrong cell would lose a call, duplicate a document, or overload the server."""
    assert count_attempts(repeat, error) == (expected if isinstance(expected, int) else 1)
    assert isinstance(outcome_unknown_error(repeat, error), OutcomeUnknownError) == (
        expected == "unknown"
    )


@pytest.mark.parametrize("repeat", Repeatability)
@pytest.mark.parametrize("error", [error for _, error, _ in TABLE], ids=[row[0] for row in TABLE])
def test_no_failure_is_both_retried_and_outcome_unknown(
    repeat: Repeatability, error: KnowledgeError
) -> None:
    """A request that may have succeeded must not be retried before this is reported."""
    again = decide_retry(repeat, 1, error, RETRY, Random(0))

    assert again is None or outcome_unknown_error(repeat, error) is None


@pytest.mark.parametrize("repeat", Repeatability)
def test_one_allowed_attempt_is_not_retried(repeat: Repeatability) -> None:
    """With one allowed attempt, no error causes a retry."""
    once = Retry(
        read_attempts=1,
        idempotent_attempts=1,
        write_attempts=1,
        throttled_attempts=1,
        server_error_attempts=1,
    )

    assert {count_attempts(repeat, error, once) for _, error, _ in TABLE} == {1}


def test_an_unknown_outcome_says_what_happened_and_what_to_do() -> None:
    """Programs must handle this error by checking on the server."""
    found = outcome_unknown_error(CREATES, transport_error(RequestTimeoutError, delivered=True))

    assert found is not None
    assert found.endpoint == "e"
    assert found.delivered
    assert found.summary == "broke; the request may have succeeded."
    assert "Check on the server" in found.hint


@given(seed=st.integers(), attempt=st.integers(1, 5))
def test_a_delay_after_a_failure_is_below_its_bound(seed: int, attempt: int) -> None:
    """Full jitter, from 0, prevents a thousand clients from retrying at the same time."""
    again = decide_retry(SAFE, attempt, REFUSED, RETRY, Random(seed))

    assert again is not None
    assert 0 <= again.seconds <= min(20.0, 0.25 * 2 ** (attempt - 1))
    assert not again.pauses_all


@given(seed=st.integers(), attempt=st.integers(1, 9), status=st.sampled_from([408, 425, 429]))
def test_a_delay_after_overload_is_within_its_bounds(seed: int, attempt: int, status: int) -> None:
    """The delay is never 0, never more than a minute, and applies to all calls."""
    again = decide_retry(CREATES, attempt, api_error(RateLimitedError, status), RETRY, Random(seed))

    assert again is not None
    assert 0.5 <= again.seconds <= min(60.0, 2.0 * 2 ** (attempt - 1))
    assert again.pauses_all


@given(seed=st.integers(), attempt=st.integers(1, 9))
def test_a_delay_after_a_rate_limit_is_that_of_the_quota(seed: int, attempt: int) -> None:
    """Rejected calls count towards Dify's limit: early retries make it worse."""
    again = decide_retry(UPSERT, attempt, LIMIT, RETRY, Random(seed))

    assert again is not None
    assert 4.8 <= again.seconds <= 8.0
    assert again.pauses_all


@given(
    seed=st.integers(),
    attempt=st.integers(1, 9),
    hint=st.floats(0, allow_infinity=True),
    error=st.sampled_from([(RateLimitedError, 429), (ServerError, 503), (RateLimitedError, 403)]),
)
def test_retry_after_is_a_minimum_up_to_its_limit(
    seed: int, attempt: int, hint: float, error: tuple[type[ApiError], int]
) -> None:
    """An earlier retry would be rejected; obeying a Retry-After of a day would hang the program."""
    again = decide_retry(SAFE, attempt, api_error(*error, hint), RETRY, Random(seed))

    assert again is not None
    assert min(hint, 300.0) <= again.seconds <= 300.0 * 1.1


def test_the_same_seed_gives_the_same_delays() -> None:
    """Delays can be tested without waiting."""
    first, second = (decide_retry(SAFE, 3, REFUSED, RETRY, Random(7)) for _ in range(2))

    assert first == second
    assert isinstance(first, RetryDelay)


@pytest.mark.parametrize("error", [REFUSED, api_error(ServerError, 503)])
def test_delays_do_not_overflow_after_many_attempts(error: KnowledgeError) -> None:
    """2.0 ** 5000 overflows; many allowed attempts must not raise OverflowError."""
    patient = Retry(read_attempts=10_000, throttled_attempts=10_000)

    again = decide_retry(SAFE, 5_000, error, patient, Random(0))

    assert again is not None
    assert again.seconds <= 60.0


def test_a_scaled_policy_keeps_its_attempts_and_timeouts() -> None:
    """Tests wait for less time, but with the same attempts and timeouts."""
    policy = Policy().scaled(0.001)

    assert policy.timeout == Policy().timeout
    assert policy.retry.throttled_attempts == Policy().retry.throttled_attempts
    assert policy.retry.overload_max_delay == pytest.approx(0.06)
    assert policy.load_timing.lookup_intervals == pytest.approx((0.001, 0.003, 0.01, 0.03, 0.06))
    assert policy.load_timing.max_sends == Policy().load_timing.max_sends
