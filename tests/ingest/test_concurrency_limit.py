"""The concurrency limit on models of servers and after single responses."""

from __future__ import annotations

import math

import pytest
import server_model as model
from attrs import evolve

from dify_kb.ingest.pacing.concurrency_limit import ConcurrencyLimit, ConnectionStarvation

SEED = 3


def best_throughput(pod: model.ServerCapacity, *limits: int) -> int:
    return max(len(model.simulate_limit(pod, model.FixedLimit(limit)).ends) for limit in limits)


def record_responses(
    limit: ConcurrencyLimit, seconds: float, count: int, now: float = 0.0
) -> float:
    """Record `count` responses that took `seconds` each; return the time of the last."""
    for _ in range(count):
        now += seconds / limit.limit
        limit.record_response(now, seconds, limit.limit)
    return now


@pytest.mark.parametrize(
    ("pod", "limits"),
    [(model.DEFAULT, (2, 4)), (model.NEWEST, (2, 4)), (model.BUSY, (9, 32))],
    ids=lambda value: value.name if isinstance(value, model.ServerCapacity) else "",
)
def test_limit_saturates_a_server_without_queueing(
    pod: model.ServerCapacity, limits: tuple[int, ...]
) -> None:
    alone = model.simulate_limit(pod, model.FixedLimit(1)).quantile(0.5)

    outcome = model.simulate_limit(pod, ConcurrencyLimit(), seed=SEED)

    assert len(outcome.ends) >= 0.95 * best_throughput(pod, *limits)
    assert outcome.quantile(0.5) <= 2.5 * alone
    assert outcome.starved == 0


@pytest.mark.parametrize("pod", [model.ELSEWHERE, model.LOCKED], ids=lambda pod: pod.name)
def test_limit_grows_on_a_large_server(pod: model.ServerCapacity) -> None:
    alone = model.simulate_limit(pod, model.FixedLimit(1)).quantile(0.5)

    outcome = model.simulate_limit(pod, ConcurrencyLimit(), seed=SEED)

    assert len(outcome.ends) >= 0.95 * best_throughput(pod, 32, 48)
    assert outcome.quantile(0.5) <= 2.5 * alone


def test_fast_server_is_not_throttled() -> None:
    """Its latencies are jitter of the event loop, not a queue."""
    floor = len(model.simulate_limit(model.JITTERY, model.FixedLimit(8), 10.0).ends)

    outcome = model.simulate_limit(model.JITTERY, ConcurrencyLimit(), 10.0, SEED)

    assert len(outcome.ends) >= 0.95 * floor
    assert outcome.limits[-1][1] <= 10


def test_limit_recovers_after_a_brownout() -> None:
    outcome = model.simulate_limit(
        evolve(model.ELSEWHERE, slow=(20.0, 60.0, 10.0)), ConcurrencyLimit(), 90.0, SEED
    )

    assert outcome.rate(80.0, 90.0) >= 0.9 * outcome.rate(10.0, 20.0)


def test_few_requests_are_sent_during_an_error_storm() -> None:
    pod = evolve(model.DEFAULT, failing=(20.0, 40.0, 0.6))

    outcome = model.simulate_load(pod, 80.0, SEED)

    assert 0 < outcome.wasted <= 0.25 * model.simulate_limit(pod, model.FixedLimit(32), 60.0).wasted
    assert outcome.rate(60.0, 80.0) >= 0.9 * outcome.rate(5.0, 20.0)


@pytest.mark.parametrize("seed", range(6))
def test_limit_recovers_after_a_full_outage(seed: int) -> None:
    """After a restart of 10 s, for any order of failures."""
    outcome = model.simulate_load(evolve(model.DEFAULT, failing=(5.0, 15.0, 1.0)), 60.0, seed)

    assert 0 < outcome.wasted <= 60
    assert outcome.rate(30.0, 60.0) >= 20


def test_latency_noise_does_not_lower_the_limit() -> None:
    outcome = model.simulate_limit(model.WILD, ConcurrencyLimit(), 60.0, SEED)

    assert outcome.rate(30.0, 60.0) >= 0.75 * best_throughput(model.WILD, 32) / 120


def test_connection_starvation_lowers_the_limit() -> None:
    """A pod with 10 connections and free processor time: only the tail latency shows the limit."""
    pod = model.ServerCapacity(name="slow database", cpu=0.004, io=0.1)

    outcome = model.simulate_limit(pod, ConcurrencyLimit(), 120.0, SEED)

    assert 0 < outcome.starved < 30
    assert 8 <= outcome.limits[-1][1] <= 10


def test_server_tail_latency_does_not_lower_the_limit_permanently() -> None:
    """One of 100 creates takes 4 s longer, as on slow storage, at any limit."""
    outcome = model.simulate_limit(
        evolve(model.ELSEWHERE, stalls=0.01, stall=4.0), ConcurrencyLimit(), 200.0, SEED
    )

    assert outcome.rate(150.0, 200.0) >= 300


def test_limit_starts_low() -> None:
    limit = ConcurrencyLimit()
    assert limit.limit == 1

    record_responses(limit, 0.04, 12)

    assert limit.limit == 2


def test_fixed_limit_never_changes() -> None:
    limit = ConcurrencyLimit(10, 10)
    record_responses(limit, 5.0, 100)
    limit.record_overload(30.0)
    limit.reopen(31.0)

    assert limit.limit == limit.connections == 10


def test_limit_stays_within_bounds() -> None:
    limits = [
        limit
        for _, limit in model.simulate_limit(model.ELSEWHERE, ConcurrencyLimit(4, 12), 30.0).limits
    ]

    assert min(limits) == 4
    assert max(limits) == 12


def test_unused_limit_is_not_raised() -> None:
    """A load that waits for files or for a rate limit does not show the capacity of the server."""
    limit = ConcurrencyLimit()
    now = record_responses(limit, 0.04, 12)
    for _ in range(500):
        now += 0.04
        limit.record_response(now, 0.04, 1)

    assert limit.limit == 2


def test_overload_lowers_the_limit_once_per_second() -> None:
    limit = ConcurrencyLimit(1, 64, 20)
    now = record_responses(limit, 0.04, 12)
    previous = limit.limit
    for _ in range(10):
        limit.record_overload(now)

    assert limit.limit == int(0.6 * previous)


def test_limit_is_halved_after_an_outage() -> None:
    limit = ConcurrencyLimit(1, 64, 20)
    now = record_responses(limit, 0.04, 12)
    previous = limit.limit

    limit.reopen(now)

    assert limit.limit == previous // 2


def test_limit_exceeds_the_pod_limit_by_small_steps() -> None:
    limits = [
        limit
        for _, limit in model.simulate_limit(model.ELSEWHERE, ConcurrencyLimit(), 30.0, SEED).limits
    ]

    assert min(limit for limit in limits if limit > 9) == 12
    assert max(limits) > 32


def test_unloaded_latency_is_measured_again_after_the_ramp() -> None:
    """The first measurement is short and may be inaccurate."""
    limits = model.simulate_limit(model.BUSY, ConcurrencyLimit(), 30.0, SEED).limits
    ramp_end = next(now for now, limit in limits if limit >= 7)

    assert min(limit for now, limit in limits if ramp_end < now < ramp_end + 5) <= 4


def test_starved_create_counts_against_the_limit_that_admitted_it() -> None:
    starvation = ConnectionStarvation()
    starvation.record_limit(0.0, 9)
    starvation.record_limit(4.3, 12)

    starvation.record_starved(9.4, math.nextafter(4.3, 0.0))

    assert starvation.ceiling(9.4) == 10
